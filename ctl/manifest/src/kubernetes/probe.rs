//! Startup, readiness and liveness probes.

use std::collections::HashMap;

use strata_proto::types::{ExecCheck, GrpcCheck, HttpCheck, Port, Probe, TcpCheck, probe::Check};

use crate::{
    at::At,
    read::{Fields, fields, whole},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NotYet, Read},
        Table,
    },
    tree::{Node, Value},
};

const PROBE: Table = &[
    ("exec", Read),
    ("httpGet", Read),
    ("tcpSocket", Read),
    ("grpc", Read),
    ("initialDelaySeconds", Read),
    ("periodSeconds", Read),
    ("timeoutSeconds", Read),
    ("successThreshold", Read),
    ("failureThreshold", Read),
    ("terminationGracePeriodSeconds", NotYet),
];
const EXEC: Table = &[("command", Read)];
const HTTP: Table = &[("path", Read), ("port", Read), ("scheme", Read), ("httpHeaders", Read), ("host", NotYet)];
const HEADER: Table = &[("name", Read), ("value", Read)];
const TCP: Table = &[("port", Read), ("host", NotYet)];
const GRPC: Table = &[("port", Read), ("service", Read)];

/// What of a probe is built.
const CHECKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
/// Of each number; Kubernetes' own bound is 2^31.
const SECONDS_MAX: u32 = 86_400 * 365;

/// Reads a probe of a container that has these ports. Only readiness may demand several successes.
pub(crate) fn read(c: &Fields<'_, '_>, name: &'static str, ports: &[Port], report: &mut Report) -> Option<Probe> {
    let node = c.get(name)?;
    let at = c.at().field(name);
    let p = fields(node, at, PROBE, report)?;
    let given: Vec<&str> = CHECKS.into_iter().filter(|check| p.get(check).is_some()).collect();
    let &[kind] = given.as_slice() else {
        report.error(node.pos, at, format!("one of {} is expected, {} are given", CHECKS.join(", "), given.len()));
        return None;
    };
    let (inner, here) = (p.get(kind)?, at.field(kind));
    let check = match kind {
        "exec" => exec(inner, here, report),
        "httpGet" => http(inner, here, ports, report),
        "tcpSocket" => {
            let t = fields(inner, here, TCP, report)?;
            let (port, port_name) = port(&t, ports, report)?;
            Some(Check::Tcp(TcpCheck { port, port_name }))
        }
        _ => {
            let g = fields(inner, here, GRPC, report)?;
            g.require("port", report)?;
            let port = g.number("port", 65_535, report)?;
            Some(Check::Grpc(GrpcCheck { port, service: g.text("service", report).unwrap_or_default() }))
        }
    };
    let mut seconds = |name| p.number(name, SECONDS_MAX, report).unwrap_or_default();
    let probe = Probe {
        initial_delay_s: seconds("initialDelaySeconds"),
        period_s: seconds("periodSeconds"),
        timeout_s: seconds("timeoutSeconds"),
        success_threshold: seconds("successThreshold"),
        failure_threshold: seconds("failureThreshold"),
        check: Some(check?),
    };
    if let Some(threshold) =
        p.get("successThreshold").filter(|_| name != "readinessProbe" && probe.success_threshold > 1)
    {
        report.error(threshold.pos, at.field("successThreshold"), format!("is 1 for a {name}: one success is enough"));
    }
    Some(probe)
}

fn exec(node: &Node, at: At<'_>, report: &mut Report) -> Option<Check> {
    let e = fields(node, at, EXEC, report)?;
    let command = e.texts("command", report);
    if command.is_empty() && e.get("command").is_none_or(|n| matches!(&n.value, Value::List(items) if items.is_empty()))
    {
        report.error(node.pos, at, "`command` is missing");
        return None;
    }
    Some(Check::Exec(ExecCheck { command }))
}

fn http(node: &Node, at: At<'_>, ports: &[Port], report: &mut Report) -> Option<Check> {
    let h = fields(node, at, HTTP, report)?;
    let (port, port_name) = port(&h, ports, report)?;
    let headers = h.list("httpHeaders", report, |node, at, report| {
        let header = fields(node, at, HEADER, report)?;
        header.require("name", report)?;
        Some((header.text("name", report)?, header.text("value", report).unwrap_or_default(), node.pos))
    });
    let mut map = HashMap::new();
    for (name, value, pos) in headers {
        if map.keys().any(|known: &String| known.eq_ignore_ascii_case(&name)) {
            report.error(pos, at.field("httpHeaders"), format!("the header {:?} is given twice", cut(&name)));
        }
        map.insert(name, value);
    }
    Some(Check::Http(HttpCheck {
        path: h.text("path", report).unwrap_or_default(),
        port,
        port_name,
        https: h.word("scheme", &[("HTTP", false), ("HTTPS", true)], report).unwrap_or_default(),
        headers: map,
    }))
}

/// A port by its number, or by the name of one of the container's.
fn port(of: &Fields<'_, '_>, ports: &[Port], report: &mut Report) -> Option<(u32, String)> {
    let node = of.require("port", report)?;
    let here = of.at().field("port");
    let name = match &node.value {
        Value::Scalar { text, plain } if !plain || !text.bytes().all(|b| b.is_ascii_digit()) => text,
        _ => return number(node, here, report).map(|port| (port, String::new())),
    };
    if !ports.iter().any(|p| p.name == *name) {
        let hint = did_you_mean(name, ports.iter().map(|p| p.name.as_str()));
        report.error(node.pos, here, format!("the container has no port named {:?}{hint}", cut(name)));
        return None;
    }
    Some((0, name.clone()))
}

fn number(node: &Node, at: At<'_>, report: &mut Report) -> Option<u32> {
    let port = whole(node, at, 65_535, report)?;
    if port == 0 {
        report.error(node.pos, at, "a port is 1 to 65535");
        return None;
    }
    u32::try_from(port).ok()
}
