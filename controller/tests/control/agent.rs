//! An agent that only pretends to run pods: what it is assigned runs at once, what is removed is gone at once.

use crate::cluster::Cluster;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use strata_proto::{
    dispatch::{
        Ack, AgentMessage, Assignments, Heartbeat, Hello, PodReport, ResolveReply, ServicesAck, StatusBatch,
        agent_message, controller_message, dispatch_client::DispatchClient,
    },
    types::{self, pod_spec::Desired, pod_status::Phase},
};
use strata_transport::Role;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;

#[derive(Default)]
struct Node {
    /// Uid to address index.
    pods: BTreeMap<String, String>,
    generation: u64,
    templates: BTreeSet<String>,
    templates_received: usize,
    /// Names and data of secrets that came with templates.
    secrets: Vec<(String, std::collections::HashMap<String, Vec<u8>>)>,
    asked: usize,
    started: usize,
    peers: Vec<String>,
    refused: Option<String>,
}

pub struct Agent {
    name: String,
    labels: Vec<(String, String)>,
    node: Arc<Mutex<Node>>,
    /// Grows with everything that happens; `true` once the session has ended.
    changed: Arc<watch::Sender<bool>>,
    session: Mutex<Option<(JoinHandle<()>, mpsc::Sender<AgentMessage>)>>,
}

fn message(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

fn report(uid: &str, phase: Phase) -> PodReport {
    let state = types::container_status::State::Running.into();
    let container = types::ContainerStatus { name: "main".into(), state, ready: true, ..Default::default() };
    let status = types::PodStatus {
        phase: phase.into(),
        ready: phase == Phase::Running,
        containers: vec![container],
        ..Default::default()
    };
    PodReport { uid: uid.into(), status: Some(status), gone: false }
}

impl Agent {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            labels: vec![],
            node: Arc::default(),
            changed: Arc::new(watch::Sender::new(false)),
            session: Mutex::new(None),
        }
    }

    pub fn label(&mut self, key: &str, value: &str) {
        self.labels.push((key.into(), value.into()));
    }

    /// Opens a session and waits for the welcome.
    pub async fn connect(&self, cluster: &Cluster) {
        let mut client = DispatchClient::new(cluster.channel(Role::Node, &self.name).await);
        let (out, outgoing) = mpsc::channel(64);
        let pods = self.node.lock().unwrap().pods.keys().map(|uid| report(uid, Phase::Running)).collect();
        let hello = Hello {
            api_level: strata_proto::API_LEVEL,
            boot_id: "boot".into(),
            address: "192.0.2.1".into(),
            port: 7700,
            capacity: Some(types::Resources { cpu_millis: 4_000, memory_bytes: 8 << 30, pids: 0 }),
            labels: self.labels.iter().cloned().collect(),
            node: Some(types::NodeStatus { architecture: "amd64".into(), ..Default::default() }),
            pods,
            reset_layers: true,
        };
        out.send(message(agent_message::Message::Hello(hello))).await.unwrap();
        let mut inbound = client.session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let first = inbound.message().await.unwrap().unwrap().message.unwrap();
        let controller_message::Message::Welcome(welcome) = first else { panic!("{first:?}") };
        let (node, changed, sender) = (self.node.clone(), self.changed.clone(), out.clone());
        changed.send_replace(false);
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms)));
            let mut sequence = 0;
            loop {
                let answers = tokio::select! {
                    _ = beat.tick() => {
                        sequence += 1;
                        vec![agent_message::Message::Heartbeat(Heartbeat { sequence })]
                    }
                    next = inbound.message() => match next {
                        Ok(Some(next)) => node.lock().unwrap().take(next.message.unwrap()),
                        _ => break,
                    },
                };
                changed.send_modify(|_| ());
                for answer in answers {
                    if out.send(message(answer)).await.is_err() {
                        break;
                    }
                }
            }
            changed.send_replace(true);
        });
        *self.session.lock().unwrap() = Some((task, sender));
    }

    /// Ends the session without a word, as when the machine loses its power.
    pub async fn kill(&self) {
        let (task, _) = self.session.lock().unwrap().take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    async fn send(&self, batch: StatusBatch) {
        let sender = self.session.lock().unwrap().as_ref().unwrap().1.clone();
        sender.send(message(agent_message::Message::Status(batch))).await.unwrap();
    }

    pub async fn report(&self, uid: &str, phase: Phase) {
        self.send(StatusBatch { pods: vec![report(uid, phase)], ..Default::default() }).await;
    }

    pub async fn report_layer(&self, diff_id: &str) {
        let layer = types::LayerInfo { diff_id: diff_id.into(), size_bytes: 1 };
        self.send(StatusBatch { layers_added: vec![layer], ..Default::default() }).await;
    }

    async fn wait(&self, is_so: impl Fn(&Node, bool) -> bool) {
        let mut changed = self.changed.subscribe();
        let seen = changed.wait_for(|ended| is_so(&self.node.lock().unwrap(), *ended));
        assert!(tokio::time::timeout(Duration::from_secs(30), seen).await.is_ok(), "{} waited in vain", self.name);
    }

    pub async fn wait_for_pods(&self, count: usize) {
        self.wait(|node, _| node.pods.len() == count).await;
    }

    pub async fn wait_for_end(&self) {
        self.wait(|_, ended| ended).await;
    }

    pub fn pods(&self) -> Vec<String> {
        self.node.lock().unwrap().pods.keys().cloned().collect()
    }
    pub fn templates_received(&self) -> usize {
        self.node.lock().unwrap().templates_received
    }
    pub fn secrets(&self) -> Vec<(String, std::collections::HashMap<String, Vec<u8>>)> {
        self.node.lock().unwrap().secrets.clone()
    }
    pub fn asked(&self) -> usize {
        self.node.lock().unwrap().asked
    }
    pub fn started(&self) -> usize {
        self.node.lock().unwrap().started
    }
    pub fn peers(&self) -> Vec<String> {
        self.node.lock().unwrap().peers.clone()
    }
    pub fn refused(&self) -> Option<String> {
        self.node.lock().unwrap().refused.clone()
    }
}

