//! Every file below tests/data against its snapshot: objects and warnings of the good ones, errors of the bad ones.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fmt::Write as _, fs, path::PathBuf};

use strata_manifest::{Parsed, parse, parse_bytes};
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
        assert_eq!((parsed.documents.len(), parsed.warnings.len()), (1, 0), "{file}: {:?}", parsed.warnings);
        document::to_json(&parsed.documents[0].object).unwrap()
    };
    let (kubernetes, ours) = (one("hello.yaml"), one("workload.yaml"));
    assert_eq!(kubernetes["spec"], ours["spec"]);
    assert_eq!(kubernetes["meta"]["name"], ours["meta"]["name"]);
}

#[test]
fn what_ctl_prints_can_be_applied_again() {
    let text = fs::read_to_string(format!("{}/tests/data/good/strata.yaml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for d in parse("a", &text).unwrap().documents {
        let printed = document::to_json(&d.object).unwrap();
        let again = parse("b", &printed.to_string()).unwrap();
        assert_eq!(document::to_json(&again.documents[0].object).unwrap(), printed);
        assert!(again.warnings.iter().all(|w| w.path == "status"), "{:?}", again.warnings);
    }
}
