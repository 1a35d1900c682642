use crate::{exit::Failure, output::Format, session::Session, verb::get};

/// Look at the cluster's nodes.
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
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let What::Ls { output } = &args.what;
    let args = get::Args { targets: vec!["node".into()], output: *output, selector: vec![], watch: false, all: false };
    get::perform(&args, session).await
}
