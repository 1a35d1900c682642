use crate::{
    columns::{self, Look},
    exit::{Exit, Failure},
    kind::{parse_targets, word_of},
    observe::{is_break, key_of},
    output::{self, Format, Number},
    session::Session,
    table::Table,
};
use std::collections::HashMap;
use strata_client::{Change, ErrorKind, Selection};
use strata_proto::{
    document::is_namespaced,
    types::{Kind, Object},
};

/// Show objects.
///
/// KIND is workload, pod, node, image, event, namespace, template or token, in singular or plural; Kubernetes' names and short names
/// (deployment, deploy, ds, po, no, ns, …) are understood. With -w it goes on showing changes until it is interrupted.
///
/// Examples:
///   ctl get pods
///   ctl get workload web -o json
///   ctl get po -l app=web -o wide -w
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// KIND, KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "KIND [NAME]")]
    pub targets: Vec<String>,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Only objects with these labels
    #[arg(short = 'l', long = "selector", value_parser = parse_labels, value_name = "K=V,…")]
    pub selector: Vec<Labels>,
    /// Go on showing changes
    #[arg(short, long)]
    pub watch: bool,
    /// Also pods that have ended and are still known
    #[arg(long)]
    pub all: bool,
}

/// Labels that must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<(String, String)>);

/// Reads `a=b,c=d`.
pub fn parse_labels(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) if !key.is_empty() && !key.ends_with('!') => {
            Ok((key.to_owned(), value.strip_prefix('=').unwrap_or(value).to_owned()))
        }
        _ => Err(format!("{part:?}: write KEY=VALUE; other comparisons are not understood")),
    };
    text.split(',').map(pair).collect::<Result<_, _>>().map(Labels)
}

/// All pairs of several `-l`.
pub fn merge_labels(selectors: &[Labels]) -> HashMap<String, String> {
    selectors.iter().flat_map(|labels| labels.0.iter().cloned()).collect()
}

impl Args {
    pub fn check(&self) -> Result<(), Failure> {
        let (_, names) = parse_targets(&self.targets)?;
        if !names.is_empty() && !self.selector.is_empty() {
            return Err(Failure::usage("give either names or -l, not both"));
        }
        Ok(())
    }
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let (kind, names) = parse_targets(&args.targets)?;
    if !names.is_empty() && session.all_namespaces && is_namespaced(kind) {
        return Err(Failure::usage("a name means one namespace: use -n, or leave the name out"));
    }
    let labels = merge_labels(&args.selector);
    let number = if names.len() == 1 { Number::One } else { Number::Many };
    let filter =
        Filter { kind, names, labels, ended: args.all, with_namespace: session.all_namespaces && is_namespaced(kind) };
    if args.watch {
        return watch(&filter, args.output, session).await;
    }
    let mut objects = filter.fetch(session).await?;
    sort(&mut objects);
    if objects.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        output::talk(&nothing_found(kind, session));
        return Ok(());
    }
    output::print(&output::render(kind, &objects, number, args.output, filter.with_namespace, output::now_ms())?)
}

/// Which objects are shown.
struct Filter {
    kind: Kind,
    /// Empty: all.
    names: Vec<String>,
    labels: HashMap<String, String>,
    ended: bool,
    with_namespace: bool,
}

impl Filter {
    async fn fetch(&self, session: &Session) -> Result<Vec<Object>, Failure> {
        if self.names.is_empty() {
            return Ok(session.client.list(self.kind, &self.selection(session)).await?.objects);
        }
        let mut objects = Vec::new();
        for name in &self.names {
            objects.push(session.client.get(self.kind, session.namespace_of(self.kind), name).await?);
        }
        Ok(objects)
    }

    fn selection(&self, session: &Session) -> Selection {
        Selection {
            namespace: session.namespace_to_list(self.kind).to_owned(),
            labels: self.labels.clone(),
            ended: self.ended || !self.names.is_empty(),
        }
    }

    fn fits(&self, object: &Object) -> bool {
        let Some(meta) = &object.meta else { return false };
        (self.names.is_empty() || self.names.contains(&meta.name))
            && self.labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value))
    }
}

