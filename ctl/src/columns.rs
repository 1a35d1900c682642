//! Which columns the table of a kind has, and what stands in them. Pure.

use crate::amount::{age, short_bytes, short_cpus};
use strata_model::Digest;
use strata_proto::types::{
    Config, Container, Event, Image, Kind, Meta, Namespace, Node, Object, Pod, PodTemplate, Resources, Secret, Service,
    Template, Token, Volume, Workload, object, workload_spec::Mode,
};

/// Characters of a message in a table.
const MESSAGE_CHARS_MAX: usize = 100;

/// One column: header, whether only the wide table has it, and its text.
struct Column<T>(&'static str, Shown, fn(&T, &Meta, u64) -> String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    Wide,
}
use Shown::{Always, Wide};

const AGE: fn(&Meta, u64) -> String = |meta, now| age(meta.created.as_ref(), now);

const POD: &[Column<Pod>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("READY", Always, |pod, _, _| {
        let containers = pod.status.as_ref().map_or(&[][..], |s| &s.containers);
        let wanted = pod.spec.as_ref().and_then(|s| s.template.as_ref()).map_or(0, |t| t.containers.len());
        format!("{}/{}", containers.iter().filter(|c| c.ready).count(), containers.len().max(wanted))
    }),
    Column("PHASE", Always, |pod, m, _| match (&m.deleted, &pod.status) {
        (Some(_), Some(status)) if !matches!(status.phase().as_str_name(), "Exited" | "Failed" | "Lost") => {
            "Stopping".into()
        }
        (_, status) => status.as_ref().map_or("Pending", |s| s.phase().as_str_name()).into(),
    }),
    Column("RESTARTS", Always, |pod, _, _| {
        let containers = pod.status.as_ref().map_or(&[][..], |s| &s.containers);
        containers.iter().map(|c| u64::from(c.restarts)).sum::<u64>().to_string()
    }),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    Column("NODE", Always, |pod, _, _| {
        let bound = pod.spec.as_ref().map(|s| s.node.as_str()).filter(|node| !node.is_empty());
        or_dash(bound.or(pod.status.as_ref().map(|s| s.node.as_str())).unwrap_or_default())
    }),
    Column("ADDRESS", Always, |pod, _, _| or_dash(pod.status.as_ref().map_or("", |s| &s.address))),
    Column("REASON", Always, |pod, _, _| pod.status.as_ref().map(|s| s.reason.clone()).unwrap_or_default()),
    Column("ATTEMPT", Wide, |pod, _, _| pod.status.as_ref().map_or(0, |s| s.attempt).to_string()),
    Column("WORKLOAD", Wide, |pod, _, _| or_dash(pod.spec.as_ref().map_or("", |s| &s.workload))),
    Column("IMAGES", Wide, |pod, _, _| {
        let running = pod.status.iter().flat_map(|s| &s.containers).map(|c| c.image.clone());
        let images: Vec<String> = running.filter(|image| !image.is_empty()).collect();
        let template = pod.spec.as_ref().and_then(|s| s.template.as_ref());
        if images.is_empty() { images_of(template) } else { images.join(",") }
    }),
    Column("MESSAGE", Wide, |pod, _, _| short_message(pod.status.as_ref().map_or("", |s| &s.message))),
];

const WORKLOAD: &[Column<Workload>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("MODE", Always, |w, _, _| w.spec.as_ref().map_or(Mode::Replicated, |s| s.mode()).as_str_name().into()),
    Column("DESIRED", Always, |w, _, _| {
        let of_status = w.status.as_ref().map_or(0, |s| s.desired);
        let of_spec = w.spec.as_ref().and_then(|s| s.replicas);
        // Until the controller has looked at this generation, the spec knows better.
        of_spec
            .filter(|_| w.spec.as_ref().is_some_and(|s| s.mode() == Mode::Replicated))
            .unwrap_or(of_status)
            .to_string()
    }),
    Column("READY", Always, |w, _, _| w.status.as_ref().map_or(0, |s| s.ready).to_string()),
    Column("UPDATED", Always, |w, _, _| w.status.as_ref().map_or(0, |s| s.updated).to_string()),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    Column("REASON", Always, |w, _, _| w.status.as_ref().map(|s| s.reason.clone()).unwrap_or_default()),
    Column("PODS", Wide, |w, _, _| w.status.as_ref().map_or(0, |s| s.replicas).to_string()),
    Column("REVISION", Wide, |w, _, _| {
        or_dash(&w.status.as_ref().map_or("", |s| &s.revision).chars().take(12).collect::<String>())
    }),
    Column("IMAGES", Wide, |w, _, _| images_of(w.spec.as_ref().and_then(|s| s.template.as_ref()))),
    Column("MESSAGE", Wide, |w, _, _| short_message(w.status.as_ref().map_or("", |s| &s.message))),
];

