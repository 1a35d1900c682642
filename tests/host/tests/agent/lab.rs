//! A controller played by the test, an agent as a process of its own, an image made of busybox.

use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command},
    time::Duration,
};
use strata_proto::{
    cluster::{
        JoinRequest, JoinResponse,
        join_server::{Join, JoinServer},
    },
    dispatch::{
        AgentMessage, Assignment, Assignments, ControllerMessage, Hello, PodReport, Template, Welcome,
        agent_message::Message as Up,
        controller_message::Message as Down,
        dispatch_server::{Dispatch, DispatchServer},
    },
    node::{
        ExecInput, ExecStart, ImportChunk, ImportStart, LogsRequest, exec_input, exec_output, import_chunk,
        node_client::NodeClient,
    },
    types,
};
use strata_transport::{Identity, Role, client, node_server_name, pki::Ca, server, token::JoinToken};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const NODE: &str = "n1";

pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

/// The programs under test: as built, or where the environment says.
fn program(variable: &str, built: PathBuf) -> PathBuf {
    let path = std::env::var_os(variable).map_or(built, PathBuf::from);
    assert!(path.exists(), "{} is not there: run deploy/build", path.display());
    path
}

pub fn shim() -> PathBuf {
    program("STRATA_SHIM", target().join(format!("{}-unknown-linux-gnu/static/strata-shim", std::env::consts::ARCH)))
}

pub struct Controller {
    ca: Ca,
    pub address: String,
    token: JoinToken,
    sessions: mpsc::Receiver<Session>,
}

pub struct Session {
    pub hello: Hello,
    up: Streaming<AgentMessage>,
    down: mpsc::Sender<Result<ControllerMessage, Status>>,
    /// The last report of each pod that was not gone.
    last: std::collections::BTreeMap<String, PodReport>,
}

struct Service(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Dispatch for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;
    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let Some(Up::Hello(hello)) = up.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("Hello comes first"));
        };
        let (down, stream) = mpsc::channel(16);
        self.0.send(Session { hello, up, down, last: Default::default() }).await.ok();
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

struct Joining(Ca);

#[tonic::async_trait]
impl Join for Joining {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let certificate_pem = self.0.sign_csr(Role::Node, &request.node, &request.csr_pem).unwrap();
        Ok(Response::new(JoinResponse { certificate_pem, ca_pem: self.0.cert_pem().into() }))
    }
}

impl Controller {
    pub async fn start(dir: &Path) -> Self {
        strata_transport::install_crypto();
        let ca = Ca::create().unwrap();
        std::fs::create_dir_all(dir).unwrap();
        ca.save(dir).unwrap();
        let identity = ca.issue(Role::Controller, "controller").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming =
            server::serve(listener, &identity, server::ClientCerts::Optional, std::future::pending()).unwrap();
        let (sender, sessions) = mpsc::channel(4);
        let joining = Joining(Ca::load(dir).unwrap());
        tokio::spawn(async move {
            let services = Server::builder()
                .add_service(DispatchServer::new(Service(sender)))
                .add_service(JoinServer::new(joining));
            services.serve_with_incoming(incoming).await.unwrap();
        });
        let token = JoinToken::create(&ca.fingerprint().unwrap()).unwrap();
        Self { ca, address, token, sessions }
    }

    pub async fn accept(&mut self) -> Session {
        let session = timeout(PATIENCE, self.sessions.recv()).await.expect("the agent connects").unwrap();
        let welcome = Welcome {
            api_level: 1,
            cluster_id: "c".into(),
            subnet: "10.97.16.0/20".into(),
            cluster_cidr: "10.64.0.0/10".into(),
            heartbeat_ms: 1000,
            lease_ms: 120_000,
            node_index: 1,
            ..Welcome::default()
        };
        session.send(Down::Welcome(welcome)).await;
        session
    }

    /// The agent's node API, as the controller calls it.
    pub async fn node_api(&self, hello: &Hello) -> NodeClient<Channel> {
        self.node_api_as(hello, &self.ca.issue(Role::Controller, "controller").unwrap()).await
    }

    pub async fn node_api_as(&self, hello: &Hello, identity: &Identity) -> NodeClient<Channel> {
        let address = format!("{}:{}", hello.address, hello.port);
        NodeClient::new(client::channel(&address, identity, &node_server_name(NODE)).await.unwrap())
    }

    pub fn admin(&self) -> Identity {
        self.ca.issue(Role::Admin, "somebody").unwrap()
    }
}

impl Session {
    pub async fn send(&self, message: Down) {
        self.down.send(Ok(ControllerMessage { message: Some(message) })).await.unwrap();
    }

    pub async fn frame(&self, frame: Assignments) {
        self.send(Down::Assignments(frame)).await;
    }

