//! The words people have for kinds, and names in the form KIND/NAME.

use crate::exit::Failure;
use strata_model::ImageName;
use strata_proto::{document::is_namespaced, types::Kind};

/// Kind and its words; the first is ours, the second its plural, the rest Kubernetes' names and short names.
const WORDS: &[(Kind, &[&str])] = &[
    (
        Kind::Workload,
        &[
            "workload",
            "workloads",
            "wl",
            "deployment",
            "deployments",
            "deploy",
            "daemonset",
            "daemonsets",
            "ds",
            "statefulset",
            "statefulsets",
            "sts",
            "job",
            "jobs",
            "cronjob",
            "cronjobs",
            "cj",
        ],
    ),
    (Kind::Pod, &["pod", "pods", "po"]),
    (Kind::Node, &["node", "nodes", "no"]),
    (Kind::Image, &["image", "images", "img"]),
    (Kind::Event, &["event", "events", "ev"]),
    (Kind::Namespace, &["namespace", "namespaces", "ns"]),
    (Kind::Template, &["template", "templates", "tpl"]),
    (Kind::Token, &["token", "tokens"]),
    (Kind::Service, &["service", "services", "svc"]),
    (Kind::Volume, &["volume", "volumes", "vol", "persistentvolumeclaim", "persistentvolumeclaims", "pvc"]),
    (Kind::Config, &["config", "configs", "configmap", "configmaps", "cm"]),
    (Kind::Secret, &["secret", "secrets"]),
];

/// Understands a kind in singular, plural, Kubernetes name or short name, in any case.
pub fn parse_kind(word: &str) -> Result<Kind, String> {
    let lower = word.to_lowercase();
    WORDS.iter().find(|(_, words)| words.contains(&lower.as_str())).map(|(kind, _)| *kind).ok_or_else(|| {
        let known: Vec<&str> = WORDS.iter().filter_map(|(_, words)| words.first().copied()).collect();
        format!("there is no kind {word:?}; there are: {}", known.join(", "))
    })
}

/// Our word for a kind.
pub fn word_of(kind: Kind) -> &'static str {
    WORDS.iter().find(|(k, _)| *k == kind).and_then(|(_, words)| words.first().copied()).unwrap_or("object")
}

/// The namespace to ask for objects of this kind in: "" if they live in none.
pub fn namespace_for(kind: Kind, namespace: &str) -> &str {
    if is_namespaced(kind) { namespace } else { "" }
}

/// The name an object is stored under: images are known by their normalised reference.
pub fn stored_name(kind: Kind, name: &str) -> Result<String, Failure> {
    match kind {
        Kind::Image => {
            ImageName::parse(name).map(|name| name.to_string()).map_err(|error| Failure::usage(error.to_string()))
        }
        _ => Ok(name.to_owned()),
    }
}

/// `KIND`, `KIND NAME…` or `KIND/NAME…`, as get, describe, delete and wait take them: the kind and the stored names, none for "all".
pub fn parse_targets(words: &[String]) -> Result<(Kind, Vec<String>), Failure> {
    let (first, rest) = words.split_first().ok_or_else(|| Failure::usage("a KIND is needed"))?;
    let Some((kind, name)) = first.split_once('/') else {
        let kind = parse_kind(first).map_err(Failure::usage)?;
        return Ok((kind, rest.iter().map(|name| stored_name(kind, name)).collect::<Result<_, _>>()?));
    };
    let kind = parse_kind(kind).map_err(Failure::usage)?;
    let mut names = vec![stored_name(kind, name)?];
    for word in rest {
        match word.split_once('/') {
            Some((other, name)) if parse_kind(other) == Ok(kind) => names.push(stored_name(kind, name)?),
            _ => return Err(Failure::usage(format!("{word:?}: give every target as {}/NAME", word_of(kind)))),
        }
    }
    Ok((kind, names))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_usual_word_is_understood() {
        for (words, kind) in [
            ("workload Workloads deployment deployments deploy daemonset ds DS", Kind::Workload),
            ("pod pods po Pod", Kind::Pod),
            ("node nodes no", Kind::Node),
            ("image images img", Kind::Image),
            ("event events ev", Kind::Event),
            ("namespace namespaces ns", Kind::Namespace),
        ] {
            for word in words.split(' ') {
                assert_eq!(parse_kind(word), Ok(kind), "{word}");
            }
        }
        let message = parse_kind("pood").unwrap_err();
        assert!(message.contains("pood") && message.contains("workload"), "{message}");
    }

    #[test]
    fn targets_come_in_two_forms() {
        let parse = |text: &str| parse_targets(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("po").unwrap(), (Kind::Pod, vec![]));
        assert_eq!(parse("po a b").unwrap(), (Kind::Pod, vec!["a".into(), "b".into()]));
        assert_eq!(parse("deploy/web wl/api").unwrap(), (Kind::Workload, vec!["web".into(), "api".into()]));
        assert_eq!(parse("image a/b:1").unwrap().1, ["docker.io/a/b:1"]);
        assert_eq!(parse("img/a/b:1").unwrap().1, ["docker.io/a/b:1"]);
        for bad in ["", "x", "pod/a b", "pod/a node/b", "image A"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
