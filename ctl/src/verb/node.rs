mod drain;

use crate::{amount::parse_duration, edit, exit::Failure, output, output::Format, session::Session, verb::get};
use std::time::Duration;
use strata_proto::types::Kind;

/// Look at the cluster's nodes, close them for new pods, and empty them, take out those that are gone.
///
/// Examples:
///   ctl node ls
///   ctl node drain node-2 --timeout 5m
///   ctl node uncordon node-2
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// List the nodes: what they have, what is taken, how many layers they keep
    #[command(alias = "list")]
    Ls {
        /// How to show them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Forget nodes whose agents have been stopped for good; their pods are started elsewhere
    #[command(alias = "remove")]
    Rm {
        /// Which
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Close a node for new pods; what runs there stays
    Cordon {
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Open a node for new pods again, and end its draining
    Uncordon {
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Close a node and move its pods to others
    ///
    /// Each pod is replaced elsewhere first and removed when its replacement serves. Nothing is stopped that cannot be replaced:
    /// what keeps a pod here is said, and the exit code is 1 if no pod can move, 6 if the time is over. Pods of workloads with one pod
    /// per node stay.
    Drain {
        #[arg(value_name = "NODE")]
        node: String,
        /// How long to wait until the node is empty
        #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
        timeout: Duration,
        /// Remove also the pods of workloads with one pod per node
        #[arg(long)]
        global: bool,
        /// Remove also pods that nothing will replace: those applied by hand
        #[arg(long)]
        force: bool,
    },
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Ls { output } => {
            let targets = vec!["node".into()];
            let args = get::Args { targets, output: *output, selector: vec![], watch: false, all: false };
            get::perform(&args, session).await
        }
        What::Rm { nodes } => {
            for node in nodes {
                session.client.delete(Kind::Node, "", node, 0, false).await?;
                output::print(&format!("node/{node} removed\n"))?;
            }
            Ok(())
        }
        What::Cordon { node } => {
            edit::node(session, node, |spec| spec.unschedulable = true).await?;
            output::print(&format!("node/{node} cordoned\n"))
        }
        What::Uncordon { node } => {
            let open = |spec: &mut strata_proto::types::NodeSpec| (spec.unschedulable, spec.draining) = (false, false);
            edit::node(session, node, open).await?;
            output::print(&format!("node/{node} uncordoned\n"))
        }
        What::Drain { node, timeout, global, force } => {
            drain::perform(session, node, drain::Also { global: *global, bare: *force }, *timeout).await
        }
    }
}