    /// The first report of the pod that `look` agrees with.
    pub async fn report(&mut self, uid: &str, what: &str, mut look: impl FnMut(&PodReport) -> bool) -> PodReport {
        let mut last = None;
        let found = timeout(PATIENCE, async {
            while let Some(message) = self.up.next().await {
                if let Some(Up::Status(batch)) = message.unwrap().message {
                    self.last.extend(batch.pods.iter().map(|p| (p.uid.clone(), p.clone())));
                    for report in batch.pods.into_iter().filter(|p| p.uid == uid) {
                        if look(&report) {
                            return report;
                        }
                        last = Some(report);
                    }
                }
            }
            panic!("the stream ended before {uid}: {what}");
        });
        match found.await {
            Ok(report) => report,
            Err(_) => panic!("{uid}: not seen in time: {what}; last: {last:#?}"),
        }
    }

    /// Waits until the last report of each of these pods is one that `look` agrees with; gives them in the order of `uids`.
    pub async fn report_all(&mut self, uids: &[&str], what: &str, look: impl Fn(&PodReport) -> bool) -> Vec<PodReport> {
        let mut found: Vec<Option<PodReport>> = vec![None; uids.len()];
        let told = timeout(PATIENCE, async {
            loop {
                for (place, uid) in found.iter_mut().zip(uids).filter(|(place, _)| place.is_none()) {
                    *place = self.last.get(*uid).filter(|p| look(p)).cloned();
                }
                if found.iter().all(Option::is_some) {
                    return;
                }
                let Some(message) = self.up.next().await else { panic!("the stream ended: {what}") };
                if let Some(Up::Status(batch)) = message.unwrap().message {
                    self.last.extend(batch.pods.into_iter().map(|p| (p.uid.clone(), p)));
                }
            }
        });
        assert!(told.await.is_ok(), "not seen in time: {what}; {found:#?}");
        found.into_iter().flatten().collect()
    }

    /// Waits until each of these runs.
    pub async fn all_running(&mut self, uids: &[&str]) -> Vec<types::PodStatus> {
        let ready = |p: &PodReport| p.status.as_ref().is_some_and(|s| s.ready);
        self.report_all(uids, "Running", ready).await.into_iter().filter_map(|p| p.status).collect()
    }

    /// Waits until the agent has said of each of these that nothing of it is left.
    pub async fn all_gone(&mut self, uids: &[&str]) {
        let mut left: std::collections::BTreeSet<&str> = uids.iter().copied().collect();
        let told = timeout(PATIENCE, async {
            while let Some(message) = self.up.next().await {
                if let Some(Up::Status(batch)) = message.unwrap().message {
                    self.last.extend(batch.pods.iter().map(|p| (p.uid.clone(), p.clone())));
                    for report in batch.pods.iter().filter(|p| p.gone) {
                        left.remove(report.uid.as_str());
                    }
                }
                if left.is_empty() {
                    return;
                }
            }
            panic!("the stream ended before {left:?} were gone");
        });
        assert!(told.await.is_ok(), "not gone in time");
    }

    pub async fn running(&mut self, uid: &str) -> types::PodStatus {
        self.report(uid, "Running", |p| p.status.as_ref().is_some_and(|s| s.ready)).await.status.unwrap()
    }
}

