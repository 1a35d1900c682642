use crate::{
    amount::{short_bytes, short_cpus},
    exit::{Exit, Failure},
    output,
    session::Session,
    table::Table,
};
use std::{collections::BTreeMap, time::Duration};
use strata_client::Selection;
use strata_proto::{
    cluster::NodeStats,
    node::ContainerStats,
    types::{Kind, Object, object},
};

/// Between the two looks whose difference is the rate of processor time.
const BETWEEN: Duration = Duration::from_secs(1);

/// Show what nodes or pods use now: processor time over a second, memory that cannot be had back.
///
/// Examples:
///   ctl top nodes
///   ctl top pods -A --containers
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// What each node uses
    #[command(alias = "node", alias = "no")]
    Nodes {
        /// Only this node
        #[arg(value_name = "NODE", default_value = "", hide_default_value = true)]
        node: String,
        /// As JSON
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// What each pod uses
    #[command(alias = "pod", alias = "po")]
    Pods {
        /// Only this pod
        #[arg(value_name = "POD", default_value = "", hide_default_value = true)]
        pod: String,
        /// A line for each container
        #[arg(long)]
        containers: bool,
        /// As JSON
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// An array
    Json,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Nodes { node, output } => nodes(session, node, *output).await,
        What::Pods { pod, containers, output } => pods(session, pod, *containers, *output).await,
    }
}

/// Two looks; nodes that answered both.
async fn looks(
    session: &Session,
    namespace: &str,
    node: &str,
    with_pods: bool,
) -> Result<Vec<(NodeStats, NodeStats)>, Failure> {
    let before = session.client.stats(namespace, node, with_pods).await?;
    tokio::time::sleep(BETWEEN).await;
    let after = session.client.stats(namespace, node, with_pods).await?;
    for silent in after.iter().filter(|n| !n.error.is_empty()) {
        output::talk(&format!("node {} does not say: {}", silent.node, silent.error));
    }
    let pairs = after.into_iter().filter(|n| n.stats.is_some()).filter_map(|now| {
        let then = before.iter().find(|b| b.node == now.node && b.stats.is_some())?;
        Some((then.clone(), now))
    });
    Ok(pairs.collect())
}

/// Thousandths of a processor between two looks at a counter of nanoseconds.
fn millis(then: u64, now: u64, elapsed_ns: u64) -> u64 {
    // A counter that went back is of a new process: what it has used since.
    let used = now.checked_sub(then).unwrap_or(now);
    u64::try_from(u128::from(used) * 1000 / u128::from(elapsed_ns.max(1))).unwrap_or(u64::MAX)
}

async fn nodes(session: &Session, node: &str, format: Format) -> Result<(), Failure> {
    let pairs = looks(session, "", node, false).await?;
    let listed = session.client.list(Kind::Node, &Selection::default()).await?.objects;
    let capacity = |name: &str| {
        let found = listed.iter().find(|o| o.meta.as_ref().is_some_and(|m| m.name == name));
        match found.and_then(|o| o.kind.as_ref()) {
            Some(object::Kind::Node(n)) => n.status.as_ref().and_then(|s| s.capacity).unwrap_or_default(),
            _ => Default::default(),
        }
    };
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for (then, now) in &pairs {
        let (Some(then), Some(now_stats)) = (&then.stats, &now.stats) else { continue };
        let (a, b) = (then.node.unwrap_or_default(), now_stats.node.unwrap_or_default());
        let cpu = millis(a.cpu_ns, b.cpu_ns, now_stats.time_ns.saturating_sub(then.time_ns));
        let has = capacity(&now.node);
        let share = |used: u64, of: u64| (used * 100).checked_div(of).map_or("-".into(), |p| format!("{p}%"));
        rows.push(vec![
            now.node.clone(),
            short_cpus(cpu),
            share(cpu, has.cpu_millis),
            short_bytes(b.memory_bytes),
            share(b.memory_bytes, has.memory_bytes),
            format!("{}/{}", short_bytes(b.disk_used_bytes), short_bytes(b.disk_total_bytes)),
        ]);
        documents.push(serde_json::json!({
            "node": now.node, "cpuMillis": cpu, "memoryBytes": b.memory_bytes.to_string(),
            "diskUsedBytes": b.disk_used_bytes.to_string(), "diskTotalBytes": b.disk_total_bytes.to_string(),
        }));
    }
    show(format, vec!["NODE", "CPU", "CPU%", "MEMORY", "MEMORY%", "DISK"], &rows, documents)
}

