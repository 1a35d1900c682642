//! `ctl build`: Dockerfiles become images that run on every node at once; what fails leaves nothing.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};
use strata_testkit::{Cluster, Run, eventually};
use tempfile::TempDir;

/// A context with these files.
fn context(files: &[(&str, &str)]) -> Result<TempDir> {
    let dir = TempDir::new()?;
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().context("parent")?)?;
        fs::write(path, text)?;
    }
    Ok(dir)
}

fn build(cluster: &Cluster, dir: &Path, args: &[&str]) -> Result<Run> {
    let dir = dir.to_str().context("path")?;
    let all: Vec<&str> = ["build"].iter().chain(args).copied().chain([dir]).collect();
    cluster.ctl(&all)
}

/// What builds must not leave on any node: contexts, writable layers, cgroups.
fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    eventually("builds leave nothing", 60, || {
        for node in cluster.nodes()? {
            for part in ["builds", "builds/layers", "builds/mnt"] {
                let left: Vec<String> = fs::read_dir(node.state.join(part))?
                    .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
                    .filter(|name| !matches!(name.as_deref(), Ok("layers" | "mnt" | ".empty")))
                    .collect::<Result<_, _>>()?;
                ensure!(left.is_empty(), "{} on {}: {left:?}", part, node.name);
            }
        }
        Ok(())
    })
}

fn remove(cluster: &Cluster, images: &[&str]) {
    for image in images {
        // Best effort, so that a failed test does not hinder the next.
        drop(cluster.ctl(&["image", "rm", image]));
    }
}

const STAGES: &str = "# syntax=docker/dockerfile:1
ARG BASE=hello:1
FROM ${BASE} AS tools
USER root
ARG GREETING=hi
ENV WHO=\"the cluster\"
WORKDIR /work
RUN echo \"$GREETING $WHO\" > greeting && busybox mkdir -p out/sub && busybox cp greeting out/sub/ && \\
    busybox chmod 4755 out/sub/greeting && busybox chown 1000:1000 out && rm /bin/wget
RUN <<EOF
set -e
test ! -e /bin/wget
id -u > out/uid; cat /proc/self/uid_map > out/map; hostname > out/name
EOF

