//! One service: a workload, and a service object for each of its names.

use std::collections::{HashMap, HashSet};

use strata_model::limits::TERMINATION_GRACE_MAX_S;
use strata_proto::{
    BadObject,
    types::{
        self, Container, JobPolicy, PodSecurity, PodTemplate, Security, ServiceSpec, UpdatePolicy, WorkloadSpec,
        container::PullPolicy, object::Kind, pod_template::RestartPolicy, workload_spec::Mode,
    },
};

use super::{
    build,
    deploy::{self, Restart},
    environment, health, loose, mounts, names, network, ports,
    project::Project,
};
use crate::{
    Document,
    at::At,
    check,
    kubernetes::security,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::{Entry, Node, Pos, Value},
};

const SERVICE: Table = &[
    ("annotations", Read),
    ("attach", NoEffect("ctl attaches to no service; see `ctl logs`")),
    ("blkio_config", NotYet),
    ("build", Read),
    ("cap_add", Read),
    ("cap_drop", Read),
    ("cgroup", Only(&["private"])),
    ("cgroup_parent", NotYet),
    ("command", Read),
    ("configs", Read),
    ("container_name", Read),
    ("cpu_count", NotYet),
    ("cpu_percent", NotYet),
    ("cpu_period", NotYet),
    ("cpu_quota", NotYet),
    ("cpu_rt_period", NotYet),
    ("cpu_rt_runtime", NotYet),
    ("cpu_shares", NotYet),
    ("cpus", Read),
    ("cpuset", NotYet),
    ("credential_spec", NotYet),
    ("depends_on", Read),
    ("deploy", Read),
    ("develop", NoEffect("`docker compose watch` is a matter of one machine")),
    ("device_cgroup_rules", NotYet),
    ("devices", NotYet),
    ("dns", NotYet),
    ("dns_opt", NotYet),
    ("dns_search", NotYet),
    ("domainname", NotYet),
    ("entrypoint", Read),
    ("env_file", Read),
    ("environment", Read),
    ("expose", Read),
    ("extends", NotYet),
    ("external_links", NotYet),
    ("extra_hosts", NotYet),
    ("gpus", NotYet),
    ("group_add", Read),
    ("healthcheck", Read),
    ("hostname", Read),
    ("image", Read),
    ("init", NoEffect("the first process of every pod collects the ended ones")),
    ("ipc", Only(&["private", "shareable"])),
    ("isolation", Only(&["default"])),
    ("label_file", NotYet),
    ("labels", Read),
    ("links", Read),
    ("logging", NoEffect("logs are kept on the node and rotated; see `ctl logs`")),
    ("mac_address", NotYet),
    ("mem_limit", Read),
    ("mem_reservation", Read),
    ("mem_swappiness", NotYet),
    ("memswap_limit", NoEffect("pods do not swap")),
    ("models", NotYet),
    ("network_mode", Read),
    ("networks", Read),
    ("oom_kill_disable", NotYet),
    ("oom_score_adj", NotYet),
    ("pid", NotYet),
    ("pids_limit", Read),
    ("platform", NoEffect("images are taken for the node's own platform")),
    ("ports", Read),
    ("post_start", NotYet),
    ("pre_stop", NotYet),
    ("privileged", NotYet),
    ("profiles", Read),
    ("provider", NotYet),
    ("pull_policy", Read),
    ("read_only", Read),
    ("restart", Read),
    ("runtime", Only(&["runc"])),
    ("scale", Read),
    ("secrets", Read),
    ("security_opt", Read),
    ("shm_size", NotYet),
    ("stdin_open", Read),
    ("stop_grace_period", Read),
    ("stop_signal", Read),
    ("storage_opt", NotYet),
    ("sysctls", Read),
    ("tmpfs", Read),
    ("tty", Read),
    ("ulimits", NotYet),
    ("use_api_socket", NotYet),
    ("user", Read),
    ("userns_mode", NotYet),
    ("uts", NotYet),
    ("volume_driver", NotYet),
    ("volumes", Read),
    ("volumes_from", NotYet),
    ("working_dir", Read),
    (EXTENSION, Read),
];

const DEPENDS: Table = &[("condition", Read), ("restart", Read), ("required", Read), (EXTENSION, Read)];
const CONDITIONS: &[(&str, ())] =
    &[("service_started", ()), ("service_healthy", ()), ("service_completed_successfully", ())];

/// Docker's default.
const GRACE_S: u32 = 10;

/// The names of service objects so far; of those that only a link made, the service it leads to.
pub(crate) type Taken = HashMap<String, Option<String>>;

