//! Sets of objects: `apply --prune`, `diff -f`, and the order of an apply.

use crate::{Ran, fake::Served, run, run_with_stdin};
use strata_proto::types::{Kind, Object};

const TWO: &str = "kind: Workload\nmeta: {name: web}\nspec: {replicas: 3, template: {containers: [{name: main, image: hello}]}}\n---\nkind: Config\nmeta: {name: conf}\nspec: {data: {a: \"1\"}}\n---\nkind: Volume\nmeta: {name: data}\n";
const ONE: &str = "kind: Config\nmeta: {name: conf}\nspec: {data: {a: \"2\"}}\n";

fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out
}

fn there(served: &Served, kind: Kind, name: &str) -> Option<Object> {
    served.fake.get_now(&(kind.into(), "default".into(), name.into()))
}

#[tokio::test]
async fn what_others_need_is_applied_first() {
    let served = Served::start().await;
    let out = ok(run_with_stdin(&served, "apply -f -", TWO).await);
    assert_eq!(out, "config/conf created\nvolume/data created\nworkload/web created\n");
}

#[tokio::test]
async fn prune_deletes_what_the_set_no_longer_has_and_keeps_data() {
    let served = Served::start().await;
    let nameless = run_with_stdin(&served, "apply -f - --prune", ONE).await;
    assert!(nameless.code == 2 && nameless.err.contains("--set NAME"), "{}", nameless.err);
    ok(run_with_stdin(&served, "apply -f - --set shop", TWO).await);
    ok(run_with_stdin(&served, "apply -f - --set other", &TWO.replace("name: web", "name: api")).await);
    ok(run_with_stdin(&served, "apply -f - --set shop", TWO).await);
    let dry = ok(run_with_stdin(&served, "apply -f - --set shop --prune --dry-run=server", ONE).await);
    assert!(dry.contains("workload/web would be pruned"), "{dry}");
    assert!(there(&served, Kind::Workload, "web").is_some());
    let pruned = run_with_stdin(&served, "apply -f - --set shop --prune", ONE).await;
    assert_eq!(pruned.out, "config/conf configured\nworkload/web pruned\n", "{}", pruned.err);
    assert!(pruned.err.contains("volume/data is no longer in the files, but has data"), "{}", pruned.err);
    assert!(there(&served, Kind::Workload, "web").is_none());
    assert!(there(&served, Kind::Workload, "api").is_some(), "of another set");
    assert!(there(&served, Kind::Volume, "data").is_some());
}

#[tokio::test]
async fn a_compose_file_is_a_set_of_its_own_and_its_volumes_outlive_it() {
    let served = Served::start().await;
    let dir = served.path("shop");
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("compose.yaml");
    let text = "services:\n  web: {image: \"web:${TAG}\", secrets: [s], profiles: [x]}\n  db: {image: \"db:1\", volumes: [\"data:/d\"]}\nvolumes: {data: }\nsecrets: {s: {file: s.txt}}\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.join(".env"), "TAG=7\n").unwrap();
    std::fs::write(dir.join("s.txt"), "hunter2").unwrap();
    let path = file.display();
    let out = ok(run(&served, &format!("apply -f {path} --profile x")).await);
    assert_eq!(
        out,
        "secret/shop-s created\nvolume/shop-data created\nservice/web created\nservice/db created\nworkload/web created\nworkload/db created\n"
    );
    let same = run(&served, &format!("diff -f {path} --profile x")).await;
    assert_eq!((same.code, same.out.as_str()), (0, ""), "{}", same.err);
    let out = ok(run(&served, &format!("apply -f {path} --prune")).await);
    assert!(out.contains("workload/web pruned\nservice/web pruned\n"), "{out}");
    let gone = run(&served, &format!("delete -f {path}")).await;
    assert_eq!(gone.out, "workload/db deleted\nservice/db deleted\nsecret/shop-s deleted\n", "{}", gone.err);
    assert!(gone.err.contains("volume/shop-data stays"), "{}", gone.err);
    let gone = run(&served, &format!("delete -f {path} --volumes --ignore-not-found")).await;
    assert_eq!(gone.out, "volume/shop-data deleted\n", "{}", gone.err);
}

#[tokio::test]
async fn diff_shows_what_an_apply_would_change_and_no_secret() {
    let served = Served::start().await;
    let new = run_with_stdin(&served, "diff -f -", ONE).await;
    assert_eq!(new.code, 1, "{}", new.err);
    assert!(
        new.out.starts_with("--- config/conf (present)\n+++ config/conf (after apply)\n@@ -0,0 +1,"),
        "{}",
        new.out
    );
    ok(run_with_stdin(&served, "apply -f -", ONE).await);
    let same = run_with_stdin(&served, "diff -f -", ONE).await;
    assert_eq!((same.code, same.out.as_str()), (0, ""), "{}", same.err);
    let changed = run_with_stdin(&served, "diff -f -", &ONE.replace("\"2\"", "three")).await;
    assert_eq!(changed.code, 1, "{}", changed.err);
    let lines: Vec<&str> = changed.out.lines().filter(|l| l.starts_with(['-', '+'])).skip(2).collect();
    assert!(lines.len() == 2 && lines[0].trim_end().starts_with('-') && lines[1].contains("a: three"), "{lines:?}");
    assert!(there(&served, Kind::Config, "conf").is_some());
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n";
    let shown = run_with_stdin(&served, "diff -f -", secret).await;
    assert!(shown.code == 1 && shown.out.contains("password: (not shown)"), "{}{}", shown.out, shown.err);
    assert!(!shown.out.contains("hunter2") && !shown.out.contains("aHVudGVyMg"), "{}", shown.out);
    let wrong = run_with_stdin(&served, "diff -f -", "kind: Config\nmeta: {nam: x}\n").await;
    assert_eq!(wrong.code, 2, "a failure is told from a difference: {}", wrong.err);
}