/// Shows the objects, then every change. After a break it lists again and shows what it finds.
async fn watch(filter: &Filter, format: Format, session: &Session) -> Result<(), Failure> {
    let look = Look { wide: format == Format::Wide, with_namespace: filter.with_namespace };
    let mut table = Table::new(columns::headers(filter.kind, look));
    let mut revisions: HashMap<(String, String), u64> = HashMap::new();
    loop {
        let listing = session.client.list(filter.kind, &filter.selection(session)).await?;
        let mut objects: Vec<Object> = listing.objects.into_iter().filter(|object| filter.fits(object)).collect();
        sort(&mut objects);
        // After a break only what has changed since is news.
        objects.retain(|object| {
            let revision = object.meta.as_ref().map_or(0, |meta| meta.revision);
            revisions.insert(key_of(object), revision).is_none_or(|seen| seen < revision)
        });
        output::print(&portion(&mut table, &objects, format, look, false)?)?;
        let namespace = session.namespace_to_list(filter.kind);
        let mut changes = match session.client.watch(filter.kind, namespace, listing.revision).await {
            Ok(changes) => changes,
            Err(error) if error.kind == ErrorKind::Compacted => continue,
            Err(error) => return Err(error.into()),
        };
        let broken = loop {
            match changes.next().await {
                Ok(Change { object, deleted, .. }) if filter.fits(&object) => {
                    let revision = object.meta.as_ref().map_or(0, |meta| meta.revision);
                    revisions.insert(key_of(&object), revision);
                    output::print(&portion(&mut table, &[object], format, look, deleted)?)?;
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        if !is_break(&broken) {
            return Err(broken.into());
        }
        output::talk(&format!("ctl: {broken}; listing again"));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// The text of some of the objects of a watch: rows, documents of one line each, or names.
fn portion(
    table: &mut Table,
    objects: &[Object],
    format: Format,
    look: Look,
    deleted: bool,
) -> Result<String, Failure> {
    let now_ms = output::now_ms();
    match format {
        Format::Table | Format::Wide => {
            let mut rows: Vec<_> = objects.iter().map(|object| columns::row(object, look, now_ms)).collect();
            if deleted {
                // The last row of an object says so in place of what it was last.
                rows.iter_mut().for_each(|row| row.push("(deleted)".into()));
            }
            Ok(table.render(&rows))
        }
        Format::Json => objects
            .iter()
            .map(|object| {
                let mut document = output::document(object)?;
                if deleted {
                    document["deleted"] = true.into();
                }
                Ok(format!("{document}\n"))
            })
            .collect(),
        Format::Yaml => objects
            .iter()
            .map(|object| {
                let text = output::render(
                    object.kind_of(),
                    std::slice::from_ref(object),
                    Number::One,
                    Format::Yaml,
                    false,
                    now_ms,
                )?;
                Ok(format!("---\n{text}"))
            })
            .collect(),
        Format::Name => Ok(objects.iter().map(|object| output::name_line(object) + "\n").collect()),
    }
}

fn nothing_found(kind: Kind, session: &Session) -> String {
    if is_namespaced(kind) && !session.all_namespaces {
        format!("no {}s in namespace {}", word_of(kind), session.namespace)
    } else {
        format!("no {}s", word_of(kind))
    }
}

/// By namespace, then by name with numbers in their natural order; events by time.
pub fn sort(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| {
        let (namespace, name) = key_of(object);
        let last_ms = match &object.kind {
            Some(strata_proto::types::object::Kind::Event(event)) => {
                strata_proto::timestamp_ms(event.spec.as_ref().and_then(|spec| spec.last.as_ref()))
            }
            _ => 0,
        };
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let number: u64 = name[stem.len()..].parse().unwrap_or(0);
        (last_ms, namespace, stem, number, name)
    });
}

/// The error of a verb that needs at least one name.
pub fn name_needed(kind: Kind) -> Failure {
    Failure::new(Exit::Usage, format!("which {}? give its NAME", word_of(kind)))
}
