//! What the daemons tell Prometheus: checked by promtool, scraped by a real Prometheus with the configuration and the rules of `deploy/prometheus`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use strata_telemetry::metrics::{ALL, Type};
use strata_testkit::{Cluster, Run, eventually};

/// Metrics' URLs: of the controller, then of the nodes.
fn urls(cluster: &Cluster) -> Result<Vec<String>> {
    let status = cluster.status()?;
    let mut all = vec![status["controller"]["metrics"].as_str().context("metrics")?.to_owned()];
    for node in status["nodes"].as_array().context("nodes")? {
        all.push(node["metrics"].as_str().context("metrics")?.to_owned());
    }
    Ok(all)
}

fn fetch(url: &str, accept: &str) -> Result<String> {
    let mut command = Command::new("curl");
    command.args(["-sSf", "--max-time", "10", "-D", "-", "-H", &format!("Accept: {accept}"), url]);
    Ok(Run::of(command, "")?.ok()?.stdout)
}

/// The body of an answer that begins with its headers.
fn body(answer: &str) -> Result<&str> {
    Ok(answer.split_once("\r\n\r\n").context("headers")?.1)
}

fn deploy(cluster: &Cluster, path: &str) -> PathBuf {
    cluster.repo().join("deploy").join(path)
}

#[test]
fn promtool_finds_nothing_to_complain_about() -> Result<()> {
    let cluster = Cluster::here()?;
    let mut families = BTreeSet::new();
    for url in urls(&cluster)? {
        let answer = fetch(&url, "text/plain;version=0.0.4")?;
        ensure!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        let text = body(&answer)?;
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]);
        let run = Run::of(promtool, text)?.ok()?;
        ensure!(run.stdout.is_empty() && run.stderr.is_empty(), "{url}: {}{}", run.stdout, run.stderr);
        families.extend(text.lines().filter_map(|l| Some(l.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())));
        let answer = fetch(&url, "application/openmetrics-text; version=1.0.0")?;
        ensure!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        ensure!(answer.ends_with("\n# EOF\n"), "{answer}");
    }
    for metric in ALL {
        ensure!(families.contains(metric.name), "{} is in the list and exported by nobody", metric.name);
    }
    ensure!(families.len() == ALL.len(), "exported and not in the list: {families:?}");
    Ok(())
}

#[test]
fn promtool_accepts_configuration_and_rules() -> Result<()> {
    let cluster = Cluster::here()?;
    for args in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "alerts.yml"],
        &["test", "rules", "alerts.test.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        promtool.args(args).current_dir(deploy(&cluster, "prometheus"));
        Run::of(promtool, "")?.ok()?;
    }
    Ok(())
}

/// A Prometheus of the test's own; it goes with the value.
struct Prometheus {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Prometheus {
    /// With the repository's configuration, the addresses of this cluster in the place of those of the example.
    fn start(cluster: &Cluster) -> Result<Self> {
        let dir = cluster.home().join("prometheus");
        fs::create_dir_all(&dir)?;
        let target = |url: &String| url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
        let targets: Vec<String> = urls(cluster)?.iter().map(target).collect();
        let (controller, nodes) = targets.split_first().context("targets")?;
        let config = fs::read_to_string(deploy(cluster, "prometheus/prometheus.yml"))?
            .replace("[127.0.0.1:7601]", &format!("[\"{controller}\"]"))
            .replace("[127.0.0.1:9464]", &format!("[\"{}\"]", nodes.join("\", \"")))
            .replace("- alerts.yml", &format!("- {}", deploy(cluster, "prometheus/alerts.yml").display()))
            .replace("_interval: 15s", "_interval: 1s");
        fs::write(dir.join("prometheus.yml"), config)?;
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("prometheus")?;
        Ok(Self { child, address: free.to_string(), dir })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let mut command = Command::new("curl");
        command.args(["-sSfg", "--max-time", "10", &format!("http://{}/api/v1/{path}", self.address)]);
        Ok(Run::of(command, "")?.ok()?.json()?["data"].take())
    }

    /// The values of a query without spaces, by instance.
    fn values(&self, query: &str) -> Result<Vec<f64>> {
        let answer = self.ask(&format!("query?query={query}"))?;
        let samples = answer["result"].as_array().context("result")?;
        Ok(samples.iter().filter_map(|s| s["value"][1].as_str()?.parse().ok()).collect())
    }

    fn sum(&self, query: &str) -> Result<f64> {
        Ok(self.values(query)?.iter().sum())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; the directory goes with the cluster at the latest.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}

#[test]
fn a_prometheus_sees_the_cluster_and_what_happens_in_it() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let prometheus = Prometheus::start(&cluster)?;
    let all = urls(&cluster)?.len();
    eventually("every target is up", 60, || {
        let up = prometheus.values("up")?;
        ensure!(up.len() == all && up.iter().all(|v| (*v - 1.0).abs() < f64::EPSILON), "{up:?}");
        Ok(())
    })?;
    let rules = prometheus.ask("rules")?;
    let groups = rules["groups"].as_array().context("groups")?;
    ensure!(groups.len() == 3, "{rules}");
    let running = "strata_agent_containers{state=\"Running\"}";
    let before = prometheus.sum(running)?;
    let manifest = "kind: Workload\nmeta: {name: watched}\nspec:\n  replicas: 6\n  template:\n    terminationGraceS: 0\n    containers: [{name: c, image: 'hello:1'}]\n";
    cluster.apply(manifest, &["--wait", "--timeout", "60s"])?.ok()?;
    let restarting = "kind: Workload\nmeta: {name: restless}\nspec:\n  replicas: 1\n  template:\n    terminationGraceS: 0\n    containers: [{name: c, image: 'hello:1', command: [sh, -c, 'exit 3']}]\n";
    cluster.apply(restarting, &[])?.ok()?;
    let seen = eventually("what happened is counted", 60, || {
        let now = prometheus.sum(running)?;
        ensure!(now >= before + 6.0, "{now} containers run, {before} before");
        for query in [
            "strata_agent_container_restarts_total",
            "strata_controller_placed_pods_total",
            "strata_controller_requests_total{method=\"Objects/Apply\",code=\"Ok\"}",
            "strata_controller_loop_seconds_count{loop=\"schedule\"}",
            "strata_controller_store_sync_seconds_count",
            "strata_agent_step_seconds_count{step=\"sandbox\"}",
            "strata_agent_layers_mounted",
            "strata_controller_pods{phase=\"Running\"}",
        ] {
            let sum = prometheus.sum(query)?;
            ensure!(sum >= 1.0, "{query} is {sum}");
        }
        prometheus.ask("label/__name__/values")
    });
    cluster.delete(&["workload/watched", "workload/restless"])?;
    // Everything that has a value without further doing has arrived under the name of the list.
    let seen: BTreeSet<String> =
        seen?.as_array().context("names")?.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect();
    for metric in ALL.iter().filter(|m| m.name != "strata_agent_step_failures_total") {
        let name =
            if metric.of == Type::Histogram { format!("{}_bucket", metric.name) } else { metric.name.to_owned() };
        ensure!(seen.contains(&name), "Prometheus has not seen {name}");
    }
    Ok(())
}
