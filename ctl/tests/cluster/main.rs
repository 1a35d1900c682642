//! The binary against a controller in this process: what it prints, where, and with which code it exits.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fake;
mod sets;

use fake::{Served, exited, key_of, set_status_when_watched};
use std::{process::Stdio, time::Duration};
use strata_proto::types::{
    ContainerStatus, Meta, Node, Object, Pod, PodSpec, PodStatus, Workload, WorkloadSpec, WorkloadStatus, object,
    pod_status::Phase,
};
use tokio::{io::AsyncBufReadExt as _, io::AsyncWriteExt as _, io::BufReader, process::Command, time::timeout};

/// No run of the binary may take longer.
const RUN_MAX: Duration = Duration::from_secs(60);

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(served: &Served, user: &str, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctl"));
    command.args(line).env("STRATA_CONFIG", served.path(user)).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn ran(child: tokio::process::Child) -> Ran {
    let output = timeout(RUN_MAX, child.wait_with_output()).await.expect("it must end").unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn run(served: &Served, line: &str) -> Ran {
    ran(command(served, "admin.toml", &line.split(' ').collect::<Vec<_>>()).spawn().unwrap()).await
}

async fn run_with_stdin(served: &Served, line: &str, stdin: &str) -> Ran {
    let mut command = command(served, "admin.toml", &line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(stdin.as_bytes()).await.unwrap();
    drop(pipe);
    ran(child).await
}

fn meta(name: &str) -> Meta {
    Meta { namespace: "default".into(), name: name.into(), ..Default::default() }
}

fn pod(name: &str, phase: Phase) -> Object {
    let status = PodStatus { phase: phase.into(), ready: phase == Phase::Running, ..Default::default() };
    let spec = PodSpec { workload: "web".into(), ..Default::default() };
    Object { meta: Some(meta(name)), kind: Some(object::Kind::Pod(Pod { spec: Some(spec), status: Some(status) })) }
}

fn workload(name: &str) -> Object {
    let spec = WorkloadSpec { replicas: Some(2), ..Default::default() };
    let kind = object::Kind::Workload(Workload { spec: Some(spec), status: Some(WorkloadStatus::default()) });
    Object { meta: Some(meta(name)), kind: Some(kind) }
}

const WEB: &str = "kind: Workload\nmeta: {name: web, annotations: {fake: ready}}\nspec: {replicas: 3, template: {containers: [{name: main, image: hello}]}}\n";

#[tokio::test]
async fn apply_creates_then_configures_and_waits_until_ready() {
    let served = Served::start().await;
    let first = run_with_stdin(&served, "apply -f - --wait --timeout 30s", WEB).await;
    assert_eq!((first.code, first.out.as_str()), (0, "workload/web created\n"), "{}", first.err);
    let again = run_with_stdin(&served, "apply -f -", WEB).await;
    assert_eq!((again.code, again.out.as_str()), (0, "workload/web configured\n"), "{}", again.err);
    let json = run_with_stdin(&served, "apply -f - -o json", WEB).await;
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&document["kind"], &document["meta"]["namespace"]), (&"Workload".into(), &"default".into()));
}

#[tokio::test]
async fn apply_wait_says_why_and_times_out_with_six() {
    let served = Served::start().await;
    let mut stuck = workload("web");
    if let Some(object::Kind::Workload(workload)) = &mut stuck.kind {
        let status = workload.status.get_or_insert_default();
        (status.desired, status.reason, status.message) = (3, "ImageNotFound".into(), "no hello:1".into());
    }
    let child = {
        let path = served.path("web.yaml");
        std::fs::write(&path, WEB.replace("fake: ready", "fake: never")).unwrap();
        command(&served, "admin.toml", &["apply", "-f", path.to_str().unwrap(), "--wait", "--timeout", "2s"])
            .spawn()
            .unwrap()
    };
    while served.fake.watchers() == 0 {
        tokio::task::yield_now().await;
    }
    served.fake.put(stuck);
    let ran = ran(child).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert_eq!(ran.err.matches("waiting: ImageNotFound: no hello:1").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("not ready within 2 s: ImageNotFound"), "{}", ran.err);
}

#[tokio::test]
async fn nothing_is_applied_if_one_file_is_wrong_and_a_directory_is_read_by_name() {
    let served = Served::start().await;
    let dir = served.path("manifests");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("b.yaml"), WEB).unwrap();
    std::fs::write(dir.join("a.yml"), WEB.replace("name: web", "name: api")).unwrap();
    std::fs::write(dir.join("readme.txt"), "no manifest").unwrap();
    let line = format!("apply -f {}", dir.display());
    let ran = run(&served, &line).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "workload/api created\nworkload/web created\n"), "{}", ran.err);
    std::fs::write(dir.join("c.json"), "{\"kind\": \"Workload\", \"mata\": {}}").unwrap();
    let ran = run(&served, &line).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("c.json") && ran.err.contains("mata"), "{}", ran.err);
    // Too big: said at once, whatever is in it.
    std::fs::write(dir.join("c.json"), vec![b' '; 9 << 20]).unwrap();
    let ran = run(&served, &line).await;
    assert!(ran.code == 1 && ran.err.contains("8 MiB"), "{}", ran.err);
}

