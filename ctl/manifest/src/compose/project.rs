//! What the services of a file share: its name, variables, volumes, configs, secrets, networks.

use std::collections::HashMap;

use super::{
    dotenv, names, network,
    stored::{self, Stored},
    variables::Variables,
};
use crate::{
    Document,
    around::Surroundings,
    at::At,
    read::Fields,
    report::Report,
    scalar::cut,
    tree::{Node, Value},
};

/// A Compose project.
pub(crate) struct Project<'n, 'w> {
    pub(crate) name: String,
    pub(crate) around: &'w dyn Surroundings,
    pub(crate) variables: Variables<'w>,
    /// The names of all services, also of those whose profile is not asked for.
    pub(crate) services: Vec<&'n str>,
    /// The names of those that others wait for to end.
    pub(crate) one_shots: Vec<String>,
    pub(crate) networks: Vec<&'n str>,
    /// Objects of `volumes`, by their names in the file.
    pub(crate) volumes: HashMap<&'n str, Stored>,
    pub(crate) configs: HashMap<&'n str, Stored>,
    pub(crate) secrets: HashMap<&'n str, Stored>,
    /// The profiles that are asked for.
    pub(crate) profiles: Vec<String>,
}

/// The variables around a file, with its `.env`.
pub(crate) fn variables<'w>(root: &Node, around: &'w dyn Surroundings, report: &mut Report) -> Option<Variables<'w>> {
    let mut complain = |why: String| {
        report.error(root.pos, At::ROOT, format!(".env: {why}"));
        None
    };
    let empty = || Variables::new(around, HashMap::new());
    match around.read(".env") {
        Ok(None) => Some(empty()),
        Ok(Some(bytes)) => match String::from_utf8(bytes).map(|text| dotenv::parse(&text, Some(&empty()))) {
            Ok(Ok(pairs)) => Some(Variables::new(around, pairs.into_iter().collect())),
            Ok(Err((line, why))) => complain(format!("line {line}: {why}")),
            Err(_) => complain("is not UTF-8".to_owned()),
        },
        Err(why) => complain(why),
    }
}

impl<'n, 'w> Project<'n, 'w> {
    /// Reads all but the services.
    pub(crate) fn read(
        top: &Fields<'n, '_>,
        around: &'w dyn Surroundings,
        variables: Variables<'w>,
        report: &mut Report,
    ) -> Option<Self> {
        let name = name(top, around, &variables, report)?;
        let services = top.get("services");
        let keys = |node: Option<&'n Node>| -> Vec<&'n str> {
            match node.map(|n| &n.value) {
                Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
                _ => Vec::new(),
            }
        };
        let mut profiles = around.profiles().to_vec();
        profiles
            .extend(variables.get("COMPOSE_PROFILES").iter().flat_map(|p| p.split(',')).map(|p| p.trim().to_owned()));
        let mut project = Self {
            around,
            services: keys(services),
            one_shots: services.map(one_shots).unwrap_or_default(),
            networks: network::top(top, report),
            volumes: HashMap::new(),
            configs: HashMap::new(),
            secrets: HashMap::new(),
            profiles,
            variables,
            name,
        };
        project.volumes = stored::volumes(top, &project, report);
        project.configs = stored::configs(top, &project, report);
        project.secrets = stored::secrets(top, &project, report);
        Some(project)
    }

    /// The objects of volumes, configs and secrets.
    pub(crate) fn stored(&self, _: &mut Report, documents: &mut Vec<Document>) {
        let mut all: Vec<&Document> = Vec::new();
        for map in [&self.volumes, &self.configs, &self.secrets] {
            all.extend(map.values().filter_map(|s| s.document.as_ref()));
        }
        all.sort_by_key(|d| d.pos);
        documents.extend(all.into_iter().cloned());
    }

    /// The name of an object that belongs to the project.
    pub(crate) fn object_name(&self, name: &str) -> String {
        names::dns(&format!("{}-{name}", self.name))
    }

    /// Labels of everything that the project makes.
    pub(crate) fn labels(&self) -> HashMap<String, String> {
        [(names::PROJECT.to_owned(), self.name.clone())].into()
    }
}

/// `COMPOSE_PROJECT_NAME`, else `name`, else the directory's name.
fn name(
    top: &Fields<'_, '_>,
    around: &dyn Surroundings,
    variables: &Variables<'_>,
    report: &mut Report,
) -> Option<String> {
    let given = variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
    let given = given.or_else(|| top.text("name", report));
    let name = given.unwrap_or_else(|| {
        let directory = around.directory().and_then(|d| d.trim_end_matches('/').rsplit('/').next());
        let name = names::project(directory.unwrap_or_default());
        if name.is_empty() { "compose".to_owned() } else { name }
    });
    if names::is_project(&name) {
        return Some(name);
    }
    let pos = top.get("name").map_or(top.pos(), |n| n.pos);
    let message = format!(
        "{:?} is no name for a project: at most 40 of a-z, 0-9, '-' and '_', the first and the last a letter or digit",
        cut(&name)
    );
    report.error(pos, top.at().field("name"), message);
    None
}

/// The services that another waits for with `condition: service_completed_successfully`: they are to end.
fn one_shots(services: &Node) -> Vec<String> {
    let Value::Map(services) = &services.value else { return Vec::new() };
    let mut found = Vec::new();
    for depends in services.iter().filter_map(|s| s.node.get("depends_on")) {
        let Value::Map(entries) = &depends.value else { continue };
        let ends = |node: &Node| node.get("condition").and_then(Node::scalar) == Some("service_completed_successfully");
        found.extend(entries.iter().filter(|e| ends(&e.node)).map(|e| e.key.clone()));
    }
    found
}
