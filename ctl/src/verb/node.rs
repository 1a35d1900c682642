use crate::{
    exit::Failure,
    output::{self, Format},
    session::Session,
    verb::get,
};
use strata_proto::types::Kind;

/// Look at the cluster's nodes, and take out those that are gone.
#[derive(Debug, clap::Args)]
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
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Ls { output } => {
            let args =
                get::Args { targets: vec!["node".into()], output: *output, selector: vec![], watch: false, all: false };
            get::perform(&args, session).await
        }
        What::Rm { nodes } => {
            for node in nodes {
                session.client.delete(Kind::Node, "", node, 0, false).await?;
                output::print(&format!("node/{node} removed\n"))?;
            }
            Ok(())
        }
    }
}
