//! The environment of a container: from the template, from configs and secrets, from the pod's own record. Pure.
//!
//! Order, as in Kubernetes: every `env_from`, then `env`; a later one replaces an earlier one. In values, commands and arguments
//! `$(NAME)` stands for a variable that comes from a config, secret or field and was defined before; what is known at apply time,
//! `ctl` has replaced already.

use crate::world::PodSpec;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};
use strata_model::{Container, EnvSource, Field, Material, MaterialKind};

/// What a pod can know of where it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Whereabouts {
    pub node: String,
    pub host_address: Option<IpAddr>,
    pub pod_address: Option<IpAddr>,
}

/// A container's variables, and its command and arguments with them put in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub variables: Vec<(String, String)>,
    pub command: Vec<String>,
    pub args: Vec<String>,
}

/// Puts it together. The error is a sentence that says what is missing; it never has a value in it.
pub(super) fn environment(pod: &PodSpec, c: &Container, here: &Whereabouts) -> Result<Environment, String> {
    let mut env = Environment::default();
    // Those whose value only the node knows.
    let mut known: HashMap<String, String> = HashMap::new();
    for all in &c.env_from {
        let Some(content) = content(pod, all.kind, &all.name, all.optional)? else { continue };
        for (key, value) in content {
            // What is no text cannot be a variable; files have it.
            let Some(value) = text(value) else { continue };
            let name = format!("{}{key}", all.prefix);
            known.insert(name.clone(), value.to_owned());
            env.variables.push((name, value.to_owned()));
        }
    }
    for variable in &c.env {
        let name = variable.name.clone();
        let value = match &variable.source {
            EnvSource::Value(value) => {
                let value = expand(value, &known);
                known.remove(&name);
                env.variables.push((name, value));
                continue;
            }
            EnvSource::Field(field) => of_field(pod, field, here)?,
            EnvSource::Key(kind, key) => {
                let value = content(pod, *kind, &key.name, key.optional)?.and_then(|c| c.get(&key.key));
                match value {
                    Some(value) => text(value).map(str::to_owned).ok_or_else(|| {
                        let word = kind.word();
                        format!("variable {name}: key {} of {word} {} is no text: use it as a file", key.key, key.name)
                    })?,
                    None if key.optional => continue,
                    None => {
                        return Err(format!("variable {name}: {} {} has no key {}", kind.word(), key.name, key.key));
                    }
                }
            }
        };
        known.insert(name.clone(), value.clone());
        env.variables.push((name, value));
    }
    env.command = c.command.iter().map(|word| expand(word, &known)).collect();
    env.args = c.args.iter().map(|word| expand(word, &known)).collect();
    Ok(env)
}

/// The keys of a config or secret that the template names; `None` if it is optional and was not there.
pub(super) fn content<'a>(
    pod: &'a PodSpec,
    kind: MaterialKind,
    name: &str,
    optional: bool,
) -> Result<Option<&'a BTreeMap<String, Vec<u8>>>, String> {
    let found = pod.template.materials.iter().find(|m: &&Material| m.kind == kind && m.name == name);
    match found.and_then(|m| m.content.as_ref()) {
        Some(content) => Ok(Some(content)),
        None if optional => Ok(None),
        None => Err(format!("the pod's template came without {} {name}", kind.word())),
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|t| !t.contains('\0'))
}

fn of_field(pod: &PodSpec, field: &Field, here: &Whereabouts) -> Result<String, String> {
    let address = |of: &str, address: Option<IpAddr>| {
        address.map(|a| a.to_string()).ok_or_else(|| format!("the {of}'s address is not known on this node yet"))
    };
    let template = &pod.template.pod;
    Ok(match field {
        Field::Name => pod.name.name.clone(),
        Field::Namespace => pod.name.namespace.clone(),
        Field::Uid => pod.uid.to_string(),
        Field::Label(key) => template.labels.get(key).cloned().unwrap_or_default(),
        Field::Annotation(key) => template.annotations.get(key).cloned().unwrap_or_default(),
        Field::NodeName => here.node.clone(),
        Field::PodIp => address("pod", here.pod_address)?,
        Field::HostIp => address("node", here.host_address)?,
    })
}

