//! What a verb works with: the connection and the namespace in force.

use crate::{exit::Failure, kind};
use strata_client::{Client, Config};
use strata_proto::types::Kind;

/// The namespace that is used when neither the command line nor the context names one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Options that every verb takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Global {
    /// The context to use instead of the configuration's current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// The namespace
    #[arg(short, long, global = true, value_name = "NAMESPACE", help_heading = "Global options")]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace", help_heading = "Global options")]
    pub all_namespaces: bool,
}

/// An open connection.
pub struct Session {
    pub client: Client,
    /// The namespace in force.
    pub namespace: String,
    /// Whether lists span all namespaces.
    pub all_namespaces: bool,
}

impl Session {
    /// Reads the configuration and connects.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        let config = Config::load(&Config::path()?)?;
        let context = config.context(global.context.as_deref())?;
        let of_context = Some(context.namespace.as_str()).filter(|name| !name.is_empty());
        let namespace = global.namespace.as_deref().or(of_context).unwrap_or(DEFAULT_NAMESPACE).to_owned();
        let client = Client::connect(context).await?;
        Ok(Self { client, namespace, all_namespaces: global.all_namespaces })
    }

    /// The namespace of one object of a kind, "" for kinds that have none.
    pub fn namespace_of(&self, kind: Kind) -> &str {
        kind::namespace_for(kind, &self.namespace)
    }

    /// The namespace to list a kind in, "" for all.
    pub fn namespace_to_list(&self, kind: Kind) -> &str {
        if self.all_namespaces { "" } else { self.namespace_of(kind) }
    }
}