const NODE: &[Column<Node>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("PHASE", Always, |n, _, _| {
        let phase = n.status.as_ref().map_or("Unknown", |s| s.phase().as_str_name());
        let closed = n.spec.as_ref().is_some_and(|s| s.unschedulable);
        if closed { format!("{phase},Unschedulable") } else { phase.into() }
    }),
    Column("ADDRESS", Always, |n, _, _| or_dash(n.status.as_ref().map_or("", |s| &s.address))),
    Column("PODS", Always, |n, _, _| n.status.as_ref().map_or(0, |s| s.pods).to_string()),
    Column("CPU", Always, |n, _, _| of_capacity(n, |r| short_cpus(r.cpu_millis))),
    Column("MEMORY", Always, |n, _, _| of_capacity(n, |r| short_bytes(r.memory_bytes))),
    Column("LAYERS", Always, |n, _, _| n.status.as_ref().map_or(0, |s| s.layers.len()).to_string()),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    Column("LAYER-BYTES", Wide, |n, _, _| {
        short_bytes(n.status.iter().flat_map(|s| &s.layers).map(|l| l.size_bytes).sum())
    }),
    Column("LAYER-MOUNT", Wide, |n, _, _| or_dash(n.status.as_ref().map_or("", |s| &s.layer_mount))),
    Column("SUBNET", Wide, |n, _, _| or_dash(n.spec.as_ref().map_or("", |s| &s.subnet))),
    Column("ARCH", Wide, |n, _, _| or_dash(n.status.as_ref().map_or("", |s| &s.architecture))),
    Column("VERSION", Wide, |n, _, _| or_dash(n.status.as_ref().map_or("", |s| &s.version))),
    Column("REASON", Wide, |n, _, _| n.status.as_ref().map(|s| s.reason.clone()).unwrap_or_default()),
];

const IMAGE: &[Column<Image>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("DIGEST", Always, |i, _, _| short_digest(i.spec.as_ref().map_or("", |s| &s.digest))),
    Column("SIZE", Always, |i, _, _| short_bytes(i.spec.as_ref().map_or(0, |s| s.size_bytes))),
    Column("LAYERS", Always, |i, _, _| i.spec.as_ref().map_or(0, |s| s.layers.len()).to_string()),
    Column("NODES", Always, |i, _, _| i.status.as_ref().map_or(0, |s| s.nodes.len()).to_string()),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    Column("PLATFORM", Wide, |i, _, _| or_dash(i.spec.as_ref().map_or("", |s| &s.platform))),
    Column("SOURCE", Wide, |i, _, _| {
        if i.spec.as_ref().is_some_and(|s| s.from_registry) { "registry".into() } else { "imported".into() }
    }),
    Column("ON", Wide, |i, _, _| or_dash(&i.status.as_ref().map(|s| s.nodes.join(",")).unwrap_or_default())),
];

const EVENT: &[Column<Event>] = &[
    Column("LAST", Always, |e, m, now| age(e.spec.as_ref().and_then(|s| s.last.as_ref()).or(m.created.as_ref()), now)),
    Column("SEVERITY", Always, |e, _, _| e.spec.as_ref().map_or("Normal", |s| s.severity().as_str_name()).into()),
    Column("REASON", Always, |e, _, _| e.spec.as_ref().map(|s| s.reason.clone()).unwrap_or_default()),
    Column("OBJECT", Always, |e, _, _| {
        e.spec.as_ref().map(|s| format!("{}/{}", s.kind.to_lowercase(), s.name)).unwrap_or_default()
    }),
    Column("SOURCE", Wide, |e, _, _| or_dash(e.spec.as_ref().map_or("", |s| &s.source))),
    Column("COUNT", Always, |e, _, _| e.spec.as_ref().map_or(1, |s| s.count.max(1)).to_string()),
    Column("MESSAGE", Always, |e, _, _| one_line(e.spec.as_ref().map_or("", |s| &s.message))),
];

