use crate::{
    condition,
    exit::{Exit, Failure},
    observe::until,
    output,
    progress::Progress,
    session::Session,
    terminal,
    verb::exec::converse,
};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io::Write as _,
    time::Duration,
};
use strata_client::{ApplyMode, Client, ExecStart, LogOptions};
use strata_model::ImageName;
use strata_proto::types::{
    Container, EnvVar, Kind, Meta, Object, Pod, PodSpec, PodStatus, PodTemplate, object, pod_status::Phase,
    pod_template::RestartPolicy,
};
use tokio::time::Instant;

/// How long an attached run waits at most: a year stands for "until it ends".
const ATTACHED_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Characters that names of pods made up here have behind the image's name.
const SUFFIX_CHARS: usize = 5;

/// Run an image once, in a pod of its own.
///
/// Without --detach it prints what the container writes, waits for its end and exits with its code, with 128+N if signal N ended it, with 125
/// if ctl itself failed. The pod stays for `ctl logs` and `ctl describe` unless --rm is given.
///
/// Examples:
///   ctl run busybox --rm -- echo hello
///   ctl run nginx --name web --detach
///   ctl run -it --rm debian -- bash
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The image, as docker writes it
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The pod's name; made up from the image's otherwise
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Pass stdin on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Delete the pod when it has ended
    #[arg(long, conflicts_with = "detach")]
    pub rm: bool,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Do not wait; print the pod's name
    #[arg(short, long, conflicts_with_all = ["stdin", "tty"])]
    pub detach: bool,
    /// What runs: replaces the command of the image; an entrypoint of the image stays and takes it as arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

impl Args {
    pub fn check(&self) -> Result<(), Failure> {
        let bad = |error: strata_model::Invalid| Failure::usage(error.to_string());
        ImageName::parse(&self.image).map_err(bad)?;
        if let Some(name) = &self.name {
            strata_model::check_name("pod name", name).map_err(bad)?;
        }
        match self.env.iter().find(|pair| pair.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
            Some(pair) => Err(Failure::usage(format!("--env {pair:?}: write NAME=VALUE"))),
            None => Ok(()),
        }
    }
}

pub async fn perform(args: Args, session: &Session) -> Result<u8, Failure> {
    let name = args.name.clone().unwrap_or_else(|| made_up_name(&args.image));
    session.client.apply(pod(&args, &session.namespace, &name), ApplyMode::CreateOnly).await?;
    if args.detach {
        output::print(&format!("pod/{name}\n"))?;
        return Ok(0);
    }
    let attached = tokio::select! {
        code = attend(&args, session, &name) => code,
        _ = tokio::signal::ctrl_c() => Ok(128 + 2),
    };
    if args.rm {
        session.client.delete(Kind::Pod, &session.namespace, &name, 0, false).await?;
    } else if matches!(attached, Ok(130)) {
        output::talk(&format!("ctl: pod {name} is left as it is; `ctl delete pod {name}` removes it"));
    }
    attached
}

/// Follows the pod from its making to its end; returns its exit code.
async fn attend(args: &Args, session: &Session, name: &str) -> Result<u8, Failure> {
    let begun = wait_for(session, name, |status| status.phase() >= Phase::Running).await?;
    // One that has ended already may have written something; one that never started has not.
    let interactive = args.stdin && begun.phase() == Phase::Running;
    if interactive {
        let start = ExecStart {
            namespace: session.namespace.clone(),
            pod: name.to_owned(),
            tty: args.tty,
            stdin: true,
            size: args.tty.then(terminal::wire_size),
            attach: true,
            ..Default::default()
        };
        return converse(session, start).await;
    }
    if begun.containers.iter().any(|container| container.started.is_some() || container.pid > 0)
        || begun.phase() == Phase::Running
    {
        follow_logs(session, name).await?;
    }
    let ended =
        wait_for(session, name, |status| matches!(status.phase(), Phase::Exited | Phase::Failed | Phase::Lost)).await?;
    exit_code(name, &ended)
}

fn exit_code(name: &str, status: &PodStatus) -> Result<u8, Failure> {
    let code = status.containers.first().map_or(0, |container| container.exit_code);
    let started = status.containers.first().is_some_and(|c| c.started.is_some() || c.exit_code != 0);
    match (status.phase(), u8::try_from(code)) {
        (Phase::Exited, Ok(code)) => Ok(code),
        (Phase::Failed, Ok(code)) if code != 0 && started => Ok(code),
        (phase, _) => {
            let why = [status.reason.as_str(), status.message.as_str()].join(" ");
            let message =
                format!("pod {name} ended as {}: {}; see `ctl describe pod {name}`", phase.as_str_name(), why.trim());
            Err(Failure::new(Exit::Own, message))
        }
    }
}

