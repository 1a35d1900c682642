//! The command line as clap sees it: one variant per verb, its help is the doc comment of the verb's file.

use crate::{
    exit::Failure,
    session::{Global, Session},
    verb::{
        apply, attach, build, commit, completion, cp, delete, describe, diff, events, exec, get, image, kill, logs,
        node, port_forward, restart, rollout, run, scale, start, stop, system, token, top, version, wait,
    },
};
use clap::{Parser, Subcommand};

/// Runs containers on the nodes of a Strata cluster.
///
/// The cluster and who you are there come from STRATA_CONFIG, else ~/.config/strata/config.toml.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unreachable, 6 timed out, 7 not allowed.
/// `exec` and attached `run` exit with the command's own code, 128+N if signal N ended it, 125 if ctl itself failed.
#[derive(Debug, Parser)]
#[command(name = "ctl", version, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Apply(apply::Args),
    Get(get::Args),
    Describe(describe::Args),
    Delete(delete::Args),
    Diff(diff::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    PortForward(port_forward::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    Commit(commit::Args),
    Top(top::Args),
    Run(run::Args),
    Build(build::Args),
    Scale(scale::Args),
    Rollout(rollout::Args),
    Stop(stop::Args),
    Start(start::Args),
    Restart(restart::Args),
    Kill(kill::Args),
    Wait(wait::Args),
    Events(events::Args),
    #[command(alias = "nodes")]
    Node(node::Args),
    #[command(alias = "images")]
    Image(image::Args),
    #[command(alias = "tokens")]
    Token(token::Args),
    System(system::Args),
    Completion(completion::Args),
    Version(version::Args),
}

impl Cli {
    /// Whether the verb's exit code is a remote process's, so that ctl's own failures need a code of their own.
    pub fn passes_on_exit_codes(&self) -> bool {
        match &self.verb {
            Verb::Exec(_) | Verb::Attach(_) => true,
            Verb::Run(args) => !args.detach,
            _ => false,
        }
    }

    /// Does it; the number is the exit code.
    pub async fn perform(self) -> Result<u8, Failure> {
        let global = self.global;
        // These work without a cluster, or at least begin without one.
        match self.verb {
            Verb::Completion(args) => completion::perform(&args).map(|()| 0),
            Verb::Version(args) => version::perform(&args, &global).await.map(|()| 0),
            Verb::Apply(args) => apply::perform(&args, &global).await.map(|()| 0),
            Verb::Delete(args) => delete::perform(&args, &global).await.map(|()| 0),
            Verb::Diff(args) => diff::perform(&args, &global).await,
            verb => {
                verb.check()?;
                let session = Session::open(&global).await?;
                verb.perform(&session).await
            }
        }
    }
}

impl Verb {
    /// The verb as it is typed.
    pub fn word(&self) -> String {
        let debug = format!("{self:?}");
        debug.split(['(', ' ', '{']).next().unwrap_or_default().to_lowercase()
    }

    /// Finds what is wrong with the command line itself before anything is connected to.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Get(args) => args.check(),
            Self::Describe(args) => args.check(),
            Self::Wait(args) => args.check(),
            Self::Run(args) => args.check(),
            Self::Events(args) => args.check(),
            _ => Ok(()),
        }
    }

    async fn perform(self, session: &Session) -> Result<u8, Failure> {
        match self {
            Self::Get(args) => get::perform(&args, session).await,
            Self::Describe(args) => describe::perform(&args, session).await,
            Self::Logs(args) => logs::perform(&args, session).await,
            Self::Build(args) => build::perform(&args, session).await,
            Self::PortForward(args) => port_forward::perform(&args, session).await,
            Self::Scale(args) => scale::perform(&args, session).await,
            Self::Rollout(args) => rollout::perform(&args, session).await,
            Self::Cp(args) => cp::perform(&args, session).await,
            Self::Commit(args) => commit::perform(&args, session).await,
            Self::Top(args) => top::perform(&args, session).await,
            Self::Stop(args) => stop::perform(&args, session).await,
            Self::Start(args) => start::perform(&args, session).await,
            Self::Restart(args) => restart::perform(&args, session).await,
            Self::Kill(args) => kill::perform(&args, session).await,
            Self::Wait(args) => wait::perform(&args, session).await,
            Self::Events(args) => events::perform(&args, session).await,
            Self::Node(args) => node::perform(&args, session).await,
            Self::Image(args) => image::perform(&args, session).await,
            Self::Token(args) => token::perform(&args, session).await,
            Self::System(args) => system::perform(&args, session).await,
            Self::Attach(args) => return attach::perform(&args, session).await,
            Self::Exec(args) => return exec::perform(&args, session).await,
            Self::Run(args) => return run::perform(args, session).await,
            // Done before a session was opened.
            Self::Apply(_) | Self::Delete(_) | Self::Diff(_) | Self::Completion(_) | Self::Version(_) => Ok(()),
        }
        .map(|()| 0)
    }
}

#[cfg(test)]
mod tests;
