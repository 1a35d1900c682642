use crate::{
    exit::{Exit, Failure},
    output, pods,
    session::Session,
};
use strata_client::ContainerRef;
use strata_proto::node::diff_entry::Change;

/// List the files that a container has changed of its image.
///
/// A is added, C changed (its content, its attributes, or what is in a directory), D deleted.
///
/// Examples:
///   ctl diff web-3
///   ctl diff workload/web -c main -o json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A line each, as docker has it
    #[default]
    Lines,
    /// An array
    Json,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let pod = pods::resolve(session, &args.pod).await?;
    let of = ContainerRef { namespace: session.namespace.clone(), pod, container: args.container.clone() };
    let entries = session.client.diff(&of).await?;
    let text = match args.output {
        Format::Lines => entries.iter().map(|e| format!("{} {}\n", letter(e.change()), e.path)).collect(),
        Format::Json => {
            let entries =
                entries.iter().map(|e| serde_json::json!({"change": e.change().as_str_name(), "path": e.path}));
            let array = serde_json::Value::Array(entries.collect());
            let text = serde_json::to_string_pretty(&array);
            text.map_err(|e| Failure::new(Exit::Failed, format!("cannot write JSON: {e}")))? + "\n"
        }
    };
    output::print(&text)
}

fn letter(change: Change) -> char {
    match change {
        Change::Added => 'A',
        Change::Changed => 'C',
        Change::Deleted => 'D',
    }
}