impl Node {
    fn take(&mut self, message: controller_message::Message) -> Vec<agent_message::Message> {
        match message {
            controller_message::Message::Assignments(frame) => self.assign(frame),
            controller_message::Message::Resolve(question) => {
                self.asked += 1;
                vec![agent_message::Message::Resolved(resolve(question.id, &question.image))]
            }
            controller_message::Message::Peers(peers) => {
                self.peers = peers.peers.into_iter().map(|p| p.node).collect();
                vec![]
            }
            controller_message::Message::Refused(refused) => {
                self.refused = Some(refused.reason);
                vec![]
            }
            controller_message::Message::Services(frame) => {
                vec![agent_message::Message::Services(ServicesAck { sequence: frame.sequence })]
            }
            controller_message::Message::Heartbeat(_) | controller_message::Message::Welcome(_) => vec![],
        }
    }

    fn assign(&mut self, frame: Assignments) -> Vec<agent_message::Message> {
        assert!(frame.full || frame.base == self.generation, "a delta applies to what was sent before");
        self.generation = frame.generation;
        self.templates_received += frame.templates.len();
        let secrets = frame.templates.iter().flat_map(|t| &t.secrets);
        self.secrets.extend(secrets.map(|s| (s.name.clone(), s.data.clone())));
        let materials = frame.templates.iter().flat_map(|t| t.spec.iter().flat_map(|s| &s.materials));
        assert!(materials.into_iter().all(|m| m.sealed.is_empty()), "what the cluster's key has sealed stays there");
        self.templates.extend(frame.templates.iter().map(|t| t.revision.clone()));
        let mut reports = vec![];
        let gone = |uid: &String| PodReport { uid: uid.clone(), status: None, gone: true };
        if frame.full {
            let kept: BTreeSet<&String> = frame.pods.iter().map(|p| &p.uid).collect();
            reports.extend(self.pods.keys().filter(|uid| !kept.contains(uid)).map(gone));
            self.pods.retain(|uid, _| kept.contains(uid));
        }
        for uid in &frame.removed {
            self.pods.remove(uid);
        }
        for pod in &frame.pods {
            assert!(self.templates.contains(&pod.template_revision), "a template comes before its pods");
            if pod.desired() == Desired::Removed {
                self.pods.remove(&pod.uid);
                reports.push(gone(&pod.uid));
            } else if self.pods.insert(pod.uid.clone(), pod.address_index.to_string()).is_none() {
                self.started += 1;
                reports.push(report(&pod.uid, Phase::Preparing));
                reports.push(report(&pod.uid, Phase::Running));
            }
        }
        let addresses: BTreeSet<&String> = self.pods.values().collect();
        assert_eq!(addresses.len(), self.pods.len(), "no address twice");
        let mut answers = vec![agent_message::Message::Ack(Ack { generation: frame.generation })];
        for pod in reports {
            answers.push(agent_message::Message::Status(StatusBatch { pods: vec![pod], ..Default::default() }));
        }
        answers
    }
}

fn resolve(id: u64, image: &str) -> ResolveReply {
    if image.contains("missing") {
        let (reason, message) = ("ImageNotFound".into(), format!("{image}: no such image"));
        return ResolveReply { id, image: None, reason, message };
    }
    let digest = strata_model::Digest::of(image.as_bytes()).to_string();
    let image = Some(types::ImageSpec { digest, from_registry: true, ..Default::default() });
    ResolveReply { id, image, ..Default::default() }
}
