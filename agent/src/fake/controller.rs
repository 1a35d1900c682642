//! The controller's end of sessions, played by the test.

use std::{pin::Pin, time::Duration};
use strata_proto::cluster::{
    JoinRequest, JoinResponse,
    join_server::{Join, JoinServer},
};
use strata_proto::dispatch::{
    AgentMessage, Assignments, ControllerMessage, Hello, PodReport, Welcome,
    agent_message::Message as Up,
    controller_message::Message as Down,
    dispatch_server::{Dispatch, DispatchServer},
};
use strata_proto::types::pod_status::Phase;
use strata_transport::{Identity, Role, pki::Ca, server};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Controller {
    pub ca: Ca,
    pub address: String,
    connections: mpsc::Receiver<Connection>,
    task: tokio::task::JoinHandle<()>,
}

/// One session of an agent.
pub(crate) struct Connection {
    pub hello: Hello,
    up: Streaming<AgentMessage>,
    down: mpsc::Sender<Result<ControllerMessage, Status>>,
}

struct Service(mpsc::Sender<Connection>);

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
        drop(self.0.send(Connection { hello, up, down }).await);
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

struct Joining {
    ca: Ca,
    secret: String,
}

#[tonic::async_trait]
impl Join for Joining {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        if request.secret != self.secret {
            return Err(Status::unauthenticated("the token is not known or has expired"));
        }
        let certificate_pem = self.ca.sign_csr(Role::Node, &request.node, &request.csr_pem).unwrap();
        Ok(Response::new(JoinResponse { certificate_pem, ca_pem: self.ca.cert_pem().into() }))
    }
}

impl Controller {
    pub async fn start() -> Self {
        Self::start_with(Ca::create().unwrap(), "secret").await
    }

    pub async fn start_with(ca: Ca, secret: &str) -> Self {
        strata_transport::install_crypto();
        let identity = ca.issue(Role::Controller, "controller").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming =
            server::serve(listener, &identity, server::ClientCerts::Optional, std::future::pending()).unwrap();
        let (sender, connections) = mpsc::channel(16);
        let dir = tempfile::tempdir().unwrap();
        ca.save(dir.path()).unwrap();
        let joining = Joining { ca: Ca::load(dir.path()).unwrap(), secret: secret.into() };
        let task = tokio::spawn(async move {
            let server = Server::builder()
                .add_service(DispatchServer::new(Service(sender)))
                .add_service(JoinServer::new(joining));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { ca, address, connections, task }
    }

    pub fn node(&self, name: &str) -> Identity {
        self.ca.issue(Role::Node, name).unwrap()
    }

    /// The next session, with Welcome already sent.
    pub async fn accept(&mut self) -> Connection {
        let connection = timeout(PATIENCE, self.connections.recv()).await.expect("an agent connects").unwrap();
        connection
            .send(Down::Welcome(Welcome {
                api_level: 1,
                cluster_id: "c".into(),
                subnet: "10.64.16.0/20".into(),
                cluster_cidr: "10.64.0.0/10".into(),
                heartbeat_ms: 200,
                lease_ms: 60_000,
                node_index: 1,
                ..Welcome::default()
            }))
            .await;
        connection
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub async fn send(&self, message: Down) {
        self.down.send(Ok(ControllerMessage { message: Some(message) })).await.unwrap();
    }

    pub async fn frame(&self, frame: Assignments) {
        self.send(Down::Assignments(frame)).await;
    }

    /// The first message that `look` makes something of.
    pub async fn until<T>(&mut self, what: &str, mut look: impl FnMut(Up) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            while let Some(message) = self.up.next().await {
                if let Some(found) = message.unwrap().message.and_then(&mut look) {
                    return found;
                }
            }
            panic!("the stream ended before {what}");
        });
        found.await.unwrap_or_else(|_| panic!("not seen in time: {what}"))
    }

    pub async fn acked(&mut self, generation: u64) {
        self.until(&format!("ack of {generation}"), |m| {
            matches!(m, Up::Ack(a) if a.generation == generation).then_some(())
        })
        .await;
    }

    /// The first report of the pod that `look` agrees with.
    pub async fn report(&mut self, uid: &str, what: &str, mut look: impl FnMut(&PodReport) -> bool) -> PodReport {
        self.until(&format!("{uid}: {what}"), |m| match m {
            Up::Status(batch) => batch.pods.into_iter().find(|p| p.uid == uid && look(p)),
            _ => None,
        })
        .await
    }

    pub async fn running(&mut self, uid: &str) -> PodReport {
        self.report(uid, "Running", |p| p.status.as_ref().is_some_and(|s| s.phase() == Phase::Running && s.ready)).await
    }
}
