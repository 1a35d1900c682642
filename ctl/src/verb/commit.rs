use crate::{exit::Failure, kind::stored_name, output, pods, progress::Progress, session::Session};
use strata_client::{CommitOptions, ContainerRef};
use strata_proto::types::Kind;

/// Make an image of what a container has changed: one more layer on its image.
///
/// The container is frozen while its files are read, unless --no-pause.
///
/// Examples:
///   ctl commit web-3 shop/web:patched
///   ctl commit workload/db db:seeded -m "with test data" -c 'CMD ["db", "--ready"]' -c 'ENV MODE=test'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The new image's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The container, if the pod has several
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// A line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long = "change", value_name = "LINE")]
    pub changes: Vec<String>,
    /// What for
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
    /// Who
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub author: String,
    /// Let the container run on meanwhile
    #[arg(long)]
    pub no_pause: bool,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let name = stored_name(Kind::Image, &args.name)?;
    let pod = pods::resolve(session, &args.pod).await?;
    let of = ContainerRef { namespace: session.namespace.clone(), pod, container: args.container.clone() };
    let options = CommitOptions {
        name,
        changes: args.changes.clone(),
        author: args.author.clone(),
        message: args.message.clone(),
        pause: !args.no_pause,
    };
    let progress = Progress::bytes_so_far("commit");
    let image = session.client.commit(&of, options).await?;
    drop(progress);
    output::print(&(output::name_line(&image) + "\n"))
}