#[tokio::test]
async fn dry_runs_change_nothing_and_the_clients_needs_no_cluster() {
    let served = Served::start().await;
    let path = served.path("web.yaml");
    std::fs::write(&path, WEB).unwrap();
    let path = path.to_str().unwrap();
    let nobody = command(&served, "missing.toml", &["apply", "--dry-run", "-f", path, "-o", "json"]).spawn().unwrap();
    let nobody = ran(nobody).await;
    assert_eq!(nobody.code, 0, "{}", nobody.err);
    assert!(serde_json::from_str::<serde_json::Value>(&nobody.out).unwrap()["meta"]["name"] == "web");
    let server = run(&served, &format!("apply --dry-run=server -f {path}")).await;
    assert_eq!((server.code, server.out.as_str()), (0, "workload/web would be created (server dry run)\n"));
    assert!(served.fake.get_now(&key_of(&workload("web"))).is_none());
}

#[tokio::test]
async fn get_shows_one_many_or_none() {
    let served = Served::start().await;
    let none = run(&served, "get pods").await;
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("no pods in namespace default"));
    let none = run(&served, "get pods -o json").await;
    assert_eq!((none.out.trim(), none.err.as_str()), ("[]", ""));
    for name in ["web-10", "web-2"] {
        served.fake.put(pod(name, Phase::Running));
    }
    let names = run(&served, "get po -o name").await;
    assert_eq!(names.out, "pod/web-2\npod/web-10\n");
    let one: serde_json::Value = serde_json::from_str(&run(&served, "get pod web-2 -o json").await.out).unwrap();
    assert_eq!((&one["kind"], &one["status"]["phase"]), (&"Pod".into(), &"Running".into()));
    let missing = run(&served, "get pod web-3").await;
    assert_eq!((missing.code, missing.out.as_str()), (3, ""));
    assert!(missing.err.contains("get pod default/web-3"), "{}", missing.err);
    assert_eq!(run(&served, "get pood").await.code, 2);
}

