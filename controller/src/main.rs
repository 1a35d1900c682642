//! `strata-controller --config FILE [--check-config]`, `strata-controller restore --config FILE BACKUP`.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use strata_controller::{config::Config, restore, serve};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Keeps the desired containers of a Strata cluster and schedules them on its nodes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings, TOML; every key is described in deploy/config/controller.toml.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STRATA_CONTROLLER_CONFIG",
        default_value = "/etc/strata/controller.toml"
    )]
    config: PathBuf,
    /// Only says whether the settings are valid.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Restores a backup (`ctl system backup`) into a state directory that has the cluster's keys (pki/, secret-key) and no store.
    ///
    /// The controller must not run. Afterwards start it as usual: the agents come back by themselves, and their containers run on.
    Restore {
        /// The file.
        #[arg(value_name = "BACKUP")]
        backup: PathBuf,
    },
}

fn main() -> ExitCode {
    strata_transport::install_crypto();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strata-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    if arguments.check_config {
        println!("{} is valid", arguments.config.display());
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    if let Some(Task::Restore { backup }) = &arguments.task {
        let restored = runtime.block_on(restore::restore(&config.state_dir, backup))?;
        println!(
            "restored {} objects of cluster {} as of revision {} into {}; start the controller now",
            restored.objects,
            restored.header.cluster_id,
            restored.header.revision,
            config.state_dir.display()
        );
        return Ok(());
    }
    runtime.block_on(async {
        // Its spans leave when everything else has ended.
        let _telemetry = strata_telemetry::init("strata-controller", "")?;
        let _lock = serve::lock_state(&config.state_dir)?;
        let state = serve::open(&config).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}: choose another address with `listen`", config.listen))?;
        let stop = CancellationToken::new();
        let signalled = stop.clone();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            info!("shutting down");
            signalled.cancel();
        });
        serve::serve(state, &config, listener, stop).await?;
        Ok(())
    })
}
