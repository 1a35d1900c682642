mod local;
mod remote;

use crate::{exit::Failure, output, pods, session::Session};
use strata_client::ContainerRef;

/// Copy files between a container and this machine.
///
/// As docker has it: a directory is copied into a directory that is there, else it gets the name of the destination; SRC/. means what is in
/// a directory. Links are copied as links, and none leads out of the container. What is copied in belongs to root there, what is copied out to you, unless
/// --archive keeps the ids.
///
/// With - for the local side it is a tar: what is to be unpacked in a directory, or what the container has.
///
/// Examples:
///   ctl cp web-3:/etc/nginx/nginx.conf .
///   ctl cp site/. workload/web:/usr/share/html
///   tar c site | ctl cp - web-3:/srv
///   ctl cp web-3:/var/log - | tar t
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// POD:PATH, a local path, or -
    #[arg(value_name = "SRC")]
    pub source: String,
    /// A local path, POD:PATH, or -
    #[arg(value_name = "DST")]
    pub destination: String,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// Keep user and group ids
    #[arg(short, long)]
    pub archive: bool,
    /// Follow SRC itself, if it is a link
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub quiet: bool,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    Remote { pod: String, path: String },
    Local(String),
    Stream,
}

/// `POD:PATH` unless it looks like a path: it begins with `/` or `.`, or has a `/` before the first `:` that is no `workload/NAME`.
fn side(text: &str) -> Side {
    if text == "-" {
        return Side::Stream;
    }
    let local = text.starts_with(['/', '.']);
    match text.split_once(':').filter(|(pod, _)| !local && !pod.is_empty()) {
        Some((pod, path)) if pod.matches('/').count() <= 1 => {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            Side::Remote { pod: pod.to_owned(), path }
        }
        _ => Side::Local(text.to_owned()),
    }
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match (side(&args.source), side(&args.destination)) {
        (Side::Remote { pod, path }, to @ (Side::Local(_) | Side::Stream)) => {
            let from = container(args, session, &pod).await?;
            match to {
                Side::Local(to) => local::receive(args, session, &from, &path, &to).await,
                _ => local::stream(session, &from, &path).await,
            }
        }
        (from @ (Side::Local(_) | Side::Stream), Side::Remote { pod, path }) => {
            let to = container(args, session, &pod).await?;
            let entries = match from {
                Side::Local(from) => remote::send(args, session, &from, &to, &path).await?,
                _ => remote::unpack(session, &to, &path).await?,
            };
            if !args.quiet {
                output::talk(&format!("{entries} files and directories copied to {}:{path}", to.pod));
            }
            Ok(())
        }
        (Side::Remote { .. }, Side::Remote { .. }) => Err(Failure::usage(
            "between two containers: copy out with - and in with -, `ctl cp A:/x - | ctl cp - B:/y`",
        )),
        _ => Err(Failure::usage("one side must be POD:PATH (a local path with a colon begins with ./)")),
    }
}

async fn container(args: &Args, session: &Session, pod: &str) -> Result<ContainerRef, Failure> {
    let pod = pods::resolve(session, pod).await?;
    Ok(ContainerRef { namespace: session.namespace.clone(), pod, container: args.container.clone() })
}

/// The last name of a path: what a copy of it is called. "" for what has none: the copy is of what is in it.
fn last_name(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(name, "." | "..") { "" } else { name }
}

/// What the path is in.
fn parent(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rfind('/') {
        Some(0) => "/",
        Some(at) => &trimmed[..at],
        None => ".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let remote = |pod: &str, path: &str| Side::Remote { pod: pod.into(), path: path.into() };
        for (text, want) in [
            ("web-3:/etc", remote("web-3", "/etc")),
            ("web-3:etc", remote("web-3", "/etc")),
            ("web-3:", remote("web-3", "/")),
            ("workload/web:/x:y", remote("workload/web", "/x:y")),
            ("-", Side::Stream),
            ("file", Side::Local("file".into())),
            ("./a:b", Side::Local("./a:b".into())),
            ("/a:b", Side::Local("/a:b".into())),
            ("a/b/c:d", Side::Local("a/b/c:d".into())),
        ] {
            assert_eq!(side(text), want, "{text}");
        }
    }

    #[test]
    fn names_and_parents_of_paths() {
        for (path, name, above) in [
            ("/etc/passwd", "passwd", "/etc"),
            ("/etc/", "etc", "/"),
            ("a", "a", "."),
            ("a/.", "", "a"),
            ("/", "", "."),
        ] {
            assert_eq!((last_name(path), parent(path)), (name, above), "{path}");
        }
    }
}
