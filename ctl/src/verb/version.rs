use crate::{
    exit::Failure,
    output,
    session::{Global, Session},
};
use serde_json::json;

/// Print the versions of ctl and of the cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only ctl's own; needs no cluster
    #[arg(long)]
    pub client: bool,
    /// As JSON
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: VersionFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum VersionFormat {
    #[default]
    Text,
    Json,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub async fn perform(args: &Args, global: &Global) -> Result<(), Failure> {
    let api_level = strata_proto::API_LEVEL;
    // What ctl knows by itself is printed even if the cluster does not answer.
    if args.output == VersionFormat::Text {
        output::print(&format!("ctl {VERSION} (API level {api_level})\n"))?;
    }
    let mut document = json!({ "client": { "version": VERSION, "apiLevel": api_level } });
    let asked = if args.client {
        Ok(())
    } else {
        ask(global).await.and_then(|info| {
            document["server"] = json!({ "version": info.version, "apiLevel": info.api_level, "clusterId": info.cluster_id,
                "revision": info.revision.to_string() });
            if args.output == VersionFormat::Json {
                return Ok(());
            }
            output::print(&format!(
                "controller {} (API level {}), cluster {}, revision {}\n",
                info.version, info.api_level, info.cluster_id, info.revision
            ))
        })
    };
    if args.output == VersionFormat::Json {
        output::print(&format!("{document:#}\n"))?;
    }
    asked
}

async fn ask(global: &Global) -> Result<strata_client::InfoResponse, Failure> {
    Ok(Session::open(global).await?.client.info().await?)
}
