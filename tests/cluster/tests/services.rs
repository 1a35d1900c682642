//! Services: one name and address for the pods behind them, on every node.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use strata_testkit::{Cluster, Node, eventually};

/// A workload of the demo server, and a service of the same name at port 80.
fn manifest(name: &str, replicas: u32, service: &str) -> String {
    format!(
        "kind: Workload
meta: {{name: {name}}}
spec:
  replicas: {replicas}
  template:
    labels: {{app: {name}}}
    terminationGraceS: 1
    containers:
    - {{name: c, image: 'hello:1', ports: [{{name: http, containerPort: 8080}}]}}
---
kind: Service
meta: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPortName: http}}]
{service}"
    )
}

fn ready_endpoints(cluster: &Cluster, service: &str, count: usize) -> Result<Value> {
    eventually(&format!("{count} pods behind {service}"), 60, || {
        let service = cluster.ctl(&["get", "service", service, "-o", "json"])?.ok()?.json()?;
        let endpoints = service["status"]["endpoints"].as_array().context("endpoints")?;
        let ready = endpoints.iter().filter(|e| e["ready"] == true).count();
        ensure!(ready == count && endpoints.len() == count, "{endpoints:?}");
        Ok(service)
    })
}

fn curl(mut command: Command, url: &str) -> Result<String> {
    let output = command.args(["-sS", "--max-time", "5", url]).output()?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn from_node(node: &Node, url: &str) -> Result<String> {
    curl(node.command("curl"), url)
}

/// `curl` in a pod's network with its /etc/resolv.conf: the demo image has no libraries, so nothing in it resolves names.
fn from_pod(cluster: &Cluster, pod: &Value, url: &str) -> Result<String> {
    let (name, uid) = (pod["meta"]["name"].as_str().context("name")?, pod["meta"]["uid"].as_str().context("uid")?);
    let node = cluster.node(pod["status"]["node"].as_str().context("node")?)?;
    let resolv_conf = node.state.join("pods").join(uid).join("etc/resolv.conf");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", cluster.pid(name)?));
    command
        .args(["unshare", "-m", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec curl \"$@\""])
        .arg(resolv_conf);
    curl(command, url)
}

/// The pod that answered: `hello from NAME`.
fn server(page: &str) -> Result<String> {
    let rest = page.split("hello from ").nth(1).with_context(|| page.to_owned())?;
    Ok(rest.split('<').next().unwrap_or_default().to_owned())
}

fn names(pods: &[Value]) -> Vec<String> {
    pods.iter().filter_map(|p| p["meta"]["name"].as_str().map(str::to_owned)).collect()
}

fn rules(node: &Node) -> Result<String> {
    let output = node.command("nft").args(["list", "ruleset"]).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_name_and_every_pod_is_reached_from_everywhere() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&manifest("svc-web", 3, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let objects = cluster.running("svc-web", 3, 30)?;
    let pods = names(&objects);
    let service = ready_endpoints(&cluster, "svc-web", 3)?;
    let address = service["spec"]["address"].as_str().context("address")?.to_owned();
    ensure!(address.starts_with("10.128."), "{address}");

    for name in ["svc-web", "svc-web.default", "svc-web.default.svc", "svc-web.default.svc.cluster.local", &address] {
        let url = format!("http://{name}/");
        eventually(&format!("{name} answers"), 20, || {
            from_pod(&cluster, &objects[0], &url).and_then(|page| server(&page))
        })?;
    }
    // Also the pod itself, through the service.
    for pod in &pods {
        let script = format!(
            "for i in $(busybox seq 30); do busybox timeout 5 busybox wget -q -O - http://{address}/ || exit 1; done"
        );
        let pages = cluster.exec(pod, &["sh", "-c", &script])?;
        let servers: BTreeSet<&str> = pods.iter().filter(|p| pages.contains(p.as_str())).map(String::as_str).collect();
        ensure!(servers.len() == 3, "of 30 requests of {pod} all went to {servers:?}");
    }
    for node in cluster.nodes()? {
        server(&from_node(&node, &format!("http://{address}/"))?)?;
    }
    let missing =
        from_pod(&cluster, &objects[0], "http://nope.default.svc.cluster.local/").err().context("nope answers")?;
    ensure!(missing.to_string().contains("resolve host"), "{missing}");
    let resolv = cluster.exec(&pods[0], &["cat", "/etc/resolv.conf"])?;
    ensure!(resolv.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolv}");
    let hosts = cluster.exec(&pods[0], &["cat", "/etc/hosts", "/etc/hostname"])?;
    ensure!(hosts.contains(&format!("\t{}\n", pods[0])), "{hosts}");

    // Without pods: refused at once, and the address stays.
    cluster.ctl(&["scale", "svc-web", "--replicas", "0"])?.ok()?;
    ready_endpoints(&cluster, "svc-web", 0)?;
    let nodes = cluster.nodes()?;
    eventually("refused", 20, || {
        let begun = Instant::now();
        let error = from_node(&nodes[0], &format!("http://{address}/")).err().context("somebody answers")?;
        ensure!(error.to_string().contains("(7)") && begun.elapsed() < Duration::from_secs(4), "{error}");
        Ok(())
    })?;
    cluster.ctl(&["scale", "svc-web", "--replicas", "1"])?.ok()?;
    let again = ready_endpoints(&cluster, "svc-web", 1)?;
    ensure!(again["spec"]["address"] == address.as_str(), "{again}");

    // Gone with everything.
    cluster.ctl(&["delete", "service", "svc-web"])?.ok()?;
    for node in &nodes {
        eventually("no rule is left", 20, || {
            let rules = rules(node)?;
            ensure!(!rules.contains(&address), "{rules}");
            Ok(())
        })?;
    }
    cluster.delete(&["workload/svc-web"])
}

#[test]
fn published_ports_answer_on_every_node_and_pods_see_their_clients() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let service = |name: &str, published: u32, more: &str| {
        format!(
            "kind: Service\nmeta: {{name: {name}}}\nspec:\n  selector: {{app: svc-who}}\n  ports: [{{port: 80, targetPort: 8080, publishedPort: {published}}}]\n{more}"
        )
    };
    let text = [
        manifest("svc-who", 1, ""),
        service("svc-everywhere", 31_990, ""),
        service("svc-here", 31_991, "  localOnly: true\n"),
    ];
    cluster.apply(&text.join("---\n"), &["--wait", "--timeout", "60s"])?.ok()?;
    let pod = cluster.running("svc-who", 1, 30)?.remove(0);
    ready_endpoints(&cluster, "svc-here", 1)?;
    let home = pod["status"]["node"].as_str().context("node")?.to_owned();
    for node in cluster.nodes()? {
        let url = format!("http://{}:31990/client", node.address);
        let client = eventually(&format!("{url} answers"), 20, || curl(Command::new("curl"), &url))?;
        // On the pod's own node the client is seen as it is; elsewhere the answer has to come back through the node that was asked.
        ensure!((client == "10.63.0.1\n") == (node.name == home), "{}: {client}", node.name);
        // From the node itself, by its own address.
        from_node(&node, &url)?;
        let local = eventually("the local port is as it should be", 20, || {
            match curl(Command::new("curl"), &format!("http://{}:31991/client", node.address)) {
                Ok(client) => ensure!(node.name == home && client == "10.63.0.1\n", "{}: {client}", node.name),
                Err(error) => ensure!(node.name != home && error.to_string().contains("(7)"), "{error}"),
            }
            Ok(())
        });
        local?;
    }
    let refused = cluster.apply(&service("svc-third", 31_990, ""), &[])?;
    ensure!(refused.code != 0 && refused.stderr.contains("svc-everywhere"), "{refused:?}");
    cluster.delete(&["service/svc-who", "service/svc-everywhere", "service/svc-here", "workload/svc-who"])
}

#[test]
fn rules_come_back_and_an_agent_killed_on_the_way_finishes_the_work() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&manifest("svc-back", 2, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    cluster.running("svc-back", 2, 30)?;
    let service = ready_endpoints(&cluster, "svc-back", 2)?;
    let url = format!("http://{}/", service["spec"]["address"].as_str().context("address")?);
    let node = cluster.node("node-2")?;
    eventually("the service answers", 20, || from_node(&node, &url))?;
    ensure!(node.command("nft").args(["flush", "ruleset"]).status()?.success(), "flush");
    eventually("the rules are back", 20, || from_node(&node, &url))?;

    // While services come and go the agent dies.
    for n in 0..8 {
        let text = format!(
            "kind: Service\nmeta: {{name: svc-back-{n}}}\nspec:\n  selector: {{app: svc-back}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
        );
        cluster.apply(&text, &[])?.ok()?;
        if n == 4 {
            cluster.kill9(cluster.node("node-2")?.pid)?;
        }
    }
    from_node(&node, &url).context("what was there serves on without the agent")?;
    cluster.up()?;
    for n in 0..8 {
        let name = format!("svc-back-{n}");
        let service = cluster.ctl(&["get", "service", &name, "-o", "json"])?.ok()?.json()?;
        let url = format!("http://{}/", service["spec"]["address"].as_str().context("address")?);
        eventually(&format!("{name} answers"), 20, || from_node(&node, &url))?;
        cluster.ctl(&["delete", "service", &name])?.ok()?;
    }
    cluster.delete(&["service/svc-back", "workload/svc-back"])
}

#[test]
fn a_rolling_update_under_load_fails_no_request() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&manifest("svc-roll", 6, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = names(&cluster.running("svc-roll", 6, 30)?);
    let service = ready_endpoints(&cluster, "svc-roll", 6)?;
    let url = format!("http://{}/", service["spec"]["address"].as_str().context("address")?);
    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for node in cluster.nodes()? {
        eventually("the service answers", 20, || from_node(&node, &url))?;
        let (stop, url) = (stop.clone(), url.clone());
        loads.push(thread::spawn(move || -> Result<usize> {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                from_node(&node, &url).with_context(|| format!("request {done} from {}", node.name))?;
                done += 1;
            }
            Ok(done)
        }));
    }
    let changed =
        manifest("svc-roll", 6, "").replace("image: 'hello:1'", "image: 'hello:1', env: [{name: V, value: '2'}]");
    cluster.apply(&changed, &["--wait", "--timeout", "120s"])?.ok()?;
    let rolled = eventually("every pod is a new one", 120, || {
        let pods = cluster.running("svc-roll", 6, 5)?;
        let names = names(&pods);
        ensure!(names.iter().all(|name| !before.contains(name)), "{names:?}");
        Ok(())
    });
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let done = load.join().map_err(|_| anyhow::anyhow!("a load crashed"))??;
        ensure!(done > 10, "only {done} requests");
    }
    rolled?;
    cluster.delete(&["service/svc-roll", "workload/svc-roll"])
}

#[test]
fn a_headless_service_names_its_pods_and_a_port_is_forwarded() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&manifest("svc-heads", 2, "  headless: true\n"), &["--wait", "--timeout", "60s"])?.ok()?;
    let pods = cluster.running("svc-heads", 2, 30)?;
    let service = ready_endpoints(&cluster, "svc-heads", 2)?;
    ensure!(service["spec"]["address"] == "", "{service}");
    let names = names(&pods);
    for (name, pod) in names.iter().zip(&pods) {
        let url = format!("http://{name}.svc-heads:8080/");
        let page = eventually(&format!("{url} answers"), 20, || from_pod(&cluster, &pods[0], &url))?;
        ensure!(
            server(&page)? == *name && page.contains(pod["status"]["address"].as_str().context("address")?),
            "{page}"
        );
    }
    let mut forward = cluster.command(&["port-forward", "service/svc-heads", "18080:80"]);
    let mut forward = forward.stdout(std::process::Stdio::null()).spawn()?;
    let answer = eventually("the forwarded port answers", 20, || curl(Command::new("curl"), "http://127.0.0.1:18080/"));
    forward.kill()?;
    forward.wait()?;
    server(&answer?)?;
    cluster.delete(&["service/svc-heads", "workload/svc-heads"])
}