/// Replaces references to known names; all else stays as it is written.
fn expand(text: &str, known: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from[2..].find([')', '(', '$']).map(|end| end + 2);
        match end.filter(|end| from[*end..].starts_with(')')).and_then(|end| Some((end, known.get(&from[2..end])?))) {
            Some((end, value)) => {
                out.push_str(value);
                rest = &from[end + 1..];
            }
            None => {
                out.push_str("$(");
                rest = &from[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use strata_model::{ObjectName, Template, Uid};
    use strata_proto::types::{self, env_from, env_var};

    fn pod(container: types::Container) -> PodSpec {
        let material = |kind: types::Kind, name: &str, data: &[(&str, &[u8])]| types::Material {
            kind: kind.into(),
            name: name.into(),
            sha256: "x".into(),
            data: data.iter().map(|(k, v)| ((*k).to_owned(), v.to_vec())).collect(),
            sealed: vec![],
        };
        let spec = types::TemplateSpec {
            pod: Some(types::PodTemplate {
                containers: vec![types::Container { name: "c".into(), image: "a".into(), ..container }],
                labels: [("app".to_owned(), "web".to_owned())].into(),
                ..Default::default()
            }),
            materials: vec![
                material(types::Kind::Config, "cfg", &[("HOST", b"redis"), ("PORT", b"6379"), ("BIN", &[0xff])]),
                material(types::Kind::Secret, "db", &[("password", b"hunter2")]),
                types::Material { kind: types::Kind::Secret.into(), name: "gone".into(), ..Default::default() },
            ],
            ..Default::default()
        };
        let template: Template = spec.template("r").unwrap();
        PodSpec {
            uid: Uid::from_trusted("u-1"),
            name: ObjectName::new("default", "web-0"),
            dir: "/x".into(),
            template: Arc::new(template),
            address_index: 2,
            attempt: 0,
        }
    }

    fn resolve(container: types::Container) -> Result<Environment, String> {
        let pod = pod(container);
        let here = Whereabouts { node: "node-1".into(), pod_address: "10.64.0.2".parse().ok(), host_address: None };
        environment(&pod, &pod.template.pod.containers[0], &here)
    }

    fn key(name: &str, key: &str, optional: bool) -> types::KeyRef {
        types::KeyRef { name: name.into(), key: key.into(), optional }
    }

    fn var(name: &str, value: &str, from: Option<env_var::From>) -> types::EnvVar {
        types::EnvVar { name: name.into(), value: value.into(), from }
    }

    #[test]
    fn variables_come_in_order_from_everywhere() {
        let all = env_from::From::Config("cfg".into());
        let container = types::Container {
            env_from: vec![
                types::EnvFrom { prefix: "R_".into(), from: Some(all), optional: false },
                types::EnvFrom {
                    prefix: String::new(),
                    from: Some(env_from::From::Secret("gone".into())),
                    optional: true,
                },
            ],
            env: vec![
                var("PASSWORD", "", Some(env_var::From::Secret(key("db", "password", false)))),
                var("NAME", "", Some(env_var::From::Field("metadata.name".into()))),
                var("APP", "", Some(env_var::From::Field("metadata.labels['app']".into()))),
                var("IP", "", Some(env_var::From::Field("status.podIP".into()))),
                var("NONE", "", Some(env_var::From::Secret(key("gone", "x", true)))),
                var("URL", "redis://:$(PASSWORD)@$(R_HOST):$(R_PORT)/$(OTHER)$(LATER)", None),
                var("LATER", "", Some(env_var::From::Field("spec.nodeName".into()))),
            ],
            command: vec!["run".into(), "--name=$(NAME)".into(), "$(".into()],
            args: vec!["$(LATER)".into()],
            ..Default::default()
        };
        let env = resolve(container).unwrap();
        let pairs: Vec<(&str, &str)> = env.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("R_HOST", "redis"),
                ("R_PORT", "6379"),
                ("PASSWORD", "hunter2"),
                ("NAME", "web-0"),
                ("APP", "web"),
                ("IP", "10.64.0.2"),
                ("URL", "redis://:hunter2@redis:6379/$(OTHER)$(LATER)"),
                ("LATER", "node-1"),
            ]
        );
        assert_eq!(
            (env.command[1].as_str(), env.command[2].as_str(), env.args[0].as_str()),
            ("--name=web-0", "$(", "node-1")
        );
    }

    #[test]
    fn what_is_missing_is_named_without_its_value() {
        let one = |from| resolve(types::Container { env: vec![var("V", "", Some(from))], ..Default::default() });
        for (from, words) in [
            (env_var::From::Secret(key("db", "user", false)), "variable V: secret db has no key user"),
            (env_var::From::Secret(key("gone", "x", false)), "came without secret gone"),
            (env_var::From::Config(key("cfg", "BIN", false)), "no text: use it as a file"),
            (env_var::From::Field("status.hostIP".into()), "node's address"),
        ] {
            let error = one(from).unwrap_err();
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }
}
