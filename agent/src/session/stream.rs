//! One session, from Hello to its end.

use super::{
    BATCH_ITEMS_MAX, BATCH_WAIT, Backoff, End, FRAMES_WAITING_MAX, MESSAGE_BYTES_MAX, OUTBOX_MAX, SEND_TIMEOUT,
    Session, SessionError, WELCOME_TIMEOUT,
    frames::{self, Down},
    network::{self, Wanted},
    resolve::Resolver,
    services,
};
use crate::{
    timeline,
    world::{Inventory, World},
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use strata_proto::{
    API_LEVEL,
    dispatch::{
        AgentMessage, ControllerMessage, Heartbeat, Hello, Services, StatusBatch, Welcome, agent_message::Message,
        controller_message::Message as Down_, dispatch_client::DispatchClient,
    },
    types,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Heartbeat where the controller does not say.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// Lease where the controller does not say.
const LEASE_DEFAULT: Duration = Duration::from_secs(15);

/// A session that is up.
struct Open {
    up: mpsc::Sender<AgentMessage>,
    told: Inventory,
    sequence: u64,
    heartbeat: Duration,
    lease: Duration,
    heartbeat_at: Instant,
    /// Since when something sent waits for any word of the controller.
    unanswered_since: Option<Instant>,
}

impl<W: World> Session<W> {
    pub(super) async fn run(&self, channel: Channel, backoff: &mut Backoff, had_one: &mut bool) -> End {
        match self.open(channel).await {
            Ok((open, down, welcome)) => {
                backoff.reset();
                *had_one = true;
                tracing::info!(controller = self.node.controller, subnet = welcome.subnet, "session is up");
                self.serve(open, down, welcome).await
            }
            Err(end) => end,
        }
    }

    async fn open(&self, channel: Channel) -> Result<(Open, Streaming<ControllerMessage>, Welcome), End> {
        let broken = |what: &str| End::Broken(what.to_owned());
        let (up, outbox) = mpsc::channel(OUTBOX_MAX);
        let told = self.world.inventory().await;
        let hello = self.hello(&told).await;
        up.send(AgentMessage { message: Some(Message::Hello(hello)) }).await.map_err(|_| broken("the stream ended"))?;
        let mut client = DispatchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = timeout(WELCOME_TIMEOUT, client.session(ReceiverStream::new(outbox))).await;
        let mut down = opened
            .map_err(|_| broken("the controller does not open the stream"))?
            .map_err(|s| End::Broken(format!("{}: {}", s.code(), s.message())))?
            .into_inner();
        let first = timeout(WELCOME_TIMEOUT, down.message()).await.map_err(|_| broken("no welcome in time"))?;
        let welcome =
            match first.map_err(|s| End::Broken(format!("{}: {}", s.code(), s.message())))?.and_then(|m| m.message) {
                Some(Down_::Welcome(welcome)) => welcome,
                Some(Down_::Refused(refused)) => return Err(refusal(refused.reason, refused.message)),
                _ => return Err(End::Broken("a welcome is expected first".into())),
            };
        if welcome.api_level == 0 || welcome.api_level > API_LEVEL {
            let message =
                format!("the controller chose API level {}, this agent speaks 1 to {API_LEVEL}", welcome.api_level);
            return Err(refusal("ApiLevel".into(), message));
        }
        let heartbeat = millis_or(welcome.heartbeat_ms, HEARTBEAT_DEFAULT);
        let open = Open {
            up,
            told,
            sequence: 0,
            heartbeat,
            lease: millis_or(welcome.lease_ms, LEASE_DEFAULT),
            heartbeat_at: Instant::now() + heartbeat,
            unanswered_since: None,
        };
        Ok((open, down, welcome))
    }

    async fn serve(&self, mut open: Open, mut down: Streaming<ControllerMessage>, welcome: Welcome) -> End {
        let board = self.pods.board();
        let mut board_changes = board.changes();
        let mut inventory_changes = self.world.inventory_changes();
        let mut resolver = Resolver::new(self.world.clone(), open.up.clone());
        let (frames, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let (services, services_waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let wanted = watch::Sender::new(Wanted { subnet: welcome.subnet.parse().ok(), peers: Vec::new() });
        // The tasks end with the session.
        let mut tasks = JoinSet::new();
        // The routes of the session before stay until this one has named the peers.
        tasks.spawn(network::keep(self.world.clone(), wanted.subscribe()));
        tasks.spawn(frames::take_in(self.ledger.clone(), self.pods.clone(), waiting, open.up.clone()));
        if let Some(ranges) = services::ranges(&welcome) {
            tasks.spawn(services::take_in(self.world.clone(), ranges, services_waiting, open.up.clone()));
        }
        if frames.send(Down::Welcome(welcome)).await.is_err() {
            return End::Broken("the task of frames ended".into());
        }
        self.up.send_replace(true);
        let mut batch_at = board.has_untold().then(Instant::now);
        loop {
            let next = batch_at.unwrap_or(open.heartbeat_at).min(open.heartbeat_at);
            let done = tokio::select! {
                message = down.message() => match message {
                    Ok(Some(message)) => {
                        open.unanswered_since = None;
                        self.take(message, &frames, &services, &wanted, &mut resolver)
                    }
                    Ok(None) => Err(End::Broken("the controller closed the stream".into())),
                    Err(s) => Err(End::Broken(format!("{}: {}", s.code(), s.message()))),
                },
                _ = board_changes.changed(), if batch_at.is_none() => {
                    batch_at = Some(Instant::now() + BATCH_WAIT);
                    Ok(())
                }
                _ = inventory_changes.changed(), if batch_at.is_none() => {
                    batch_at = Some(Instant::now() + BATCH_WAIT);
                    Ok(())
                }
                () = sleep_until(next) => {
                    let due = batch_at.is_some_and(|at| at <= Instant::now());
                    if due {
                        batch_at = None;
                    }
                    let sent = self.send_up(&mut open, due).await;
                    if due && board.has_untold() {
                        batch_at = Some(Instant::now());
                    }
                    sent
                }
            };
            if let Err(end) = done {
                return end;
            }
            if open.unanswered_since.is_some_and(|since| since.elapsed() > open.lease) {
                return End::Broken(format!("no word of the controller for {} ms", open.lease.as_millis()));
            }
        }
    }

    /// Takes one message in. The queues behind are bounded; a full one ends the session, and the next begins with a full frame.
    fn take(
        &self,
        message: ControllerMessage,
        frames: &mpsc::Sender<Down>,
        services: &mpsc::Sender<Services>,
        wanted: &watch::Sender<Wanted>,
        resolver: &mut Resolver<W>,
    ) -> Result<(), End> {
        match message.message {
            Some(Down_::Assignments(frame)) => {
                timeline::assigned(&frame);
                frames
                    .try_send(Down::Frame(frame))
                    .map_err(|_| End::Broken("frames come faster than the disk takes them".into()))?;
            }
            Some(Down_::Services(frame)) => services
                .try_send(frame)
                .map_err(|_| End::Broken("services change faster than this node takes them in".into()))?,
            Some(Down_::Peers(list)) => wanted.send_modify(|w| w.peers = network::peers(list.peers)),
            Some(Down_::Resolve(request)) => resolver.ask(request),
            Some(Down_::Refused(refused)) => return Err(refusal(refused.reason, refused.message)),
            Some(Down_::Heartbeat(_) | Down_::Welcome(_)) | None => {}
        }
        Ok(())
    }

    /// Sends what is untold, or a heartbeat when one is due.
    async fn send_up(&self, open: &mut Open, batch: bool) -> Result<(), End> {
        let heartbeat_due = open.heartbeat_at <= Instant::now();
        let mut message = None;
        if batch {
            let (pods, events) = self.pods.board().take(BATCH_ITEMS_MAX);
            let mut status = StatusBatch { pods, events, ..Default::default() };
            let now = self.world.inventory().await;
            difference(&open.told, &now, &mut status);
            open.told = now;
            status.sequence = open.sequence + 1;
            let empty = StatusBatch { sequence: status.sequence, ..Default::default() };
            message = (status != empty).then_some(Message::Status(status));
        }
        if message.is_none() && heartbeat_due {
            message = Some(Message::Heartbeat(Heartbeat { sequence: open.sequence + 1 }));
        }
        let Some(message) = message else { return Ok(()) };
        open.sequence += 1;
        // A status counts as a heartbeat.
        open.heartbeat_at = Instant::now() + open.heartbeat;
        open.unanswered_since.get_or_insert_with(Instant::now);
        let sent = open.up.send_timeout(AgentMessage { message: Some(message) }, SEND_TIMEOUT).await;
        sent.map_err(|_| End::Broken("the controller does not read".into()))
    }

    async fn hello(&self, inventory: &Inventory) -> Hello {
        let node = &self.node;
        let address = match node.advertise {
            Some(address) => address.to_string(),
            None => address_towards(&node.controller).await.map(|a| a.to_string()).unwrap_or_default(),
        };
        let status = types::NodeStatus {
            address: address.clone(),
            port: u32::from(node.port),
            capacity: Some(node.capacity),
            layers: inventory.layers.iter().map(types::LayerInfo::from).collect(),
            images: inventory.images.clone(),
            layer_mount: self.world.layer_mount(),
            boot_id: node.boot_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            architecture: architecture().into(),
            cgroup: node.cgroup.clone(),
            ..Default::default()
        };
        Hello {
            api_level: API_LEVEL,
            boot_id: node.boot_id.clone(),
            address,
            port: u32::from(node.port),
            capacity: Some(node.capacity),
            labels: node.labels.clone().into_iter().collect(),
            node: Some(status),
            pods: self.pods.board().all(),
            reset_layers: true,
        }
    }
}

fn refusal(reason: String, message: String) -> End {
    // Another agent of this name, or a level that only an upgrade changes: going on would only quarrel.
    End::Never(SessionError::Refused { reason, message })
}

fn millis_or(ms: u32, default: Duration) -> Duration {
    if ms == 0 { default } else { Duration::from_millis(u64::from(ms)) }
}

fn difference(told: &Inventory, now: &Inventory, status: &mut StatusBatch) {
    if told == now {
        return;
    }
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (told.layers.iter().map(|l| &l.diff_id).collect(), now.layers.iter().map(|l| &l.diff_id).collect());
    status.layers_added = now.layers.iter().filter(|l| !old.contains(&l.diff_id)).map(types::LayerInfo::from).collect();
    status.layers_removed = old.difference(&new).map(ToString::to_string).collect();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (told.images.iter().collect(), now.images.iter().collect());
    status.images_added = new.difference(&old).map(|s| (*s).clone()).collect();
    status.images_removed = old.difference(&new).map(|s| (*s).clone()).collect();
}

/// The address of this machine that packets to the controller come from. Nothing is sent.
pub(super) async fn address_towards(controller: &str) -> std::io::Result<IpAddr> {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(controller).await?;
    Ok(socket.local_addr()?.ip())
}

/// As OCI images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
