//! The command line of Strata.
//!
//! Flows in: words, manifests, the configuration of a context. Flows out: data on stdout, talk on stderr, and an exit code that scripts can rely on.
//! One file per verb (`verb/`), whose doc comment is its help. Pure parts (kinds, columns, conditions, amounts) know no cluster.
//!
//! Not here: the connection (strata-client), the meaning of manifests (strata-manifest), any decision the controller should make.

mod act;
mod amount;
mod cli;
mod columns;
mod condition;
mod context;
mod diff;
mod edit;
mod exit;
mod kind;
mod manifests;
mod observe;
mod output;
mod pods;
mod progress;
mod rollout;
mod session;
mod table;
mod terminal;
mod verb;

use clap::Parser as _;
use exit::{Exit, Failure};
use std::process::ExitCode;
use tracing::Instrument as _;

fn main() -> ExitCode {
    strata_client::install_crypto();
    let cli = cli::Cli::parse();
    let passes_on = cli.passes_on_exit_codes();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::failed(format!("cannot start: {error}")), passes_on),
    };
    let outcome = runtime.block_on(traced(cli));
    // A thread may still be blocked in a read of stdin; nobody waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, passes_on),
    }
}

/// Does it within a trace, if OTEL_* variables name a collector; what TRACEPARENT names is its parent.
async fn traced(cli: cli::Cli) -> Result<u8, Failure> {
    // A collector that cannot be set up must not keep anybody from working.
    let telemetry = strata_telemetry::init_traces("ctl").unwrap_or_else(|error| {
        output::talk(&format!("ctl: no trace is sent: {error}"));
        None
    });
    let Some(telemetry) = telemetry else { return cli.perform().await };
    let span = tracing::info_span!("ctl", otel.name = format!("ctl {}", cli.verb.word()));
    strata_telemetry::continue_trace(&span, &strata_telemetry::environment_trace_parent());
    let outcome = cli.perform().instrument(span).await;
    // On another thread: this one carries the connection to the collector. It takes a second at most.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.ok();
    outcome
}

fn report(failure: &Failure, passes_on_exit_codes: bool) -> ExitCode {
    if !failure.message.is_empty() {
        output::talk(&format!("ctl: {failure}"));
    }
    let exit = match failure.exit {
        Exit::Usage => Exit::Usage,
        _ if passes_on_exit_codes => Exit::Own,
        exit => exit,
    };
    ExitCode::from(exit as u8)
}