const TEMPLATE: &[Column<Template>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("IMAGES", Always, |t, _, _| images_of(t.spec.as_ref().and_then(|s| s.pod.as_ref()))),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
];

const TOKEN: &[Column<Token>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("EXPIRES", Always, |t, _, now| {
        match strata_proto::timestamp_ms(t.spec.as_ref().and_then(|s| s.expires.as_ref())) {
            0 => "never".into(),
            at if at <= now => "expired".into(),
            at => format!("in {}", crate::amount::short_duration((at - now) / 1000)),
        }
    }),
    Column("USES-LEFT", Always, |t, _, _| match t.spec.as_ref().map_or(0, |s| s.uses_left) {
        0 => "any".into(),
        left => left.to_string(),
    }),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
];

const NAMESPACE: &[Column<Namespace>] =
    &[Column("NAME", Always, |_, m, _| m.name.clone()), Column("AGE", Always, |_, m, now| AGE(m, now))];

const SERVICE: &[Column<Service>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("ADDRESS", Always, |s, _, _| match &s.spec {
        Some(spec) if spec.headless => "headless".into(),
        spec => or_dash(spec.as_ref().map_or("", |s| &s.address)),
    }),
    Column("PORTS", Always, |s, _, _| {
        let ports = s.spec.iter().flat_map(|s| &s.ports).map(|p| match p.published_port {
            0 => format!("{}/{}", p.port, p.protocol().as_str_name()),
            published => format!("{}:{published}/{}", p.port, p.protocol().as_str_name()),
        });
        or_dash(&ports.collect::<Vec<_>>().join(","))
    }),
    Column("READY", Always, |s, _, _| {
        let endpoints = s.status.as_ref().map_or(&[][..], |s| &s.endpoints);
        format!("{}/{}", endpoints.iter().filter(|e| e.ready).count(), endpoints.len())
    }),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    Column("SELECTOR", Wide, |s, _, _| {
        let mut labels: Vec<String> =
            s.spec.iter().flat_map(|s| &s.selector).map(|(k, v)| format!("{k}={v}")).collect();
        labels.sort();
        or_dash(&labels.join(","))
    }),
];

const VOLUME: &[Column<Volume>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("SIZE", Always, |v, _, _| short_bytes(v.spec.as_ref().map_or(0, |s| s.size_bytes))),
    Column("NODE", Always, |v, _, _| or_dash(v.spec.as_ref().map_or("", |s| &s.node))),
    Column("PODS", Always, |v, _, _| or_dash(&v.status.as_ref().map(|s| s.pods.join(",")).unwrap_or_default())),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
    // A deleted one stays until its node has removed the data.
    Column("REASON", Always, |v, m, _| match v.status.as_ref().map_or("", |s| &s.reason) {
        "" if m.deleted.is_some() => "Deleting".into(),
        reason => reason.into(),
    }),
    Column("MESSAGE", Wide, |v, _, _| short_message(v.status.as_ref().map_or("", |s| &s.message))),
];

const CONFIG: &[Column<Config>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("KEYS", Always, |c, _, _| c.spec.as_ref().map_or(0, |s| s.data.len() + s.binary.len()).to_string()),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
];

