//! The program itself: its spans reach a collector, a dead collector costs nothing, and `/metrics` says what happened.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use strata_client::{ApplyMode, Client, Config};
use strata_proto::{
    cluster::{ApplyRequest, objects_client::ObjectsClient},
    types::{self, Object, object},
};
use strata_transport::{CONTROLLER_SERVER_NAME, client};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(30);

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        for span in spans {
            self.0.send(span).unwrap();
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (send, spans) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Collector(send));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (endpoint, spans)
}

/// The controller as a process of its own; it goes with the value.
struct Controller {
    child: Child,
    metrics: String,
    dir: tempfile::TempDir,
}

impl Controller {
    async fn start(endpoint: &str) -> Self {
        strata_transport::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let settings = dir.path().join("controller.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n",
            dir.path().join("state")
        );
        std::fs::write(&settings, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_strata-controller"))
            .arg("--config")
            .arg(&settings)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env("STRATA_LOG", "info")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut metrics = String::new();
        tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("serving metrics address=") {
                    rest.split_whitespace().next().unwrap().clone_into(&mut metrics);
                } else if line.contains("serving address=") {
                    return;
                }
            }
            panic!("the controller ended");
        })
        .await
        .unwrap();
        tokio::spawn(async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} });
        Self { child, metrics, dir }
    }

    fn context(&self) -> strata_client::Context {
        let config = Config::load(&self.dir.path().join("state/admin.toml")).unwrap();
        config.contexts[&config.current].clone()
    }

    async fn scrape(&self) -> String {
        let mut tcp = TcpStream::connect(&self.metrics).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    }
}

fn namespace(name: &str) -> Object {
    let meta = types::Meta { name: name.into(), ..Default::default() };
    Object { meta: Some(meta), kind: Some(object::Kind::Namespace(types::Namespace::default())) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn an_applys_spans_arrive_in_the_trace_of_its_caller() {
    let (endpoint, mut spans) = collector().await;
    let controller = Controller::start(&endpoint).await;
    let context = controller.context();
    let channel = client::channel(&context.endpoints[0], &context.identity(), CONTROLLER_SERVER_NAME).await.unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut request = Request::new(ApplyRequest { object: Some(namespace("traced")), ..Default::default() });
    request.metadata_mut().insert("traceparent", format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap());
    let object = ObjectsClient::new(channel).apply(request).await.unwrap().into_inner().object.unwrap();
    let (mut apply, mut commit): (Option<Span>, Option<Span>) = (None, None);
    tokio::time::timeout(PATIENCE, async {
        while apply.is_none() || commit.is_none() {
            let span = spans.recv().await.unwrap();
            match span.name.as_str() {
                "apply" => apply = Some(span),
                "commit" => commit = Some(span),
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    let (apply, commit) = (apply.unwrap(), commit.unwrap());
    assert_eq!((hex(&apply.trace_id).as_str(), hex(&apply.parent_span_id).as_str()), (trace, "b7ad6b7169203331"));
    assert_eq!((hex(&commit.trace_id).as_str(), &commit.parent_span_id), (trace, &apply.span_id));
    let kept = object.meta.unwrap().trace_parent;
    assert_eq!(kept, format!("00-{trace}-{}-01", hex(&apply.span_id)), "what follows continues from the apply");
}

#[tokio::test]
async fn a_dead_collector_costs_nothing() {
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    works_without(port).await;
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_nothing() {
    // Connections are accepted by the kernel, and nobody ever reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    works_without(silent.local_addr().unwrap().port()).await;
}

async fn works_without(port: u16) {
    let mut controller = Controller::start(&format!("http://127.0.0.1:{port}")).await;
    let client = Client::connect(&controller.context()).await.unwrap();
    let begun = Instant::now();
    for i in 0..200 {
        client.apply(namespace(&format!("n{i}")), ApplyMode::Apply).await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "200 applies took {took:?}");
    let id = rustix_pid(&controller.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(PATIENCE, controller.child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}

fn rustix_pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn metrics_count_objects_and_commits() {
    let (endpoint, _spans) = collector().await;
    let controller = Controller::start(&endpoint).await;
    let client = Client::connect(&controller.context()).await.unwrap();
    for i in 0..5 {
        client.apply(namespace(&format!("n{i}")), ApplyMode::Apply).await.unwrap();
    }
    let text = controller.scrape().await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    assert!(text.contains("strata_controller_objects{kind=\"Namespace\"} 6\n"), "{text}");
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("strata_controller_store_commit_seconds_count") >= 5.0);
    assert!(value("strata_controller_store_revision") >= 6.0);
    assert_eq!(value("strata_controller_sessions"), 0.0);
    assert!(Path::new(controller.dir.path()).exists());
}