/// Reads one service.
pub(crate) fn read(
    entry: &Entry,
    services: At<'_>,
    project: &Project<'_, '_>,
    taken: &mut Taken,
    report: &mut Report,
    documents: &mut Vec<Document>,
) -> Option<()> {
    let at = services.field(&entry.key);
    if entry.key.starts_with("x-") {
        return None;
    }
    if !names::is_name(&entry.key) {
        report.error(entry.pos, at, "a service's name has at most 63 letters, digits, '-', '_' and '.'");
        return None;
    }
    let name = network::service_name(&entry.key, entry.pos, at, report)?;
    let errors_before = report.errors_seen();
    let s = fields(&entry.node, at, SERVICE, report)?;
    let wanted = loose::texts(&s, "profiles", report);
    if !wanted.is_empty() && !wanted.iter().any(|(p, _)| project.profiles.iter().any(|q| q == p || q == "*")) {
        return None;
    }
    if name != entry.key {
        report.warn(
            entry.pos,
            at,
            format!("is called {name} here: names in DNS have lower-case letters, digits and '-'"),
        );
    }
    depends_on(&s, project, report);
    network::mode(&s, report);
    let ports = ports::read(&s, report);
    let deploy = deploy::read(&s, report);
    let image = loose::field(&s, "image", report);
    let build = build::read(&s, image.as_deref(), &entry.key, project, report);
    let Some(image) = image.or_else(|| build.as_ref().map(|b| b.image.clone())) else {
        if s.get("build").is_none() {
            report.error(entry.pos, at, "`image` or `build` is missing");
        }
        return None;
    };
    let mounts = mounts::read(&s, project, report);
    let mut container = container(&s, project, report);
    container.name = name.clone();
    container.image = image;
    container.pull_policy = pull_policy(&s, build.is_some(), report).into();
    container.ports = ports.of_container();
    container.mounts = mounts.mounts;
    container.limits = (deploy.limits != types::Resources::default()).then_some(deploy.limits);
    container.requests = (deploy.requests != types::Resources::default()).then_some(deploy.requests);
    let mut labels = project.labels();
    labels.insert(names::SERVICE.to_owned(), entry.key.clone());
    let mut template = template(&s, container, labels.clone(), report);
    template.volumes = mounts.sources;
    template.node_selector = deploy.node_selector;
    let service = ServiceSpec {
        selector: labels.clone(),
        ports: ports.of_service(true),
        headless: ports.is_empty() || (deploy.headless && !ports.is_published()),
        ..Default::default()
    };
    let mut other_names = network::aliases(&s, project, report);
    let container_name = loose::field(&s, "container_name", report);
    if let (Some(other), Some(node)) = (container_name, s.get("container_name")) {
        let other_dns = names::dns(&other);
        let works = names::is_dns_label(&other_dns) && other_dns == other.to_lowercase();
        let message = if works {
            other_names.push((other, node.pos));
            "pods are named after their service; in DNS the name leads to the service"
        } else {
            "has no effect here: pods are named after their service, and this is no name in DNS"
        };
        report.warn(node.pos, at.field("container_name"), message);
    }
    let spec = workload(deploy.mode, deploy.replicas, template, deploy.update, mounts.lasting, {
        let one_shot = project.one_shots.contains(&entry.key);
        restart_of(&s, deploy.restart, one_shot, report)
    });
    let links = network::links(&s, project, report);
    if report.errors_seen() > errors_before {
        return None;
    }
    let meta = |name: &str| types::Meta { name: name.to_owned(), labels: labels.clone(), ..Default::default() };
    let mut own = meta(&name);
    own.annotations = deploy.annotations;
    let kind = Kind::Workload(types::Workload { spec: Some(spec), status: None });
    let object = types::Object { meta: Some(own), kind: Some(kind) };
    verdict(&object, entry, at, report);
    documents.push(Document { object, pos: entry.pos, build });
    let mut publish = |name: &str, pos: Pos, spec: ServiceSpec, link: Option<String>, report: &mut Report| {
        match taken.insert(name.to_owned(), link.clone()) {
            None => {}
            // Several may link to the same service by the same name.
            Some(before) if before.is_some() && before == link => return,
            Some(_) => {
                report.error(pos, at, format!("{name:?} is the name of another service of this file already"));
                return;
            }
        }
        let kind = Kind::Service(types::Service { spec: Some(spec), status: None });
        documents.push(Document::new(types::Object { meta: Some(meta(name)), kind: Some(kind) }, pos));
    };
    publish(&name, entry.pos, service.clone(), None, report);
    // The same pods by another name; only the first name is published.
    let inside = ServiceSpec { ports: ports.of_service(false), ..service };
    let mut seen = HashSet::from([name]);
    for (other, pos) in other_names {
        let Some(other) = network::service_name(&other, pos, at, report) else { continue };
        if seen.insert(other.clone()) {
            publish(&other, pos, inside.clone(), None, report);
        }
    }
    for (target, alias, pos) in links {
        let Some(alias) = network::service_name(&alias, pos, at, report) else { continue };
        if names::dns(&target) == alias {
            continue;
        }
        let mut selector = project.labels();
        selector.insert(names::SERVICE.to_owned(), target.clone());
        let spec = ServiceSpec { selector, headless: true, ..Default::default() };
        publish(&alias, pos, spec, Some(target), report);
    }
    Some(())
}

