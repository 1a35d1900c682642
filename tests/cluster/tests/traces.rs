//! One trace from `ctl apply` to the running containers, as a collector receives it.

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};
use strata_testkit::{Cluster, Run, eventually};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span, as far as it matters here.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    instance: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let attributes = of_process.resource.map(|r| r.attributes).unwrap_or_default();
            let attribute = |key: &str| {
                let found = attributes.iter().find(|a| a.key == key);
                match found.and_then(|a| a.value.clone()).and_then(|v| v.value) {
                    Some(any_value::Value::StringValue(text)) => text,
                    _ => String::new(),
                }
            };
            let (service, instance) = (attribute("service.name"), attribute("service.instance.id"));
            for span in of_process.scope_spans.into_iter().flat_map(|s| s.spans) {
                self.lock().push(Span {
                    service: service.clone(),
                    instance: instance.clone(),
                    name: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Ends controller and agents and starts them with these variables; the containers run on.
fn restart(cluster: &Cluster, variables: &[(&str, &str)]) -> Result<()> {
    let status = cluster.status()?;
    let mut pids = vec![status["controller"]["pid"].as_u64().context("pid")?];
    for node in status["nodes"].as_array().context("nodes")? {
        pids.push(node["pid"].as_u64().context("pid")?);
    }
    for pid in pids.into_iter().filter(|pid| *pid > 0) {
        cluster.kill9(u32::try_from(pid)?)?;
    }
    let mut up = Command::new(cluster.repo().join("deploy/quickstart"));
    up.args(["up", "--no-demo"]).envs(variables.iter().copied());
    Run::of(up, "")?.ok()?;
    Ok(())
}

/// Which span has to be a child of which: name, service, name of the parent.
const CHAIN: &[(&str, &str, &str)] = &[
    ("apply", "strata-controller", "ctl apply"),
    ("commit", "strata-controller", "apply"),
    ("plan", "strata-controller", "apply"),
    ("place", "strata-controller", "plan"),
    ("assign", "strata-controller", "place"),
    ("session", "strata-agent", "place"),
    ("images", "strata-agent", "place"),
    ("sandbox", "strata-agent", "place"),
    ("sandbox: network", "strata-agent", "sandbox"),
    ("container", "strata-agent", "place"),
    ("container: root", "strata-agent", "container"),
    ("container: launch by the shim", "strata-agent", "container"),
];

fn check(spans: &[Span]) -> Result<()> {
    let root = spans.iter().find(|s| s.name == "ctl apply").context("no span of ctl has come")?;
    ensure!(root.service == "ctl" && root.parent.is_empty(), "{root:?}");
    let mut by_name: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans.iter().filter(|s| s.trace == root.trace) {
        by_name.entry(&span.name).or_default().push(span);
    }
    for (name, service, parent) in CHAIN {
        let parents = by_name.get(parent).with_context(|| format!("no span {parent}: {by_name:?}"))?;
        let found = by_name.get(name).with_context(|| format!("no span {name}: {:?}", by_name.keys()))?;
        let good = |s: &&&Span| s.service == *service && parents.iter().any(|p| p.id == s.parent);
        ensure!(found.iter().any(|s| good(&s)), "no {name} of {service} is a child of {parent}: {found:?}");
        ensure!(*service != "strata-agent" || found.iter().all(|s| s.instance.starts_with("node-")), "{found:?}");
    }
    let starts = by_name["container"].len();
    ensure!(starts >= 3, "{starts} of 3 starts of containers are in the trace");
    Ok(())
}

#[test]
fn one_trace_reaches_from_the_command_to_the_running_containers() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let port = listener.local_addr()?.port();
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    runtime.spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let status = cluster.status()?;
    let host =
        status["controller"]["address"].as_str().and_then(|a| a.split(':').next()).context("address")?.to_owned();
    let endpoint = format!("http://{host}:{port}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "200")];
    let tested = (|| {
        restart(&cluster, &variables)?;
        let manifest = "kind: Workload\nmeta: {name: traced}\nspec:\n  replicas: 3\n  template:\n    terminationGraceS: 0\n    containers: [{name: c, image: 'hello:1'}]\n";
        let mut apply = cluster.command(&["apply", "-f", "-", "--wait", "--timeout", "60s"]);
        apply.envs(variables);
        Run::of(apply, manifest)?.ok()?;
        eventually("the whole trace has come", 60, || check(&collector.lock()))?;
        // Who is told not to, tells nothing.
        let before = collector.lock().iter().filter(|s| s.service == "ctl").count();
        let mut get = cluster.command(&["get", "pods"]);
        get.envs(variables).env("OTEL_SDK_DISABLED", "true");
        Run::of(get, "")?.ok()?;
        let mut get = cluster.command(&["get", "pods"]);
        get.envs(variables).env("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine");
        get.env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        Run::of(get, "")?.ok()?;
        eventually("the second call's span has come", 30, || {
            let spans = collector.lock();
            let mine = spans.iter().find(|s| s.service == "mine").context("not yet")?;
            ensure!(
                mine.name == "ctl get" && mine.parent == [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31],
                "{mine:?}"
            );
            Ok(())
        })?;
        ensure!(
            collector.lock().iter().filter(|s| s.service == "ctl").count() == before,
            "a disabled SDK has sent spans"
        );
        cluster.delete(&["workload/traced"])
    })();
    // The daemons of the tests that follow send no traces.
    restart(&cluster, &[])?;
    tested
}