/// One container's figures, or the sum of a pod's.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    cpu_millis: u64,
    memory_bytes: u64,
    pids: u64,
    writable_bytes: u64,
}

impl Figures {
    fn of(then: Option<&ContainerStats>, now: &ContainerStats, elapsed_ns: u64) -> Self {
        Self {
            // Of one that has just begun there is nothing to compare with.
            cpu_millis: then.map_or(0, |then| millis(then.cpu_ns, now.cpu_ns, elapsed_ns)),
            memory_bytes: now.memory_bytes,
            pids: now.pids,
            writable_bytes: now.writable_bytes,
        }
    }
    fn plus(self, more: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis + more.cpu_millis,
            memory_bytes: self.memory_bytes + more.memory_bytes,
            pids: self.pids + more.pids,
            writable_bytes: self.writable_bytes + more.writable_bytes,
        }
    }
}

async fn pods(session: &Session, pod: &str, by_container: bool, format: Format) -> Result<(), Failure> {
    let namespace = session.namespace_to_list(Kind::Pod).to_owned();
    let selection = Selection { namespace: namespace.clone(), ..Default::default() };
    let listed = session.client.list(Kind::Pod, &selection).await?.objects;
    let names: BTreeMap<&str, &Object> =
        listed.iter().filter_map(|o| Some((o.meta.as_ref()?.uid.as_str(), o))).collect();
    if !pod.is_empty() && !names.values().any(|o| o.meta.as_ref().is_some_and(|m| m.name == pod)) {
        return Err(Failure::new(Exit::NotFound, format!("there is no pod {namespace}/{pod}")));
    }
    let mut lines: BTreeMap<(String, String, String), Figures> = BTreeMap::new();
    for (then, now) in looks(session, &namespace, "", true).await? {
        let (Some(then), Some(now)) = (then.stats, now.stats) else { continue };
        let elapsed = now.time_ns.saturating_sub(then.time_ns);
        for used in now.pods {
            let Some(meta) = names.get(used.pod_uid.as_str()).and_then(|o| o.meta.as_ref()) else { continue };
            if !pod.is_empty() && meta.name != pod {
                continue;
            }
            let before = then.pods.iter().find(|p| p.pod_uid == used.pod_uid);
            for c in &used.containers {
                let earlier = before.and_then(|p| p.containers.iter().find(|b| b.name == c.name));
                let name = if by_container { c.name.clone() } else { String::new() };
                let line = lines.entry((meta.namespace.clone(), meta.name.clone(), name)).or_default();
                *line = line.plus(Figures::of(earlier, c, elapsed));
            }
        }
    }
    let mut headers = vec!["NAME", "CPU", "MEMORY", "PIDS", "WRITABLE"];
    if by_container {
        headers.insert(1, "CONTAINER");
    }
    if session.all_namespaces {
        headers.insert(0, "NAMESPACE");
    }
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for ((namespace, name, container), f) in lines {
        documents.push(serde_json::json!({
            "namespace": namespace, "pod": name, "container": container, "cpuMillis": f.cpu_millis,
            "memoryBytes": f.memory_bytes.to_string(), "pids": f.pids, "writableBytes": f.writable_bytes.to_string(),
        }));
        let mut row = vec![
            name,
            format!("{}m", f.cpu_millis),
            short_bytes(f.memory_bytes),
            f.pids.to_string(),
            short_bytes(f.writable_bytes),
        ];
        if by_container {
            row.insert(1, container);
        }
        if session.all_namespaces {
            row.insert(0, namespace);
        }
        rows.push(row);
    }
    show(format, headers, &rows, documents)
}

fn show(
    format: Format,
    headers: Vec<&'static str>,
    rows: &[Vec<String>],
    documents: Vec<serde_json::Value>,
) -> Result<(), Failure> {
    match format {
        Format::Table => output::print(&Table::new(headers).render(rows)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&serde_json::Value::Array(documents));
            output::print(&(text.map_err(|e| Failure::failed(format!("cannot write JSON: {e}")))? + "\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between() {
        assert_eq!(millis(1_000_000_000, 1_500_000_000, 1_000_000_000), 500);
        assert_eq!(millis(5_000_000_000, 100_000_000, 1_000_000_000), 100, "a new process");
        assert_eq!(millis(0, 0, 0), 0);
    }
}