#[tokio::test]
async fn watching_shows_what_is_there_and_then_every_change() {
    let served = Served::start().await;
    served.fake.put(pod("web-0", Phase::Running));
    let mut child = command(&served, "admin.toml", &["get", "pods", "-w", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(RUN_MAX, lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!(next().await["meta"]["name"], "web-0");
    while served.fake.watchers() == 0 {
        tokio::task::yield_now().await;
    }
    let mut node = Object { meta: Some(meta("n")), kind: Some(object::Kind::Node(Node::default())) };
    node.meta.get_or_insert_default().namespace.clear();
    served.fake.put(node);
    served.fake.put(pod("web-1", Phase::Pending));
    assert_eq!(next().await["meta"]["name"], "web-1");
    served.fake.remove(&key_of(&pod("web-0", Phase::Running)));
    let last = next().await;
    assert_eq!((&last["meta"]["name"], &last["deleted"]), (&"web-0".into(), &true.into()));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn errors_exit_with_the_codes_of_the_contract() {
    let served = Served::start().await;
    let as_user = async |user: &str| ran(command(&served, user, &["get", "pods"]).spawn().unwrap()).await;
    let node = as_user("node.toml").await;
    assert!(node.code == 7 && node.err.contains("role admin"), "{}", node.err);
    let expired = as_user("expired.toml").await;
    assert!(expired.code == 7 && expired.err.contains("expired"), "{}", expired.err);
    let foreign = as_user("foreign.toml").await;
    assert!(foreign.code == 5 && foreign.err.contains("another CA"), "{}", foreign.err);
    let missing = as_user("nothing.toml").await;
    assert!(missing.code == 1 && missing.err.contains("STRATA_CONFIG"), "{}", missing.err);
    // Nobody listens there any more.
    let config = std::fs::read_to_string(served.path("admin.toml")).unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    std::fs::write(served.path("gone.toml"), config.replace(&served.address, &closed.to_string())).unwrap();
    let gone = as_user("gone.toml").await;
    assert!(gone.code == 5 && gone.err.contains("cannot connect"), "{}", gone.err);

    let forbidden = run_with_stdin(&served, "apply -f -", &WEB.replace("name: web", "name: forbidden")).await;
    assert_eq!(forbidden.code, 7, "{}", forbidden.err);
    served.fake.answer_with_conflicts(1);
    assert_eq!(run_with_stdin(&served, "apply -f -", WEB).await.code, 4);
    assert_eq!(run(&served, "delete workload nothing").await.code, 3);
    assert_eq!(run(&served, "delete workload nothing --ignore-not-found").await.code, 0);
    assert_eq!(run(&served, "get pods --colour").await.code, 2);
}

#[tokio::test]
async fn delete_waits_until_the_object_is_gone() {
    let served = Served::start().await;
    served.fake.put(workload("web"));
    served.fake.put(workload("stays"));
    let ran = run(&served, "delete deploy/web --wait").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "workload/web deleted\n"), "{}", ran.err);
    let stays = run(&served, "delete workload stays --wait --timeout 1s").await;
    assert!(stays.code == 6 && stays.err.contains("not gone within 1 s"), "{}", stays.err);
}

#[tokio::test]
async fn scale_tries_again_when_somebody_else_was_faster() {
    let served = Served::start().await;
    served.fake.put(workload("web"));
    served.fake.answer_with_conflicts(3);
    let ran = run(&served, "scale deployment/web --replicas 9").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "workload/web scaled to 9\n"), "{}", ran.err);
    let Some(object::Kind::Workload(web)) = served.fake.get_now(&key_of(&workload("web"))).unwrap().kind else {
        panic!()
    };
    assert_eq!(web.spec.unwrap().replicas, Some(9));
    served.fake.answer_with_conflicts(100);
    assert_eq!(run(&served, "scale web --replicas 1").await.code, 4);
}

#[tokio::test]
async fn wait_sees_the_change_it_waits_for() {
    let served = Served::start().await;
    let key = key_of(&pod("web-0", Phase::Pending));
    let child = command(&served, "admin.toml", &["wait", "pod", "web-0", "--for", "phase=Running"]).spawn().unwrap();
    served.fake.put(pod("web-0", Phase::Pending));
    let running = PodStatus { phase: Phase::Running.into(), ready: true, ..Default::default() };
    set_status_when_watched(&served.fake, key, running);
    let ran = ran(child).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "pod/web-0: phase=Running\n"), "{}", ran.err);
    assert_eq!(run(&served, "wait pod/web-0 --for ready").await.code, 0);
    let late = run(&served, "wait pod web-0 --for deleted --timeout 100ms").await;
    assert_eq!(late.code, 6, "{}", late.err);
    assert_eq!(run(&served, "wait pod web-0 --for tomorrow").await.code, 2);
}

#[tokio::test]
async fn exec_passes_streams_and_exit_codes_on() {
    let served = Served::start().await;
    served.fake.put(workload("web"));
    served.fake.put(pod("web-0", Phase::Running));
    for code in [0, 1, 42, 127, 137] {
        assert_eq!(run(&served, &format!("exec web-0 -- exit {code}")).await.code, code);
    }
    let both = run(&served, "exec workload/web -- both").await;
    assert_eq!((both.out.as_str(), both.err.as_str()), ("to stdout", "to stderr"));
    let cat = run_with_stdin(&served, "exec -i web-0 -- cat", "what goes in").await;
    assert_eq!((cat.code, cat.out.as_str()), (0, "what goes in"), "{}", cat.err);
    // Without a terminal here, -t still gives the command one there.
    let cat = run_with_stdin(&served, "exec -it web-0 -- cat", "x").await;
    assert_eq!((cat.code, cat.out.as_str()), (0, "x"), "{}", cat.err);
    for line in ["exec web-0 -- break", "exec nothing -- exit 0", "exec workload/nothing -- exit 0"] {
        let own = run(&served, line).await;
        assert!(own.code == 125 && own.err.starts_with("ctl: "), "{line}: {}", own.err);
    }
}

