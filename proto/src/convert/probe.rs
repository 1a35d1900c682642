//! Probes.

use super::BadObject;
use crate::types as wire;
use strata_model::{Check, Port, Probe, Probes, limits};
use wire::probe::Check as Wire;

/// The three probes of a container. A port's name is looked up among the container's.
pub(super) fn probes(c: &wire::Container, ports: &[Port]) -> Result<Probes, BadObject> {
    let one = |field: &str, probe: &Option<wire::Probe>, once: bool| match probe {
        None => Ok(None),
        Some(p) => {
            let probe = read(p, ports).map_err(|e| e.below(field))?;
            if once && probe.success_threshold != 1 {
                let why = "a startup or liveness probe succeeds with its first good answer: leave it out or write 1";
                return Err(BadObject::new(format!("{field}.successThreshold"), why));
            }
            Ok(Some(probe))
        }
    };
    Ok(Probes {
        startup: one("startup", &c.startup, true)?,
        readiness: one("readiness", &c.readiness, false)?,
        liveness: one("liveness", &c.liveness, true)?,
    })
}

fn read(p: &wire::Probe, ports: &[Port]) -> Result<Probe, BadObject> {
    let or = |field: &str, value: u32, default: u32, max: u32| match value {
        0 => Ok(default),
        n if n <= max => Ok(n),
        n => Err(BadObject::new(field, format!("{n} is too much: at most {max}"))),
    };
    let seconds = |field: &str, value, default| or(field, value, default, limits::PROBE_SECONDS_MAX);
    Ok(Probe {
        check: check(p.check.as_ref(), ports)?,
        initial_delay_s: seconds("initialDelayS", p.initial_delay_s, 0)?,
        period_s: seconds("periodS", p.period_s, 10)?,
        timeout_s: seconds("timeoutS", p.timeout_s, 1)?,
        success_threshold: or("successThreshold", p.success_threshold, 1, limits::PROBE_THRESHOLD_MAX)?,
        failure_threshold: or("failureThreshold", p.failure_threshold, 3, limits::PROBE_THRESHOLD_MAX)?,
    })
}

fn check(check: Option<&Wire>, ports: &[Port]) -> Result<Check, BadObject> {
    match check {
        None => Err(BadObject::new("", "says nothing to check: write one of exec, http, tcp or grpc")),
        Some(Wire::Exec(exec)) => {
            if exec.command.is_empty() || exec.command.len() > limits::PROBE_WORDS_MAX {
                let why = format!("a command has 1 to {} words", limits::PROBE_WORDS_MAX);
                return Err(BadObject::new("exec.command", why));
            }
            if exec.command.iter().any(|w| w.contains('\0')) {
                return Err(BadObject::new("exec.command", "must not contain NUL"));
            }
            Ok(Check::Exec(exec.command.clone()))
        }
        Some(Wire::Http(http)) => {
            let port = port("http", http.port, &http.port_name, ports)?;
            let path = match http.path.as_str() {
                path if path.starts_with('/') => path.to_owned(),
                path => format!("/{path}"),
            };
            if path.len() > 2048 || path.chars().any(|c| c.is_control() || c == ' ') {
                return Err(BadObject::new("http.path", "at most 2048 characters without spaces"));
            }
            let visible = |s: &str| s.chars().all(|c| c == ' ' || c.is_ascii_graphic());
            let token = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if let Some((name, _)) = http.headers.iter().find(|(k, v)| k.is_empty() || !token(k) || !visible(v)) {
                return Err(BadObject::new(format!("http.headers[{name}]"), "is no header: NAME and visible ASCII"));
            }
            let headers = http.headers.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            Ok(Check::Http { path, port, https: http.https, headers })
        }
        Some(Wire::Tcp(tcp)) => Ok(Check::Tcp { port: port("tcp", tcp.port, &tcp.port_name, ports)? }),
        Some(Wire::Grpc(grpc)) => {
            Ok(Check::Grpc { port: port("grpc", grpc.port, "", ports)?, service: grpc.service.clone() })
        }
    }
}

fn port(field: &str, number: u32, name: &str, ports: &[Port]) -> Result<u16, BadObject> {
    match (number, name) {
        (0, "") => Err(BadObject::new(format!("{field}.port"), "is missing: 1 to 65535")),
        (0, name) => ports.iter().find(|p| p.name == name).map(|p| p.container_port).ok_or_else(|| {
            let known: Vec<&str> = ports.iter().map(|p| p.name.as_str()).filter(|n| !n.is_empty()).collect();
            let known = if known.is_empty() { "no port has a name".to_owned() } else { known.join(", ") };
            BadObject::new(format!("{field}.portName"), format!("the container has no port {name:?} ({known})"))
        }),
        (number, _) => u16::try_from(number).map_err(|_| BadObject::new(format!("{field}.port"), "1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_model::Protocol;

    fn container(probe: wire::Probe) -> wire::Container {
        wire::Container { liveness: Some(probe), ..wire::Container::default() }
    }

    fn http(port: u32, port_name: &str) -> wire::Probe {
        let http = wire::HttpCheck { port, port_name: port_name.into(), ..Default::default() };
        wire::Probe { check: Some(Wire::Http(http)), ..Default::default() }
    }

    #[test]
    fn defaults_are_kubernetes_and_named_ports_are_found() {
        let ports = [Port { name: "web".into(), container_port: 8080, protocol: Protocol::Tcp }];
        let probe = probes(&container(http(0, "web")), &ports).unwrap().liveness.unwrap();
        let Check::Http { path, port, .. } = &probe.check else { unreachable!() };
        assert_eq!((path.as_str(), *port), ("/", 8080));
        let numbers = (probe.initial_delay_s, probe.period_s, probe.timeout_s, probe.failure_threshold);
        assert_eq!((numbers, probe.success_threshold), ((0, 10, 1, 3), 1));
    }

    #[test]
    fn nonsense_is_refused_with_its_path() {
        let exec = wire::ExecCheck { command: vec![] };
        for (probe, path) in [
            (wire::Probe::default(), "liveness"),
            (http(0, ""), "liveness.http.port"),
            (http(70_000, ""), "liveness.http.port"),
            (http(0, "nope"), "liveness.http.portName"),
            (wire::Probe { success_threshold: 2, ..http(80, "") }, "liveness.successThreshold"),
            (wire::Probe { period_s: 1_000_000, ..http(80, "") }, "liveness.periodS"),
            (wire::Probe { check: Some(Wire::Exec(exec)), ..Default::default() }, "liveness.exec.command"),
        ] {
            assert_eq!(probes(&container(probe), &[]).unwrap_err().path, path);
        }
    }
}