const SECRET: &[Column<Secret>] = &[
    Column("NAME", Always, |_, m, _| m.name.clone()),
    Column("TYPE", Always, |s, _, _| or_dash(s.spec.as_ref().map_or("", |s| &s.r#type))),
    Column("KEYS", Always, |s, _, _| s.status.as_ref().map_or(0, |s| s.keys.len()).to_string()),
    Column("AGE", Always, |_, m, now| AGE(m, now)),
];

/// How a table is to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    pub wide: bool,
    /// Whether the first column is the namespace.
    pub with_namespace: bool,
}

/// The headers of a kind's table.
pub fn headers(kind: Kind, look: Look) -> Vec<&'static str> {
    let mut headers = if look.with_namespace { vec!["NAMESPACE"] } else { vec![] };
    headers.extend(match kind {
        Kind::Pod => titles(POD, look),
        Kind::Workload => titles(WORKLOAD, look),
        Kind::Node => titles(NODE, look),
        Kind::Image => titles(IMAGE, look),
        Kind::Event => titles(EVENT, look),
        Kind::Template => titles(TEMPLATE, look),
        Kind::Token => titles(TOKEN, look),
        Kind::Service => titles(SERVICE, look),
        Kind::Volume => titles(VOLUME, look),
        Kind::Config => titles(CONFIG, look),
        Kind::Secret => titles(SECRET, look),
        Kind::Namespace | Kind::Unspecified => titles(NAMESPACE, look),
    });
    headers
}

/// The row of an object, for the headers of its kind.
pub fn row(object: &Object, look: Look, now_ms: u64) -> Vec<String> {
    let meta = object.meta.clone().unwrap_or_default();
    let mut cells = if look.with_namespace { vec![meta.namespace.clone()] } else { vec![] };
    cells.extend(match &object.kind {
        Some(object::Kind::Pod(x)) => texts(POD, x, &meta, look, now_ms),
        Some(object::Kind::Workload(x)) => texts(WORKLOAD, x, &meta, look, now_ms),
        Some(object::Kind::Node(x)) => texts(NODE, x, &meta, look, now_ms),
        Some(object::Kind::Image(x)) => texts(IMAGE, x, &meta, look, now_ms),
        Some(object::Kind::Event(x)) => texts(EVENT, x, &meta, look, now_ms),
        Some(object::Kind::Template(x)) => texts(TEMPLATE, x, &meta, look, now_ms),
        Some(object::Kind::Token(x)) => texts(TOKEN, x, &meta, look, now_ms),
        Some(object::Kind::Service(x)) => texts(SERVICE, x, &meta, look, now_ms),
        Some(object::Kind::Volume(x)) => texts(VOLUME, x, &meta, look, now_ms),
        Some(object::Kind::Config(x)) => texts(CONFIG, x, &meta, look, now_ms),
        Some(object::Kind::Secret(x)) => texts(SECRET, x, &meta, look, now_ms),
        Some(object::Kind::Namespace(x)) => texts(NAMESPACE, x, &meta, look, now_ms),
        None => vec![meta.name.clone()],
    });
    cells
}

fn titles<T>(columns: &[Column<T>], look: Look) -> Vec<&'static str> {
    columns.iter().filter(|column| look.wide || column.1 == Always).map(|column| column.0).collect()
}

fn texts<T>(columns: &[Column<T>], of: &T, meta: &Meta, look: Look, now_ms: u64) -> Vec<String> {
    columns.iter().filter(|column| look.wide || column.1 == Always).map(|column| (column.2)(of, meta, now_ms)).collect()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn short_message(text: &str) -> String {
    let line = one_line(text);
    if line.chars().count() <= MESSAGE_CHARS_MAX {
        return line;
    }
    line.chars().take(MESSAGE_CHARS_MAX - 1).chain(['…']).collect()
}

fn short_digest(text: &str) -> String {
    text.parse::<Digest>().map_or_else(|_| or_dash(text), |digest| digest.short().to_owned())
}

fn images_of(template: Option<&PodTemplate>) -> String {
    let names = template.iter().flat_map(|t| &t.containers).map(|c: &Container| c.image.as_str());
    or_dash(&names.collect::<Vec<_>>().join(","))
}

/// `allocated/capacity`.
fn of_capacity(node: &Node, show: fn(&Resources) -> String) -> String {
    let amount = |resources: Option<&Resources>| show(resources.unwrap_or(&Resources::default()));
    let status = node.status.as_ref();
    format!(
        "{}/{}",
        amount(status.and_then(|s| s.allocated.as_ref())),
        amount(status.and_then(|s| s.capacity.as_ref()))
    )
}

#[cfg(test)]
mod tests;