/// The agent's process. A test that fails ends it; its pods' processes are then the operator's to end, as after any kill -9.
pub struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already unless the test failed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Agent {
    pub fn start(dir: &Path, controller: &Controller, cgroup_parent: &str) -> Self {
        Self::start_with(dir, controller, cgroup_parent, "")
    }

    /// With further lines in its settings.
    pub fn start_with(dir: &Path, controller: &Controller, cgroup_parent: &str, settings: &str) -> Self {
        let config = dir.join("agent.toml");
        let text = format!(
            "node = {NODE:?}\ncontroller = {:?}\ntoken = {:?}\nstate_dir = {:?}\nlisten = \"127.0.0.1:0\"\nshim = {:?}\ncgroup_parent = {cgroup_parent:?}\nid_start = 268435456\n{settings}\n",
            controller.address,
            controller.token.to_string(),
            dir.join("state"),
            shim(),
        );
        std::fs::write(&config, text).unwrap();
        let agent = program("STRATA_AGENT", target().join("release/strata-agent"));
        let log = std::fs::File::options().create(true).append(true).open(dir.join("agent.log")).unwrap();
        Self(
            Command::new(agent)
                .arg("--config")
                .arg(&config)
                .env("STRATA_LOG", "debug,h2=info,hyper=info,rustls=info")
                .stdout(std::process::Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// As an operator stops it.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// The tar of a layer: busybox and what it needs.
pub fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read("/usr/bin/busybox").expect("busybox (Debian: busybox-static) is needed");
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"] {
        layer.append_data(&mut entry(tar::EntryType::Directory, 0o755, 0), dir, &[][..]).unwrap();
    }
    layer.append_data(&mut entry(tar::EntryType::Regular, 0o755, busybox.len()), "bin/busybox", &busybox[..]).unwrap();
    for applet in ["sh", "cat", "sleep", "echo", "id", "tail", "head", "dd", "stty"] {
        layer.append_link(&mut entry(tar::EntryType::Symlink, 0o777, 0), format!("bin/{applet}"), "busybox").unwrap();
    }
    layer.into_inner().unwrap()
}

fn entry(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

/// A docker archive with one layer, [`busybox_layer`].
pub fn archive(name: &str) -> Vec<u8> {
    let layer = busybox_layer();
    use sha2::Digest as _;
    let diff_id = format!("sha256:{}", hex::encode(sha2::Sha256::digest(&layer)));
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    })
    .to_string();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in
        [("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", &layer)]
    {
        archive.append_data(&mut entry(tar::EntryType::Regular, 0o644, content.len()), path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

pub async fn import(api: &mut NodeClient<Channel>, archive: Vec<u8>) -> types::ImageSpec {
    let start = ImportChunk { message: Some(import_chunk::Message::Start(ImportStart { name: String::new() })) };
    let archive = Bytes::from(archive);
    let size = archive.len();
    let data = (0..size).step_by(256 << 10).map(move |at| ImportChunk {
        message: Some(import_chunk::Message::Data(archive.slice(at..size.min(at + (256 << 10))))),
    });
    let end = ImportChunk { message: Some(import_chunk::Message::End(true)) };
    let chunks = tokio_stream::iter(std::iter::once(start).chain(data).chain([end]));
    let answer = api.import_image(chunks).await.unwrap().into_inner();
    answer.images.into_iter().next().unwrap().image.unwrap()
}

pub async fn logs(api: &mut NodeClient<Channel>, uid: &str) -> String {
    let request = LogsRequest { pod_uid: uid.into(), container: "main".into(), ..Default::default() };
    let mut stream = api.logs(request).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        text.extend(chunk.data);
    }
    String::from_utf8(text).unwrap()
}

/// Standard output, standard error, exit code.
pub async fn exec(
    api: &mut NodeClient<Channel>,
    uid: &str,
    command: &[&str],
    input: Option<&str>,
    tty: bool,
) -> (String, String, i32) {
    let start = ExecStart {
        pod_uid: uid.into(),
        container: "main".into(),
        command: command.iter().map(ToString::to_string).collect(),
        stdin: input.is_some(),
        tty,
        attach: false,
        size: None,
    };
    let mut messages = vec![exec_input::Message::Start(start)];
    if let Some(text) = input {
        messages.push(exec_input::Message::Stdin(text.into()));
        messages.push(exec_input::Message::StdinClosed(true));
    }
    let messages = tokio_stream::iter(messages.into_iter().map(|m| ExecInput { message: Some(m) }));
    let mut stream = api.exec(messages).await.unwrap().into_inner();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(message) = timeout(PATIENCE, stream.message()).await.expect("the exec ends").unwrap() {
        match message.message.unwrap() {
            exec_output::Message::Stdout(bytes) => out.extend(bytes),
            exec_output::Message::Stderr(bytes) => err.extend(bytes),
            exec_output::Message::Exit(exit) => {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), exit.code);
            }
        }
    }
    panic!("no exit code");
}

pub fn template(revision: &str, image: &types::ImageSpec, command: &[&str], memory_bytes: u64) -> Template {
    let name = "docker.io/strata/test:1";
    let container = types::Container {
        name: "main".into(),
        image: name.into(),
        image_digest: image.digest.clone(),
        command: command.iter().map(ToString::to_string).collect(),
        limits: Some(types::Resources { memory_bytes, ..Default::default() }),
        ..Default::default()
    };
    let pod = types::PodTemplate { containers: vec![container], termination_grace_s: Some(1), ..Default::default() };
    let pinned = types::PinnedImage {
        name: name.into(),
        digest: image.digest.clone(),
        from_registry: false,
        layers: image.layers.clone(),
    };
    Template {
        revision: revision.into(),
        spec: Some(types::TemplateSpec { pod: Some(pod), images: vec![pinned], ..Default::default() }),
        ..Default::default()
    }
}

pub fn assignment(uid: &str, revision: &str, index: u32) -> Assignment {
    Assignment {
        uid: uid.into(),
        namespace: "default".into(),
        name: format!("web-{uid}"),
        template_revision: revision.into(),
        address_index: index,
        ..Default::default()
    }
}
