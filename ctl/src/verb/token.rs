use crate::{
    amount::parse_duration,
    exit::Failure,
    output::{self, Format},
    session::Session,
    verb::get,
};
use std::time::Duration;
use strata_proto::types::Kind;

/// Make, list and revoke the tokens by which new nodes join.
///
/// Of a token's secret the cluster keeps only a hash: it is printed once, when it is made. Removing a token removes no node that has joined with it.
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
    /// List the tokens that are valid: id, until when, for how many more nodes
    #[command(alias = "list")]
    Ls {
        /// How to show them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Revoke tokens: no node joins with them any more
    #[command(alias = "remove")]
    Rm {
        /// The id as `ls` shows it, or the token itself
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
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
    match &args.what {
        What::Create { ttl, uses, output } => {
            let token = session.client.create_token(*ttl, *uses).await?;
            match output {
                TokenFormat::Text => output::print(&format!("{token}\n")),
                TokenFormat::Json => output::print(&format!("{}\n", serde_json::json!({ "token": token }))),
            }
        }
        What::Ls { output } => {
            let args = get::Args {
                targets: vec!["token".into()],
                output: *output,
                selector: vec![],
                watch: false,
                all: false,
            };
            get::perform(&args, session).await
        }
        What::Rm { ids } => {
            for id in ids {
                let id = id_of(id);
                session.client.delete(Kind::Token, "", id, 0, false).await?;
                output::print(&format!("token/{id} revoked\n"))?;
            }
            Ok(())
        }
    }
}

/// The id in `strata.<fingerprint>.<id>.<secret>`, or what was given.
fn id_of(text: &str) -> &str {
    match text.trim().split('.').collect::<Vec<_>>()[..] {
        ["strata", _, id, _] => id,
        _ => text,
    }
}
