use super::exec::{Detach, converse_until};
use crate::{exit::Failure, output, pods, session::Session, terminal};
use strata_client::ExecStart;
use strata_proto::types::{Container, Kind, Pod, object};

/// Attach to a container's own process: what it has written, what it writes, and its input and terminal if it has them.
///
/// With a terminal, ctrl-p ctrl-q lets go of it and leaves it running. Else its end is waited for, and its exit code is ctl's.
///
/// Examples:
///   ctl attach shell
///   ctl attach web-3 -c main --no-stdin
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// Only watch, even if the container reads its input
    #[arg(long)]
    pub no_stdin: bool,
}

pub async fn perform(args: &Args, session: &Session) -> Result<u8, Failure> {
    let pod = pods::resolve(session, &args.pod).await?;
    let (tty, stdin) = match template_container(session, &pod, &args.container).await? {
        Some(container) => (container.tty, container.stdin && !args.no_stdin),
        None => (false, false),
    };
    let start = ExecStart {
        namespace: session.namespace.clone(),
        pod: pod.clone(),
        container: args.container.clone(),
        tty,
        stdin,
        size: tty.then(terminal::wire_size),
        attach: true,
        ..Default::default()
    };
    if tty && stdin {
        output::talk("attached; ctrl-p ctrl-q detaches");
    }
    let detach = if tty && stdin { Detach::CtrlPCtrlQ } else { Detach::Never };
    match converse_until(session, start, detach).await? {
        Some(code) => Ok(code),
        None => {
            output::talk(&format!("detached from pod/{pod}; it runs on"));
            Ok(0)
        }
    }
}

/// How the template has the container; `None` if it is not known.
async fn template_container(session: &Session, pod: &str, container: &str) -> Result<Option<Container>, Failure> {
    let object = session.client.get(Kind::Pod, &session.namespace, pod).await?;
    let Some(object::Kind::Pod(Pod { spec: Some(spec), .. })) = object.kind else { return Ok(None) };
    let template = match spec.template {
        Some(template) => Some(template),
        None => match session.client.get(Kind::Template, "", &spec.template_revision).await?.kind {
            Some(object::Kind::Template(template)) => template.spec.and_then(|s| s.pod),
            _ => None,
        },
    };
    let containers = template.map(|t| t.containers).unwrap_or_default();
    let only = containers.len() == 1;
    Ok(containers.into_iter().find(|c| c.name == container || (container.is_empty() && only)))
}
