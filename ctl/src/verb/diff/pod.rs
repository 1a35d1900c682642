//! `ctl diff POD`: the files that a container has changed of its image.

use crate::{
    exit::{Exit, Failure},
    output, pods,
    session::Session,
};
use strata_client::ContainerRef;
use strata_proto::node::diff_entry::Change;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A line each, as docker has it
    #[default]
    Lines,
    /// An array
    Json,
}

/// Lists what the container has changed.
pub async fn perform(pod: &str, container: &str, format: Format, session: &Session) -> Result<(), Failure> {
    let pod = pods::resolve(session, pod).await?;
    let of = ContainerRef { namespace: session.namespace.clone(), pod, container: container.into() };
    let entries = session.client.diff(&of).await?;
    let text = match format {
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
