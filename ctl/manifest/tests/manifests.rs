//! Every file below tests/data against its snapshot: objects and warnings of the good ones, errors of the bad ones.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fmt::Write as _, fs, path::PathBuf};

use strata_manifest::{Parsed, Surroundings, parse, parse_bytes, parse_in};
use strata_proto::document;

fn files(kind: &str) -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(kind);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn show(parsed: &Parsed) -> String {
    let mut out = String::new();
    for warning in &parsed.warnings {
        writeln!(out, "warning: {warning}").unwrap();
    }
    for d in &parsed.documents {
        let json = serde_json::to_string_pretty(&document::to_json(&d.object).unwrap()).unwrap();
        writeln!(out, "--- line {}\n{json}", d.pos.line).unwrap();
        if let Some(build) = &d.build {
            writeln!(out, "{build:#?}").unwrap();
        }
    }
    out
}

#[test]
fn good_manifests_become_objects_and_warnings() {
    for file in files("good") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let parsed = parse_bytes(name, &fs::read(&file).unwrap());
        let parsed = parsed.unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
        insta::assert_snapshot!(format!("good_{name}"), show(&parsed));
    }
}

#[test]
fn bad_manifests_are_refused_with_every_place_named() {
    for file in files("bad") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let Err(errors) = parse_bytes(name, &fs::read(&file).unwrap()) else { panic!("{name} was accepted") };
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(format!("bad_{name}"), lines.join("\n"));
    }
}

#[test]
fn the_examples_of_the_deploy_room_are_good_and_the_same_in_both_dialects() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let one = |file: &str| {
        let parsed = parse(file, &fs::read_to_string(examples.join(file)).unwrap()).unwrap();
        assert_eq!((parsed.documents.len(), parsed.warnings.len()), (2, 0), "{file}: {:?}", parsed.warnings);
        parsed.documents.iter().map(|d| document::to_json(&d.object).unwrap()).collect::<Vec<_>>()
    };
    for (kubernetes, ours) in one("hello.yaml").iter().zip(&one("workload.yaml")) {
        assert_eq!((&kubernetes["kind"], &kubernetes["spec"]), (&ours["kind"], &ours["spec"]));
        assert_eq!(kubernetes["meta"]["name"], ours["meta"]["name"]);
    }
}

#[test]
fn the_examples_of_every_kind_and_the_guestbook_are_good() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    for file in ["kinds.yaml", "guestbook/kubernetes/redis.yaml", "guestbook/kubernetes/web.yaml"] {
        let parsed = parse(file, &fs::read_to_string(examples.join(file)).unwrap());
        let parsed = parsed.unwrap_or_else(|errors| panic!("{file}: {errors:#?}"));
        assert!(parsed.warnings.is_empty(), "{file}: {:?}", parsed.warnings);
    }
    let bytes = fs::read(examples.join("guestbook/compose.yaml")).unwrap();
    let around = Directory { real: examples.join("guestbook"), profiles: Vec::new() };
    let parsed = parse_in("compose.yaml", &bytes, &around).unwrap();
    let said: Vec<&str> = parsed.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(said, ["services.web.depends_on"]);
    assert_eq!(parsed.documents.iter().filter(|d| d.build.is_some()).count(), 2);
}

#[test]
fn what_ctl_prints_can_be_applied_again() {
    let read = |file: &str| fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let text = read("tests/data/good/strata.yaml") + "---\n" + &read("tests/data/good/strata_kinds.yaml");
    for d in parse("a", &text).unwrap().documents {
        let printed = document::to_json(&d.object).unwrap();
        let again = parse("b", &printed.to_string()).unwrap();
        assert_eq!(document::to_json(&again.documents[0].object).unwrap(), printed);
        assert!(again.warnings.iter().all(|w| w.path == "status"), "{:?}", again.warnings);
    }
}

/// The directory of one Compose project, with a few variables.
struct Directory {
    real: PathBuf,
    profiles: Vec<String>,
}

impl Surroundings for Directory {
    fn variable(&self, name: &str) -> Option<String> {
        let known = [("HOME", "/home/me"), ("EMPTY", ""), ("TAG", "1.2"), ("FROM_ENV", "e"), ("TOKEN", "t0ken")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(fs::read(self.real.join(path)).ok())
    }

    fn directory(&self) -> Option<&str> {
        Some("/srv/My Project")
    }

    fn profiles(&self) -> &[String] {
        &self.profiles
    }
}

/// A Compose project below tests/data/compose.
fn compose(kind: &str, project: &str, profiles: &[&str]) -> Result<Parsed, String> {
    let real = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/compose").join(kind).join(project);
    let file = ["compose.yaml", "docker-compose.yml"].into_iter().find(|file| real.join(file).exists()).unwrap();
    let bytes = fs::read(real.join(file)).unwrap();
    let around = Directory { real, profiles: profiles.iter().map(|p| (*p).to_owned()).collect() };
    parse_in(file, &bytes, &around)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn compose_files_become_workloads_services_and_what_they_use() {
    for project in ["voting", "shop", "full"] {
        let parsed = compose("good", project, &[]).unwrap_or_else(|errors| panic!("{project}: {errors}"));
        insta::assert_snapshot!(format!("compose_good_{project}"), show(&parsed));
    }
    let names = |profiles: &[&str]| -> Vec<String> {
        let documents = compose("good", "voting", profiles).unwrap().documents;
        documents.into_iter().map(|d| d.object.meta.unwrap().name).collect()
    };
    assert!(!names(&[]).contains(&"seed".to_owned()));
    assert!(names(&["seed"]).contains(&"seed".to_owned()));
    assert!(names(&["*"]).contains(&"seed".to_owned()));
}

#[test]
fn bad_compose_files_are_refused_with_every_place_named() {
    for project in ["misspelt", "not_yet", "wrong"] {
        let errors = compose("bad", project, &[]).map(|_| ()).expect_err(project);
        insta::assert_snapshot!(format!("compose_bad_{project}"), errors);
    }
}

#[test]
fn no_message_shows_a_secret() {
    for (text, hidden) in [
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 'hunter2!'}\nstringData: {pin: 5252, b: [hunter2]}\n",
            "hunter2",
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {pin: 5252}\n", "5252"),
        ("kind: Secret\nmeta: {name: s}\nspec: {data: {a: 'hunter2!'}}\n", "hunter2"),
        ("kind: Secret\nmeta: {name: s}\nspec: {stringData: {pin: 5252}}\n", "5252"),
    ] {
        let errors = parse("x", text).map(|_| ()).unwrap_err();
        assert!(errors.iter().all(|e| !e.to_string().contains(hidden)), "{errors:?}");
    }
}
