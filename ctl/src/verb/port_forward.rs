use crate::{
    exit::{Exit, Failure},
    kind::parse_kind,
    pods,
    session::Session,
};
use std::{net::IpAddr, sync::Arc};
use strata_client::Client;
use strata_model::limits::CHUNK_BYTES;
use strata_proto::types::{Kind, Object, ServicePort, object};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Connections of one port-forward at the same time.
const CONNECTIONS_MAX: usize = 64;

/// Forward local ports to a pod.
///
/// Listens on this machine and passes each connection on to the pod, through the controller. Goes on until it is interrupted.
/// Of a workload any running pod is taken, of a service any ready one, and REMOTE is then a port of the service.
///
/// Examples:
///   ctl port-forward web-3 8080
///   ctl port-forward workload/web 8000:8080
///   ctl port-forward service/web :80
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub address: IpAddr,
    /// A pod, workload/NAME or service/NAME
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The ports; without LOCAL the same number, with an empty one any free port
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    pub ports: Vec<String>,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let ports = args.ports.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let (pod, ports) = resolve(session, &args.target, ports).await?;
    let mut listening = JoinSet::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for (local, remote) in ports {
        let listener = TcpListener::bind((args.address, local)).await;
        let listener = listener.map_err(|e| {
            Failure::new(
                Exit::Own,
                format!("cannot listen on {}:{local}: {e}; choose another port (LOCAL:REMOTE)", args.address),
            )
        })?;
        let at = listener.local_addr().map_err(|e| Failure::new(Exit::Own, e.to_string()))?;
        crate::output::print(&format!("Forwarding from {at} -> {remote}\n"))?;
        let connection = Connection {
            client: session.client.clone(),
            namespace: session.namespace.clone(),
            pod: pod.clone(),
            port: remote,
        };
        listening.spawn(accept(listener, Arc::new(connection), connections.clone()));
    }
    // None of them ends by itself.
    while listening.join_next().await.is_some() {}
    Ok(())
}

/// Local and remote port.
fn parse(text: &str) -> Result<(u16, u16), Failure> {
    let bad = || Failure::usage(format!("{text:?}: [LOCAL:]REMOTE with ports from 1 to 65535 is expected"));
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
    match text.split_once(':') {
        None => port(text).map(|p| (p, p)),
        Some(("", remote)) => Ok((0, port(remote)?)),
        Some((local, remote)) => Ok((port(local)?, port(remote)?)),
    }
}

/// The pod's name, and the ports with those of a service as the pod's.
async fn resolve(
    session: &Session,
    target: &str,
    ports: Vec<(u16, u16)>,
) -> Result<(String, Vec<(u16, u16)>), Failure> {
    let name = match target.split_once('/') {
        Some((kind, name)) if parse_kind(kind).map_err(Failure::usage)? == Kind::Service => name,
        _ => return Ok((pods::resolve(session, target).await?, ports)),
    };
    let namespace = &session.namespace;
    let object = session.client.get(Kind::Service, namespace, name).await?;
    let Some(object::Kind::Service(service)) = object.kind else {
        return Err(Failure::new(Exit::NotFound, format!("{name} is no service")));
    };
    let endpoints = service.status.map(|s| s.endpoints).unwrap_or_default();
    let pod = endpoints.into_iter().find(|e| e.ready).map(|e| e.pod).ok_or_else(|| {
        let message = format!("service {namespace}/{name} has no ready pod: see `ctl describe service {name}`");
        Failure::new(Exit::NotFound, message)
    })?;
    let spec = service.spec.unwrap_or_default();
    let mut resolved = Vec::with_capacity(ports.len());
    for (local, remote) in ports {
        let port = spec.ports.iter().find(|p| p.port == u32::from(remote)).ok_or_else(|| {
            let known: Vec<String> = spec.ports.iter().map(|p| p.port.to_string()).collect();
            Failure::new(
                Exit::NotFound,
                format!("service {namespace}/{name} has no port {remote}, but: {}", known.join(", ")),
            )
        })?;
        resolved.push((local, target_of(session, &pod, port).await?));
    }
    Ok((pod, resolved))
}

/// The port of the pod that a port of a service means.
async fn target_of(session: &Session, pod: &str, port: &ServicePort) -> Result<u16, Failure> {
    let number = match (port.target_port, port.target_port_name.as_str()) {
        (0, "") => port.port,
        (0, name) => {
            let object = session.client.get(Kind::Pod, &session.namespace, pod).await?;
            named_port(session, &object, name)
                .await?
                .ok_or_else(|| Failure::new(Exit::NotFound, format!("pod {pod} has no container port named {name}")))?
        }
        (number, _) => number,
    };
    u16::try_from(number).map_err(|_| Failure::new(Exit::Own, format!("{number} is no port")))
}

async fn named_port(session: &Session, pod: &Object, name: &str) -> Result<Option<u32>, Failure> {
    let Some(object::Kind::Pod(pod)) = &pod.kind else { return Ok(None) };
    let spec = pod.spec.clone().unwrap_or_default();
    let template = match spec.template {
        Some(template) => Some(template),
        None => match session.client.get(Kind::Template, "", &spec.template_revision).await?.kind {
            Some(object::Kind::Template(template)) => template.spec.and_then(|s| s.pod),
            _ => None,
        },
    };
    let ports = template.iter().flat_map(|t| &t.containers).flat_map(|c| &c.ports);
    Ok(ports.into_iter().find(|p| p.name == name).map(|p| p.container_port))
}

struct Connection {
    client: Client,
    namespace: String,
    pod: String,
    port: u16,
}

async fn accept(listener: TcpListener, connection: Arc<Connection>, connections: Arc<Semaphore>) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    if let Err(why) = relay(stream, &connection).await {
                        eprintln!("{why}");
                    }
                });
            }
            Err(e) => eprintln!("a connection was not accepted: {e}"),
        }
    }
}

async fn relay(mut stream: TcpStream, to: &Connection) -> Result<(), String> {
    let (input, mut output) = to.client.forward(&to.namespace, &to.pod, to.port).await.map_err(|e| e.to_string())?;
    let (mut reader, mut writer) = stream.split();
    let up = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count) = reader.read(&mut buffer).await {
            if count == 0 {
                input.end().await;
                // What still comes down is waited for.
                return std::future::pending::<()>().await;
            }
            if !input.data(buffer[..count].to_vec()).await {
                return;
            }
        }
    };
    let down = async {
        loop {
            match output.message().await {
                Ok(Some(chunk)) => {
                    if writer.write_all(&chunk.data).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(status) => return Err(format!("the connection to {} broke: {}", to.pod, status.message())),
            }
        }
    };
    tokio::select! {
        () = up => Ok(()),
        ended = down => ended,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_come_in_three_forms() {
        assert_eq!(parse("80").unwrap(), (80, 80));
        assert_eq!(parse("8000:80").unwrap(), (8000, 80));
        assert_eq!(parse(":80").unwrap(), (0, 80));
        for bad in ["", "0", "x", "80:", "65536", "1:2:3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