async fn wait_for(session: &Session, name: &str, is_it: impl Fn(&PodStatus) -> bool) -> Result<PodStatus, Failure> {
    let key = (session.namespace.clone(), name.to_owned());
    let mut progress = Progress::counting(name);
    let deadline = Instant::now() + ATTACHED_MAX;
    let found = until(session, Kind::Pod, &session.namespace, deadline, |world| {
        let Some(object) = world.get(&key) else { return Some(None) };
        let Some(object::Kind::Pod(Pod { status: Some(status), .. })) = &object.kind else { return None };
        if is_it(status) {
            return Some(Some(status.clone()));
        }
        progress.note(status.phase().as_str_name());
        let reason = condition::reason_of(object);
        if !reason.is_empty() {
            progress.say(&format!("pod/{name}: {reason}"));
        }
        None
    });
    let found = found.await?.flatten();
    found.ok_or_else(|| Failure::new(Exit::Own, format!("pod {name} was deleted while it ran")))
}

/// Prints everything the container writes, until it ends; its two streams stay apart.
async fn follow_logs(session: &Session, name: &str) -> Result<(), Failure> {
    let options = LogOptions { follow: true, ..Default::default() };
    let doing = format!("follow the logs of pod {name}");
    let mut chunks = session.client.logs(&session.namespace, name, options).await?;
    while let Some(chunk) = chunks.message().await.map_err(|status| Client::stream_error(&doing, &status))? {
        if chunk.stderr {
            // What goes to a closed stderr is lost, as it is for a local command.
            drop(std::io::stderr().lock().write_all(&chunk.data));
        } else {
            output::print_bytes(&chunk.data)?;
        }
    }
    Ok(())
}

fn pod(args: &Args, namespace: &str, name: &str) -> Object {
    let env = args.env.iter().filter_map(|pair| pair.split_once('='));
    let container = Container {
        name: "main".into(),
        image: args.image.clone(),
        args: args.command.clone(),
        env: env.map(|(name, value)| EnvVar { name: name.into(), value: value.into(), from: None }).collect(),
        tty: args.tty,
        stdin: args.stdin,
        ..Default::default()
    };
    let template =
        PodTemplate { containers: vec![container], restart_policy: RestartPolicy::Never.into(), ..Default::default() };
    let meta = Meta { namespace: namespace.into(), name: name.into(), ..Default::default() };
    let spec = PodSpec { template: Some(template), ..Default::default() };
    Object { meta: Some(meta), kind: Some(object::Kind::Pod(Pod { spec: Some(spec), status: None })) }
}

/// The last part of the image's repository and a few random letters. What cannot stand in a name becomes `-`.
fn made_up_name(image: &str) -> String {
    let repository = ImageName::parse(image).map(|name| name.repository().to_owned()).unwrap_or_default();
    let stem: String = repository
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .chars()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    // The hasher's keys are random in every process.
    let mut random = RandomState::new().build_hasher().finish();
    let letters: String = (0..SUFFIX_CHARS)
        .map(|_| {
            let letter = char::from(b'a' + u8::try_from(random % 26).unwrap_or(0));
            random /= 26;
            letter
        })
        .collect();
    format!("{}-{letters}", stem.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::ContainerStatus;

    #[test]
    fn made_up_names_are_names_and_differ() {
        for image in ["nginx", "registry.example:5000/a/b_c.d:1", "x/y--z"] {
            let (one, two) = (made_up_name(image), made_up_name(image));
            strata_model::check_name("pod name", &one).unwrap();
            assert_ne!(one, two);
        }
    }

    #[test]
    fn the_exit_code_is_the_containers_unless_it_never_ran() {
        let status = |phase: Phase, exit_code: i32, reason: &str| PodStatus {
            phase: phase.into(),
            reason: reason.into(),
            containers: vec![ContainerStatus { exit_code, ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(exit_code("p", &status(Phase::Exited, 0, "")).unwrap(), 0);
        assert_eq!(exit_code("p", &status(Phase::Failed, 3, "Error")).unwrap(), 3);
        assert_eq!(exit_code("p", &status(Phase::Failed, 137, "OOMKilled")).unwrap(), 137);
        let failure = exit_code("p", &status(Phase::Failed, 0, "ImageNotFound")).unwrap_err();
        assert!(failure.message.contains("ImageNotFound"), "{failure}");
        assert!(exit_code("p", &status(Phase::Lost, 0, "NodeLost")).is_err());
    }
}