FROM hello:1
COPY --from=tools /work/out /srv/out/
COPY --chown=www:www site/*.html /srv/www/
COPY --chmod=0600 <<note.txt /srv/notes/
made for $HOSTNAME_IS_NOT_SET x
note.txt
LABEL made.by=\"a test\" stage=2
EXPOSE 9000-9001
STOPSIGNAL SIGINT
CMD [\"/bin/hello\"]
";

#[test]
fn a_build_of_stages_runs_on_every_node_and_is_cached() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let dir = context(&[
        ("Dockerfile", STAGES),
        ("site/index.html", "built here"),
        ("site/draft.html", "not this"),
        (".dockerignore", "site/draft*\n"),
    ])?;
    let first = build(&cluster, dir.path(), &["-t", "built:1", "--build-arg", "GREETING=hello"])?.ok()?;
    ensure!(!first.stderr.contains("cached"), "{}", first.stderr);
    ensure!(first.stderr.contains("RUN echo"), "{}", first.stderr);
    let digest = |run: &Run| run.stdout.split_whitespace().last().unwrap_or_default().to_owned();
    ensure!(
        digest(&first).starts_with("sha256:") && first.stdout.starts_with("docker.io/library/built:1 "),
        "{first:?}"
    );

    // A DaemonSet has one pod on every node; no registry knows the image.
    let manifest = "kind: DaemonSet
apiVersion: apps/v1
metadata: {name: built}
spec:
  selector: {matchLabels: {app: built}}
  template:
    metadata: {labels: {app: built}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: 'built:1', imagePullPolicy: IfNotPresent}]}
";
    cluster.apply(manifest, &[])?.ok()?;
    let pods = cluster.running("built", 3, 60)?;
    let pod = pods[0]["meta"]["name"].as_str().context("name")?;
    let seen = "cat /srv/out/sub/greeting; stat -c '%a %u:%g' /srv/out/sub/greeting /srv/out/uid /srv/www/index.html /srv/notes/note.txt; cat /srv/out/uid \
         /srv/out/name; ls /srv/www; ls /bin/wget; ls -d /srv/out/map";
    let said = cluster.ctl(&["exec", pod, "--", "sh", "-c", seen])?.stdout;
    let expect =
        "hello the cluster\n4755 0:0\n644 0:0\n644 1000:1000\n600 0:0\n0\nbuild\nindex.html\n/bin/wget\n/srv/out/map\n";
    ensure!(said == expect, "{said}");
    ensure!(cluster.exec(pod, &["cat", "/srv/www/index.html"])? == "built here");
    cluster.delete(&["daemonset/built"])?;

    let again = build(&cluster, dir.path(), &["-t", "built:1", "--build-arg", "GREETING=hello"])?.ok()?;
    ensure!(digest(&again) == digest(&first), "{} is not {}", again.stdout, first.stdout);
    // Two RUNs, three COPYs, and the WORKDIR.
    ensure!(again.stderr.matches("cached").count() == 6, "{}", again.stderr);
    // A changed source: what comes before it stays cached.
    fs::write(dir.path().join("site/index.html"), "changed")?;
    let changed = build(&cluster, dir.path(), &["-t", "built:1", "--build-arg", "GREETING=hello", "-q"])?.ok()?;
    ensure!(changed.stderr.is_empty() && changed.stdout.trim() != digest(&first), "{changed:?}");
    let image = cluster.ctl(&["get", "image", "built:1", "-o", "json"])?.ok()?.json()?;
    ensure!(image["spec"]["digest"] == Value::String(changed.stdout.trim().into()), "{image}");
    // Only the first stage.
    let only =
        build(&cluster, dir.path(), &["-t", "built:tools", "--target", "tools", "--build-arg", "GREETING=hello"])?
            .ok()?;
    ensure!(!only.stderr.contains("COPY"), "{}", only.stderr);
    remove(&cluster, &["built:1", "built:tools"]);
    nothing_is_left(&cluster)
}

#[test]
fn the_same_context_gives_the_same_image_on_any_node() -> Result<()> {
    let cluster = Cluster::here()?;
    let text =
        "FROM scratch\nWORKDIR /a/b\nCOPY . .\nCOPY --chown=7:8 x/one /two/\nENV A=b\nENTRYPOINT [\"/a/b/x/one\"]\n";
    let dir = context(&[("Dockerfile", text), ("x/one", "1"), ("x/two", "2")])?;
    symlink("../../../../etc", dir.path().join("link"))?;
    let mut digests = Vec::new();
    for node in ["node-1", "node-2", "node-3"] {
        digests.push(build(&cluster, dir.path(), &["-q", "--node", node, "-t", "same:1"])?.ok()?.stdout);
    }
    ensure!(digests[0].starts_with("sha256:") && digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    let run = build(&cluster, dir.path(), &["--node", "node-9"])?.code_is(5)?;
    ensure!(run.stderr.contains("node-9 is not ready"), "{}", run.stderr);
    remove(&cluster, &["same:1"]);
    nothing_is_left(&cluster)
}

#[test]
fn a_failing_step_says_where_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let text = "FROM hello:1\nUSER root\nRUN echo one > /one\nENV A=b\n\n# the next one fails\nRUN echo before; \\\n  echo wrong >&2; sleep 60 & exit 7\nRUN echo never\n";
    let dir = context(&[("Dockerfile", text)])?;
    for (cached, args) in
        [(0, vec!["-t", "failing:1"]), (1, vec!["-t", "failing:1", "-q"]), (1, vec!["-t", "failing:1"])]
    {
        let run = build(&cluster, dir.path(), &[&["--node", "node-1"], args.as_slice()].concat())?.code_is(1)?;
        for part in [
            "step 5 of 6 failed: Dockerfile:7: RUN echo before; echo wrong",
            "ended with exit code 7",
            "before",
            "wrong",
        ] {
            ensure!(run.stderr.contains(part), "{part:?} is missing: {}", run.stderr);
        }
        ensure!(!run.stderr.contains("RUN echo never") && run.stdout.is_empty(), "{run:?}");
        if !args.contains(&"-q") {
            ensure!(run.stderr.matches("cached").count() == cached, "{}", run.stderr);
        }
    }
    ensure!(cluster.ctl(&["get", "image", "failing:1"])?.code == 3, "a failed build names no image");
    for (text, expect) in [
        ("FROM scratch\nBOGUS x\n", "Dockerfile:2: unknown instruction 'BOGUS'"),
        ("FROM scratch\n\nCOPY nothing /\n", "Dockerfile:3: COPY nothing /: \"nothing\" is not in the context"),
        ("FROM hello:1\nRUN --mount=type=cache,target=/x true\n", "Dockerfile:2: RUN --mount is not built yet"),
        (
            "FROM hello:1\nADD https://example.invalid/x /\n",
            "Dockerfile:2: ADD https://example.invalid/x /: https://example.invalid/x is not in the context",
        ),
        (
            "FROM --platform=plan9/mips hello:1\n",
            "Dockerfile:1: FROM hello:1: --platform=plan9/mips cannot be built on this node",
        ),
        ("FROM localhost:1/no/such:1\n", "Dockerfile:1: FROM localhost:1/no/such:1: "),
        ("FROM hello:1\nRUN [\"/no/such\"]\n", "Dockerfile:2: RUN [\"/no/such\"]: "),
    ] {
        let dir = context(&[("Dockerfile", text)])?;
        let run = build(&cluster, dir.path(), &["-t", "failing:1"])?.code_is(1)?;
        ensure!(run.stderr.contains(expect), "{expect:?} is missing: {}", run.stderr);
    }
    nothing_is_left(&cluster)
}

#[test]
fn hostile_links_lead_nowhere() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let secret = cluster.home().join("controller/admin.toml");
    let dir = context(&[("Dockerfile", "FROM scratch\nCOPY secret /x\n"), ("tree/a", "a")])?;
    symlink(&secret, dir.path().join("secret"))?;
    symlink("/", dir.path().join("root"))?;
    symlink("../../../../../..", dir.path().join("up"))?;
    symlink(&secret, dir.path().join("tree/inner"))?;
    for source in ["secret", "root/etc/passwd", "up/etc/passwd", "../../../../etc/passwd", "/etc/passwd"] {
        fs::write(dir.path().join("Dockerfile"), format!("FROM scratch\nCOPY {source} /x\n"))?;
        let run = build(&cluster, dir.path(), &["-t", "hostile:1"])?.code_is(1)?;
        ensure!(run.stderr.contains("is not in the context"), "{source}: {}", run.stderr);
    }
    // A link inside a directory is copied as a link; links in the image are followed within the image.
    let text = "FROM hello:1\nUSER root\nRUN busybox ln -s / /srv/slash && busybox ln -s ../../../../../../tmp /srv/up && busybox ln -s /nowhere/deep /srv/dangling\n\
         COPY tree /srv/slash/landed/\nCOPY tree/a /srv/up/up-a\nCOPY tree/a /srv/dangling/a\n\
         RUN busybox readlink /landed/inner && ls -d /landed/a /tmp/up-a /nowhere/deep/a && stat -c %a /tmp\n";
    fs::write(dir.path().join("Dockerfile"), text)?;
    let run = build(&cluster, dir.path(), &["-t", "hostile:1"])?.ok()?;
    for part in [&format!("  {}", secret.display()), "  /nowhere/deep/a", "  /tmp/up-a", "  1777"] {
        ensure!(run.stderr.contains(part), "{part:?} is missing: {}", run.stderr);
    }
    for node in cluster.nodes()? {
        ensure!(!Path::new("/landed").exists() && !Path::new("/tmp/up-a").exists(), "{} wrote outside", node.name);
    }
    remove(&cluster, &["hostile:1"]);
    nothing_is_left(&cluster)
}

#[test]
fn a_build_whose_client_dies_stops() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let dir = context(&[("Dockerfile", "FROM hello:1\nUSER root\nRUN echo started; sleep 4242\n")])?;
    let mut command =
        cluster.command(&["build", "-t", "killed:1", "--node", "node-1", dir.path().to_str().context("path")?]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let sleeping = || -> Result<usize> {
        let processes = fs::read_dir("/proc")?.flatten();
        let lines = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
        Ok(lines.filter(|line| line.starts_with(b"sleep\0") && line.ends_with(b"4242\0")).count())
    };
    eventually("the step runs", 60, || {
        ensure!(sleeping()? == 1, "no sleep");
        Ok(())
    })?;
    child.kill()?;
    child.wait()?;
    eventually("the step is stopped", 60, || {
        ensure!(sleeping()? == 0, "it still runs");
        Ok(())
    })?;
    nothing_is_left(&cluster)
}

#[test]
fn archives_are_unpacked_by_add_only() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let dir = context(&[("in/a", "a"), ("in/sub/b", "b")])?;
    let tar = format!(
        "cd {0} && chmod 640 in/a && tar --owner=5 --group=6 -czf x.tgz -C in . && cp x.tgz other.bin",
        dir.path().display()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-ec", &tar]);
    Run::of(shell, "")?.ok()?;
    let text = "FROM hello:1\nUSER root\nADD x.tgz /added/\nCOPY x.tgz /copied/\nADD in/a other.bin /both/\n\
         RUN stat -c '%n %a %u:%g' /added/a /added/sub/b && ls /copied /both\n";
    fs::write(dir.path().join("Dockerfile"), text)?;
    let run = build(&cluster, dir.path(), &["-t", "archive:1"])?.ok()?;
    for part in ["  /added/a 640 5:6", "  /added/sub/b 644 5:6", "  x.tgz", "  sub"] {
        ensure!(run.stderr.contains(part), "{part:?} is missing: {}", run.stderr);
    }
    remove(&cluster, &["archive:1"]);
    nothing_is_left(&cluster)
}

#[test]
fn the_demo_image_is_built_in_three_layers() -> Result<()> {
    let cluster = Cluster::here()?;
    let dir = TempDir::new()?;
    let mut command = std::process::Command::new(cluster.repo().join("deploy/examples/hello/context"));
    command.arg(cluster.home().join("bin/strata-hello")).arg(dir.path());
    Run::of(command, "")?.ok()?;
    let built = build(&cluster, dir.path(), &["-q", "-t", "demo:built"])?.ok()?;
    let image = cluster.ctl(&["get", "image", "demo:built", "-o", "json"])?.ok()?.json()?;
    ensure!(image["spec"]["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{image}");
    ensure!(image["spec"]["digest"] == Value::String(built.stdout.trim().into()), "{image}");
    let run = cluster.ctl(&["run", "--rm", "demo:built", "--", "stat", "-c", "%a", "/tmp"])?;
    ensure!(run.code == 0 && run.stdout == "1777\n", "{run:?}");
    remove(&cluster, &["demo:built"]);
    nothing_is_left(&cluster)
}

#[test]
fn mount_points_are_no_part_of_the_image() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let text = "FROM scratch AS bare\nCOPY --from=hello:1 /bin/busybox /bin/\nCOPY --from=hello:1 /bin/sh /bin/\nENV PATH=/bin\n\
         RUN busybox echo made > /made\nRUN busybox mkdir -p /dev /etc && busybox echo x > /etc/x\n\
         FROM hello:1\nUSER root\nCOPY --from=bare / /bare/\nRUN ls /bare /bare/etc\n";
    let dir = context(&[("Dockerfile", text)])?;
    let run = build(&cluster, dir.path(), &["--no-cache", "-t", "bare:1"])?.ok()?;
    let listed: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("  ")).map(str::trim).collect();
    ensure!(listed == ["/bare:", "bin", "etc", "made", "", "/bare/etc:", "x"], "{}", run.stderr);
    remove(&cluster, &["bare:1"]);
    nothing_is_left(&cluster)
}

#[test]
fn steps_reach_pods_unless_they_want_no_network() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.ctl(&["run", "-d", "--name", "served", "hello:1"])?.ok()?;
    let pod = cluster.pod_until("served", 60, |status| status["phase"] == "Running")?;
    let url = format!("http://{}:8080/healthz", pod["status"]["address"].as_str().context("address")?);
    let text = format!(
        "FROM hello:1\nUSER root\nRUN for i in 1 2 3 4 5; do busybox timeout 5 busybox wget -q -O - {url} && exit 0; sleep 1; done; exit 1\n\
         RUN cat /etc/resolv.conf; grep build /etc/hosts\n\
         RUN --network=none ip -o addr | grep -v ' lo ' ; ! busybox timeout 2 busybox wget -q -O - {url}\n"
    );
    let dir = context(&[("Dockerfile", &text)])?;
    for node in ["node-1", "node-2"] {
        let run = build(&cluster, dir.path(), &["--no-cache", "-t", "networked:1", "--node", node])?.ok()?;
        ensure!(
            run.stderr.contains("nameserver ")
                && run.stderr.matches("  ok").count() == 1
                && !run.stderr.contains("eth0"),
            "{}",
            run.stderr
        );
    }
    cluster.delete(&["pod/served"])?;
    remove(&cluster, &["networked:1"]);
    nothing_is_left(&cluster)
}