fn container(s: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) -> Container {
    let (entrypoint, command) = (loose::command(s, "entrypoint", report), loose::command(s, "command", report));
    let words = command.unwrap_or_default();
    let (command, args) = match entrypoint {
        // An empty entrypoint takes the image's away: what `command` says is all that runs.
        Some(entrypoint) if entrypoint.is_empty() => {
            if let Some(node) = s.get("entrypoint").filter(|_| words.is_empty()) {
                report.error(
                    node.pos,
                    s.at().field("entrypoint"),
                    "is empty, and there is no `command`: nothing would run",
                );
            }
            (words, Vec::new())
        }
        Some(entrypoint) => (entrypoint, words),
        None => (Vec::new(), words),
    };
    let user = user(s, report);
    let capabilities = |name: &'static str, report: &mut Report| s.list(name, report, security::capability);
    security_options(s, report);
    Container {
        command,
        args,
        env: environment::read(s, project, report),
        working_dir: loose::field(s, "working_dir", report).unwrap_or_default(),
        readiness: health::read(s, report),
        stop_signal: loose::field(s, "stop_signal", report).unwrap_or_default(),
        tty: s.flag("tty", report).unwrap_or_default(),
        stdin: s.flag("stdin_open", report).unwrap_or_default(),
        security: Some(Security {
            run_as_user: user.0,
            run_as_group: user.1,
            read_only_root: s.flag("read_only", report).unwrap_or_default(),
            add_capabilities: capabilities("cap_add", report),
            drop_capabilities: capabilities("cap_drop", report),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn template(
    s: &Fields<'_, '_>,
    container: Container,
    labels: HashMap<String, String>,
    report: &mut Report,
) -> PodTemplate {
    let mut annotations = HashMap::new();
    for name in ["annotations", "labels"] {
        annotations.extend(loose::pairs(s, name, report).into_iter().map(|(k, v, _)| (k, v.unwrap_or_default())));
    }
    let grace = loose::seconds(s, "stop_grace_period", report).unwrap_or(GRACE_S);
    if let Some(node) = s.get("stop_grace_period").filter(|_| grace > TERMINATION_GRACE_MAX_S) {
        let message = format!("at most {TERMINATION_GRACE_MAX_S} seconds");
        report.error(node.pos, s.at().field("stop_grace_period"), message);
    }
    let groups: Vec<u32> = loose::texts(s, "group_add", report)
        .into_iter()
        .filter_map(|(text, pos)| id(&text, pos, s.at().field("group_add"), report))
        .collect();
    let security = (!groups.is_empty()).then(|| PodSecurity { supplemental_groups: groups, ..Default::default() });
    let sysctls = loose::pairs(s, "sysctls", report);
    PodTemplate {
        labels,
        annotations,
        containers: vec![container],
        termination_grace_s: Some(grace),
        hostname: loose::field(s, "hostname", report).unwrap_or_default(),
        security,
        sysctls: sysctls.into_iter().map(|(k, v, _)| (k, v.unwrap_or_default())).collect(),
        ..Default::default()
    }
}

fn workload(
    mode: Mode,
    replicas: Option<u32>,
    mut template: PodTemplate,
    update: Option<UpdatePolicy>,
    lasting: bool,
    restart: Restart,
) -> WorkloadSpec {
    if restart != Restart::Always {
        let (policy, backoff_limit) = match restart {
            Restart::Never => (RestartPolicy::Never, Some(0)),
            _ => (RestartPolicy::OnFailure, None),
        };
        template.restart_policy = policy.into();
        let job = JobPolicy {
            completions: replicas.unwrap_or(0),
            parallelism: replicas.unwrap_or(0),
            backoff_limit,
            ..Default::default()
        };
        return WorkloadSpec { mode: Mode::Job.into(), template: Some(template), job: Some(job), ..Default::default() };
    }
    // Two pods at once must not write to the same volume: there the old one goes first. Else no connection is lost.
    let update = update.unwrap_or(match (mode, lasting) {
        (Mode::Replicated, false) => UpdatePolicy { max_surge: 1, ..UpdatePolicy::default() },
        _ => UpdatePolicy { max_unavailable: 1, ..UpdatePolicy::default() },
    });
    let replicas = if mode == Mode::Replicated { replicas } else { None };
    WorkloadSpec { mode: mode.into(), replicas, template: Some(template), update: Some(update), ..Default::default() }
}

/// Whether a service is kept running or is to end: only what another waits for to end, and what says it is not restarted, ends.
fn restart_of(s: &Fields<'_, '_>, said: Option<Restart>, one_shot: bool, report: &mut Report) -> Restart {
    match said {
        _ if one_shot => match said {
            Some(Restart::Never) => Restart::Never,
            _ => Restart::OnFailure,
        },
        Some(Restart::OnFailure) => {
            let node = s.get("restart").or_else(|| s.get("deploy"));
            let message = "a service that is kept running is restarted also when it ends with exit code 0";
            report.warn(node.map_or(s.pos(), |n| n.pos), *s.at(), message);
            Restart::Always
        }
        other => other.unwrap_or(Restart::Always),
    }
}

/// An image that is built here is nobody else's: a registry is not asked for its name, unless the file gives it one.
fn pull_policy(s: &Fields<'_, '_>, built: bool, report: &mut Report) -> PullPolicy {
    let word = loose::field(s, "pull_policy", report);
    match word.as_deref() {
        Some("always") => PullPolicy::Always,
        Some("never" | "build") => PullPolicy::Never,
        Some("missing" | "if_not_present") => PullPolicy::IfNotPresent,
        None if built && s.get("image").is_none() => PullPolicy::Never,
        None => PullPolicy::IfNotPresent,
        Some(other) => {
            let words = ["always", "never", "missing", "if_not_present", "build"];
            let hint = did_you_mean(other, words);
            let pos = s.get("pull_policy").map_or(s.pos(), |n| n.pos);
            let message = format!("{:?} is not one of {}{hint}", cut(other), words.join(", "));
            report.error(pos, s.at().field("pull_policy"), message);
            PullPolicy::IfNotPresent
        }
    }
}

/// `UID[:GID]`.
fn user(s: &Fields<'_, '_>, report: &mut Report) -> (Option<u32>, Option<u32>) {
    let Some(node) = s.get("user") else { return (None, None) };
    let at = s.at().field("user");
    let Some(text) = loose::text(node, at, report).filter(|t| !t.is_empty()) else { return (None, None) };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text.as_str(), None),
    };
    (id(user, node.pos, at, report), group.and_then(|group| id(group, node.pos, at, report)))
}

fn id(text: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<u32> {
    let id = if text == "root" { Some(0) } else { text.parse::<u32>().ok() };
    let id = id.filter(|id| *id < strata_model::limits::IDS_PER_POD);
    if id.is_none() {
        let message = format!(
            "{:?}: only numbers below {} are supported yet, not names",
            cut(text),
            strata_model::limits::IDS_PER_POD
        );
        report.error(pos, at, message);
    }
    id
}

fn security_options(s: &Fields<'_, '_>, report: &mut Report) {
    for (text, pos) in loose::texts(s, "security_opt", report) {
        if !matches!(text.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true") {
            let message = format!("{:?}: only no-new-privileges is supported yet, and is so anyway", cut(&text));
            report.error(pos, s.at().field("security_opt"), message);
        }
    }
}

/// `depends_on`: checked, but all services start at once.
fn depends_on(s: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) {
    let Some(node) = s.get("depends_on") else { return };
    let at = s.at().field("depends_on");
    let known = |name: &str, pos: Pos, report: &mut Report| {
        if !project.services.contains(&name) {
            let hint = did_you_mean(name, project.services.iter().copied());
            report.error(pos, at, format!("the file has no service {:?}{hint}", cut(name)));
        }
    };
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let here = at.field(&entry.key);
                let Some(depends) = fields(&entry.node, here, DEPENDS, report) else { continue };
                depends.word("condition", CONDITIONS, report);
                if depends.flag("required", report).unwrap_or(true) {
                    known(&entry.key, entry.pos, report);
                }
            }
        }
        _ => loose::texts(s, "depends_on", report).iter().for_each(|(name, pos)| known(name, *pos, report)),
    }
    if !Node::is_default(node) {
        report.warn(
            node.pos,
            at,
            "has no effect here: all services start at once, and are restarted until they find one another",
        );
    }
}

/// What the model demands, told at the field it comes from.
fn verdict(object: &types::Object, entry: &Entry, at: At<'_>, report: &mut Report) {
    let Err(BadObject { path, why }) = check::verdict(object) else { return };
    const FIELDS: [(&str, &str); 6] = [
        ("image", "image"),
        ("limits", "deploy"),
        ("requests", "deploy"),
        ("hostname", "hostname"),
        ("nodeSelector", "deploy"),
        ("terminationGraceS", "stop_grace_period"),
    ];
    let field = FIELDS.iter().find(|(ours, _)| path.contains(ours)).map(|(_, theirs)| *theirs);
    match field.and_then(|field| entry.node.get(field).map(|node| (field, node.pos))) {
        Some((field, pos)) => report.error(pos, at.field(field), why),
        None => report.error(entry.pos, at, format!("{path}: {why}")),
    }
}
