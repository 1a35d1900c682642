//! strata-agent: the program.
//!
//! The order in `main` matters: settings, the lock on the state directory and the zygote's mount namespace come before the
//! first thread; everything else runs on the async runtime.

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode, sync::Arc};
use strata_agent::{
    capacity,
    config::Config,
    identity, join,
    join::JoinArguments,
    ledger::Ledger,
    lock, metrics, node, node_api, pods,
    pods::Pods,
    session,
    session::Session,
    world::{Network, ServiceRanges},
};
use strata_image::{ImageStore, Registry, RegistrySettings};
use strata_layer::LayerStore;
use strata_peer::Peers;
use strata_runtime::{Zygote, cgroup::CgroupRoot, zygote};
use strata_transport::Identity;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Exit code for settings that cannot be used, as for usage errors.
const BAD_SETTINGS: u8 = 2;

/// The agent of a Strata node: makes the node match what the controller assigned to it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The settings, TOML; every key is documented in deploy/config/agent.toml
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/strata/agent.toml")]
    config: PathBuf,
    /// Only check the settings
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make this machine a node of a cluster: gets its identity with a token and writes its settings
    Join(JoinArguments),
}

fn main() -> ExitCode {
    strata_transport::install_crypto();
    let arguments = Arguments::parse();
    if let Some(Task::Join(join)) = &arguments.task {
        return match join::perform(join, &arguments.config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("strata-agent: {e:#}");
                ExitCode::FAILURE
            }
        };
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("strata-agent: {e}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    if arguments.check_config {
        println!("{}: the settings can be used", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("strata-agent: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    // Held until the process ends.
    let _lock = lock::take(&config.state_dir)?;
    let identity = identity::load(&config.state_dir, &config.node)?;
    let token = config.join_token()?;
    if identity.is_none() && token.is_none() {
        return Err(identity::no_token(&config.state_dir).into());
    }
    let shim = config.shim_path().context("finding this program's directory, where strata-shim should be")?;
    let zygote = zygote::enter(&config.state_dir, &shim).context("entering the node's mount namespace")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        // Not before: the zygote is entered without threads, and the exporter has some. What goes wrong until here is in the errors.
        let _telemetry = strata_telemetry::init("strata-agent", &config.node)?;
        if let Some(why) = zygote.unpinned() {
            tracing::warn!(
                "the mount namespace of layers is not pinned, it would be lost if agent and zygote died at once: {why}"
            );
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = run(config, zygote, identity, token) => ended,
            _ = terminate.recv() => stopped("SIGTERM"),
            _ = interrupt.recv() => stopped("SIGINT"),
        }
    })
}

fn stopped(by: &str) -> anyhow::Result<()> {
    tracing::info!("{by}: the agent stops, the containers run on");
    Ok(())
}

async fn run(config: Config, zygote: Zygote, identity: Option<Identity>, token: Option<String>) -> anyhow::Result<()> {
    let identity = match (identity, token) {
        (Some(identity), _) => identity,
        (None, token) => {
            identity::join(&config.controller, &config.node, &token.unwrap_or_default(), &config.state_dir).await?
        }
    };
    let boot_id =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?.trim().to_owned();
    let ledger = Arc::new(Ledger::open(&config.state_dir)?);
    let cgroups = CgroupRoot::detect(&config.cgroup_parent)?;
    let cgroup = cgroups.mode().to_string();
    let world = Arc::new(make_node(&config, zygote, cgroups, &identity).await?);
    if let Ok(subnet) = ledger.session()?.subnet.parse()
        && let Err(trouble) = world.set_subnet(subnet).await
    {
        tracing::warn!(reason = trouble.reason, "pods wait for their network until the controller is there: {trouble}");
    }
    let facts = ledger.session()?;
    if let Some(ranges) = ServiceRanges::parse(&facts.cluster_cidr, &facts.service_cidr, &facts.cluster_domain) {
        world.restore_services(ranges).await;
    }
    let tending = world.clone();
    let services = async move { tokio::join!(tending.tend_services(), tending.serve_dns()) };
    // The port is taken before anybody is told of it.
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    let port = listener.local_addr()?.port();
    let pods = Arc::new(
        Pods::start(pods::Setup {
            world: world.clone(),
            ledger: ledger.clone(),
            node: config.node.clone(),
            boot_id: boot_id.clone(),
            sandboxes_max: capacity::pods(&config.capacity),
        })
        .await?,
    );
    // After the pods: what builds of an earlier agent ran has been swept with their cgroups.
    let builds = make_builds(&config, &world, &identity).await?;
    let up = watch::Sender::new(false);
    let metrics = metrics::serve(config.metrics_listen, pods.clone(), world.clone(), up.subscribe());
    let api = node_api::serve(listener, &identity, world.clone(), pods.clone(), builds, std::future::pending());
    let session = Session {
        node: session::Node {
            controller: config.controller.clone(),
            name: config.node.clone(),
            advertise: session::configured_address(config.advertise, config.listen.ip()),
            port,
            boot_id,
            labels: config.labels.clone(),
            capacity: capacity::resources(&config.capacity),
            cgroup,
        },
        identity: identity.clone(),
        pods: pods.clone(),
        world,
        ledger,
        up,
    };
    tracing::info!(node = config.node, port, "the agent is ready");
    tokio::select! {
        ended = session.keep() => ended.context("the session with the controller"),
        ended = api => ended.context("the node API"),
        _ = services => Ok(()),
        ended = metrics => ended.context("the metrics"),
    }
}

async fn make_node(
    config: &Config,
    zygote: Zygote,
    cgroups: CgroupRoot,
    identity: &Identity,
) -> anyhow::Result<node::Node> {
    let state_dir = config.state_dir.clone();
    let images = tokio::task::spawn_blocking(move || {
        let layers = LayerStore::open(&state_dir)?;
        anyhow::Ok(ImageStore::open(&state_dir, layers)?)
    })
    .await??;
    let registry = Registry::new(&RegistrySettings {
        insecure_registries: config.insecure_registries.clone(),
        auth_file: config.registry_auth_file.clone(),
        ..Default::default()
    })?;
    let locate = node::ViaController::new(&config.controller, identity)?;
    let peers = Peers::new(&config.node, identity.clone(), Arc::new(locate));
    Ok(node::Node::new(node::Setup {
        state_dir: config.state_dir.clone(),
        images,
        registry,
        peers: Arc::new(peers),
        zygote,
        cgroups,
        bridge: config.bridge.clone(),
        overlay: config.overlay.into(),
        id_start: config.id_start,
        name: config.node.clone(),
        address: session::own_address(config.advertise, config.listen.ip(), &config.controller).await,
    }))
}

async fn make_builds(config: &Config, node: &Arc<node::Node>, identity: &Identity) -> anyhow::Result<node_api::Builds> {
    let controller = Arc::new(node::ViaController::new(&config.controller, identity)?);
    let world = Arc::new(node::BuildWorld::new(node.clone(), controller));
    let (state_dir, images) = (config.state_dir.clone(), node.image_store().clone());
    let builder = tokio::task::spawn_blocking(move || {
        let builder = strata_build::Builder::open(&state_dir, images, world)?;
        builder.sweep()?;
        anyhow::Ok(builder)
    });
    let builder = builder.await?.context("opening the builds")?;
    Ok(node_api::Builds::new(Arc::new(builder), config.build_context_bytes_max))
}
