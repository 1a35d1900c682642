use crate::{amount::parse_duration, exit::Failure, output, session::Session};
use std::time::Duration;

/// Make tokens by which new nodes join.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Print a new join token; an agent takes it as `token` in its configuration
    Create {
        /// How long it is good
        #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
        ttl: Duration,
        /// For how many nodes; 0 for any number
        #[arg(long, default_value_t = 0, value_name = "N")]
        uses: u32,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: TokenFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TokenFormat {
    /// The token itself
    #[default]
    Text,
    /// {"token": …}
    Json,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let What::Create { ttl, uses, output } = &args.what;
    let token = session.client.create_token(*ttl, *uses).await?;
    match output {
        TokenFormat::Text => output::print(&format!("{token}\n")),
        TokenFormat::Json => output::print(&format!("{}\n", serde_json::json!({ "token": token }))),
    }
}