#[tokio::test]
async fn an_attached_run_shows_the_output_and_exits_with_the_containers_code() {
    let served = Served::start().await;
    let running = || PodStatus {
        phase: Phase::Running.into(),
        containers: vec![ContainerStatus { pid: 4, ..exited(0) }],
        ..Default::default()
    };
    let key = key_of(&pod("job", Phase::Running));
    set_status_when_watched(&served.fake, key.clone(), running());
    let first = run(&served, "run hello --name job --env A=b -- echo hi").await;
    assert_eq!((first.code, first.out.as_str(), first.err.as_str()), (7, "out\n", "err\n"));
    let Some(object::Kind::Pod(made)) = served.fake.get_now(&key).unwrap().kind else { panic!() };
    let template = made.spec.unwrap().template.unwrap();
    assert_eq!(
        (template.restart_policy, &template.containers[0].args[..]),
        (2, &["echo".to_owned(), "hi".to_owned()][..])
    );
    // The name is taken.
    assert_eq!(run(&served, "run hello --name job --detach").await.code, 4);
    assert_eq!(run(&served, "run hello --name job").await.code, 125);
    // --rm leaves nothing.
    let key = key_of(&pod("brief", Phase::Running));
    set_status_when_watched(&served.fake, key.clone(), running());
    assert_eq!(run(&served, "run hello --name brief --rm").await.code, 7);
    assert!(served.fake.get_now(&key).is_none());
    // One that never starts.
    let never = PodStatus { phase: Phase::Failed.into(), reason: "ImageNotFound".into(), ..Default::default() };
    set_status_when_watched(&served.fake, key_of(&pod("never", Phase::Failed)), never);
    let never = run(&served, "run nope --name never").await;
    assert!(never.code == 125 && never.err.contains("ImageNotFound"), "{}", never.err);
    let detached = run(&served, "run hello --detach").await;
    assert!(detached.code == 0 && detached.out.starts_with("pod/hello-"), "{}", detached.out);
}

#[tokio::test]
async fn images_tokens_logs_events_and_versions() {
    let served = Served::start().await;
    let imported = run_with_stdin(&served, "image import - --name a/b:1", &"x".repeat(700_000)).await;
    assert_eq!((imported.code, imported.out.as_str()), (0, "image/docker.io/a/b:1\n"), "{}", imported.err);
    let inspected: serde_json::Value = serde_json::from_str(&run(&served, "image inspect a/b:1").await.out).unwrap();
    assert_eq!(inspected["spec"]["sizeBytes"], "700000");
    assert!(run(&served, "image ls").await.out.starts_with("NAME "));
    assert_eq!(run(&served, "image rm a/b:1").await.out, "image/docker.io/a/b:1 deleted\n");
    assert_eq!(run(&served, "image rm a/b:1").await.code, 3);
    assert_eq!(run(&served, "image pull hello").await.out, "docker.io/library/hello:latest on node-1\n");
    let nope = run(&served, "image pull nope").await;
    assert!(nope.code == 1 && nope.err.contains("ImageNotFound"), "{}", nope.err);

    assert_eq!(run(&served, "token create --ttl 1h --uses 2").await.out, "strata.3600.2\n");
    served.fake.put(pod("web-0", Phase::Running));
    assert_eq!(run(&served, "logs web-0").await.out, "out\nerr\n");
    assert_eq!(run(&served, "logs web-9").await.code, 3);
    assert_eq!(run(&served, "events").await.code, 0);
    assert!(run(&served, "describe pod web-0").await.out.contains("events: none"));
    assert!(run(&served, "node ls -o json").await.out.starts_with("[]"));
    let version: serde_json::Value = serde_json::from_str(&run(&served, "version -o json").await.out).unwrap();
    assert_eq!((&version["server"]["version"], &version["client"]["apiLevel"]), (&"9.9.9".into(), &1.into()));
    assert!(run(&served, "completion bash").await.out.contains("_ctl()"));
}
