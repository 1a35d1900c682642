#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::types::{Container, PodTemplate, VolumeMount, volume_source::Source};

fn check(template: &PodTemplate) -> Result<strata_model::PodTemplate, String> {
    strata_model::PodTemplate::try_from(template).map_err(|e| e.to_string())
}

fn template(volumes: Vec<wire::VolumeSource>, mounts: Vec<VolumeMount>) -> PodTemplate {
    let container = Container { name: "c".into(), image: "a".into(), mounts, ..Container::default() };
    PodTemplate { containers: vec![container], volumes, ..PodTemplate::default() }
}

fn scratch(name: &str) -> wire::VolumeSource {
    wire::VolumeSource { name: name.into(), source: Some(Source::Scratch(wire::Scratch::default())) }
}

fn at(volume: &str, path: &str, sub_path: &str) -> VolumeMount {
    VolumeMount { volume: volume.into(), path: path.into(), sub_path: sub_path.into(), read_only: false }
}

#[test]
fn mounts_are_normal_distinct_and_of_a_volume() {
    let good =
        check(&template(vec![scratch("a")], vec![at("a", "//data/./x/", "s/t/"), at("a", "/data", "")])).unwrap();
    let mounts = &good.containers[0].mounts;
    assert_eq!((mounts[0].path.as_str(), mounts[0].sub_path.as_str()), ("/data/x", "s/t"));
    for (mount, words) in [
        (at("b", "/data", ""), "containers[0].mounts[0].volume: the pod has no volume \"b\"; it has: a"),
        (at("a", "data", ""), "absolute"),
        (at("a", "/x/../etc", ""), "without '..'"),
        (at("a", "/", ""), "root"),
        (at("a", "/proc/x", ""), "/proc"),
        (at("a", "/dev", ""), "below it"),
        (at("a", "/d", "../x"), "containers[0].mounts[0].subPath"),
        (at("a", "/d", "/x"), "relative"),
        (at("a", "/d", "x//y"), "relative"),
    ] {
        let error = check(&template(vec![scratch("a")], vec![mount])).unwrap_err();
        assert!(error.contains(words), "{error} lacks {words}");
    }
    let twice = check(&template(vec![scratch("a")], vec![at("a", "/d", ""), at("a", "/d/", "")])).unwrap_err();
    assert!(twice.contains("mounts[1].path: two mounts are at /d"), "{twice}");
    let twins = check(&template(vec![scratch("a"), scratch("a")], vec![])).unwrap_err();
    assert!(twins.contains("volumes[1].name"), "{twins}");
    let many = (0..=limits::MOUNTS_MAX).map(|i| at("a", &format!("/d/{i}"), "")).collect();
    assert!(check(&template(vec![scratch("a")], many)).unwrap_err().contains("at most"));
}

#[test]
fn files_stay_below_their_volume() {
    let files = |items: Vec<wire::FileItem>, mode| {
        let files = wire::Files { name: "cfg".into(), items, mode, optional: false };
        check(&template(vec![wire::VolumeSource { name: "f".into(), source: Some(Source::Config(files)) }], vec![]))
    };
    let item = |key: &str, path: &str, mode| wire::FileItem { key: key.into(), path: path.into(), mode };
    let good = files(vec![item("a", "x/a.conf", 0), item("b", "b", 0o600)], 0o640).unwrap();
    let VolumeSource::Files(f) = &good.volumes[0].source else { panic!() };
    assert_eq!([f.items[0].mode, f.items[1].mode, f.mode], [0o640, 0o600, 0o640]);
    let VolumeSource::Files(f) = &files(vec![], 0).unwrap().volumes[0].source.clone() else { panic!() };
    assert_eq!(f.mode, 0o644);
    for (bad, words) in [
        (item("a", "../a", 0), "volumes[0].config.items[0].path"),
        (item("a", "/a", 0), "relative"),
        (item("a/b", "a", 0), "items[0].key"),
        (item("..", "a", 0), "items[0].key"),
        (item("a", "a", 0o4755), "items[0].mode"),
    ] {
        let error = files(vec![bad], 0).unwrap_err();
        assert!(error.contains(words), "{error} lacks {words}");
    }
    assert!(files(vec![item("a", "x", 0), item("b", "x", 0)], 0).unwrap_err().contains("two files"));
}

#[test]
fn environment_names_where_it_comes_from() {
    use wire::env_var::From;
    let env = |name: &str, value: &str, from| {
        let mut t = template(vec![], vec![]);
        t.containers[0].env = vec![wire::EnvVar { name: name.into(), value: value.into(), from }];
        check(&t)
    };
    let key = |name: &str, key: &str| wire::KeyRef { name: name.into(), key: key.into(), optional: true };
    assert!(env("A", "", Some(From::Secret(key("db", "password")))).is_ok());
    for (name, value, from, words) in [
        ("", "x", None, "containers[0].env[0]"),
        ("A=", "x", None, "no '='"),
        ("A", "x", Some(From::Field("metadata.name".into())), "not both"),
        ("A", "", Some(From::Field("status.phase".into())), "env[0].field: \"status.phase\" is none of"),
        ("A", "", Some(From::Config(key("Db", "k"))), "env[0].config.name"),
        ("A", "", Some(From::Config(key("db", "k k"))), "env[0].config.key"),
    ] {
        let error = env(name, value, from).unwrap_err();
        assert!(error.contains(words), "{error} lacks {words}");
    }
}

#[test]
fn data_has_good_keys_and_a_bound() {
    let data = |key: &str, bytes: usize| wire::SecretSpec {
        data: [(key.to_owned(), vec![b'x'; bytes])].into(),
        ..wire::SecretSpec::default()
    };
    assert!(data("tls.crt", (1 << 20) - 7).check().is_ok());
    assert!(data("tls.crt", 1 << 20).check().unwrap_err().to_string().contains("1 MiB"));
    for bad in ["", "a b", "a/b", "..", "ä"] {
        assert!(data(bad, 1).check().is_err(), "{bad:?}");
    }
    let config = wire::ConfigSpec {
        data: [("k".to_owned(), "x".to_owned())].into(),
        binary: [("k".to_owned(), vec![1])].into(),
        ..wire::ConfigSpec::default()
    };
    assert!(config.check().unwrap_err().to_string().contains("in binary"));
}
