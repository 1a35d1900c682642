//! Sandboxes, containers, execs, logs and cgroups on the real kernel. Needs root and the static shim (`deploy/build`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "runtime/fixture.rs"]
mod fixture;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use fixture::{ID_BASE, Node, Pod, sh};
use strata_runtime::cgroup::{ContainerCgroup, Limits, PodCgroup};
use strata_runtime::{ExecRequest, ExecStdio, ShimClient, ShimEvent, logs};

#[tokio::test]
async fn a_container_runs_exits_and_leaves_its_log() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "basic").await;
    let run = pod.run(sh("echo out; echo err >&2; printf rest; exit 7")).await;
    assert_eq!((run.exit.code, run.exit.signal), (7, None));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\nrest", "err\n"));
    pod.start(sh("sleep 1000")).await.unwrap();
    pod.client().signal("c", 9).await.unwrap();
    let exit = pod.exit_of("c").await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(pod.client().signal("c", 9).await.is_err(), "it has ended");
}

#[tokio::test]
async fn ids_are_the_pods_own() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "ids").await;
    let process = pod.start(sh("id -u > /who; touch /mine; sleep 1000")).await.unwrap();
    let status =
        fixture::wait_for(|| std::fs::read_to_string(pod.root().join("who")).ok().filter(|t| !t.is_empty())).await;
    assert_eq!(status.trim(), "0");
    let outside = std::fs::metadata(format!("/proc/{}", process.pid)).unwrap();
    assert_eq!(outside.uid(), ID_BASE);
    fixture::wait_for(|| std::fs::metadata(pod.root().join("mine")).ok()).await;
    assert_eq!(std::fs::metadata(pod.root().join("mine")).unwrap().uid(), 0, "plain ids on disk");
    pod.user = Some("33:33".into());
    let run = pod.run(sh("id -u; id -g; cat /proc/self/uid_map")).await;
    assert_eq!(run.stdout.split_whitespace().collect::<Vec<_>>(), ["33", "33", "0", &ID_BASE.to_string(), "65536"]);
}

#[tokio::test]
async fn namespaces_are_its_own() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "ns").await;
    let process = pod.start(sh("sleep 1000")).await.unwrap();
    let of = |pid: &str, ns: &str| std::fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
    let (container, shim) = (process.pid.to_string(), pod.sandbox_pid.to_string());
    for ns in ["user", "net", "pid", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(of(&container, ns), of("self", ns), "{ns} is the host's");
    }
    for ns in ["user", "net", "ipc", "uts"] {
        assert_eq!(of(&container, ns), of(&shim, ns), "{ns} is not the pod's");
    }
    for ns in ["pid", "mnt", "cgroup"] {
        assert_ne!(of(&container, ns), of(&shim, ns), "{ns} is the shim's");
    }
    let run = pod.run(sh("hostname; echo $$; ls -d /proc/[0-9]* | wc -l; ip link show lo | grep -c UP; cat /proc/self/cgroup | grep memory; ls /proc/1/root/work /host 2>&1 | wc -l")).await;
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(&words[..2], ["ns", "1"], "{}", run.stdout);
    assert_eq!(words[3], "1", "lo is up");
    assert!(run.stdout.contains(":/\n"), "{}", run.stdout);
    let run =
        pod.run(sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range")).await;
    assert_eq!(run.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "0", "65535"]);
}

#[tokio::test]
async fn the_host_is_shut_out() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "shut").await;
    let run = pod
        .run(sh("cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
                 (echo 0 0 > /proc/sys/net/ipv4/ping_group_range) 2>/dev/null || echo ro; (echo b > /proc/sysrq-trigger) 2>/dev/null || echo ro; \
                 mkdir /sys/x 2>/dev/null || echo ro; grep -c . /proc/mounts; grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status; \
                 grep Cap /proc/self/status; mknod /dev/sda b 8 0 2>/dev/null || echo nodev"))
        .await;
    let mut lines: Vec<&str> = run.stdout.lines().collect();
    let mounts: usize = lines.remove(6).parse().unwrap();
    assert!(mounts < 40, "{mounts} mounts");
    let expected = [
        "0",
        "0",
        "0",
        "ro",
        "ro",
        "ro",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a00405fb",
        "CapEff:\t00000000a00405fb",
        "CapBnd:\t00000000a00405fb",
        "CapAmb:\t0000000000000000",
        "nodev",
    ];
    assert_eq!(lines, expected);
    pod.user = Some("1000".into());
    let run = pod.run(sh("grep -E 'CapPrm|CapEff|CapBnd' /proc/self/status; grep Groups /proc/self/status")).await;
    assert_eq!(
        run.stdout.split_whitespace().collect::<Vec<_>>(),
        ["CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "CapBnd:", "00000000a00405fb", "Groups:"]
    );
    pod.read_only_root = true;
    assert!(pod.run(sh("touch /x")).await.stderr.contains("Read-only"));
}

#[tokio::test]
async fn seccomp_denies_what_a_container_has_no_business_with() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "seccomp").await;
    // Capabilities would allow these inside the user namespace; the filter must not (it is widened only with them).
    let run = pod.run(vec!["/bin/probe".into()]).await;
    assert_eq!(run.exit.code, 0, "{}{}", run.stdout, run.stderr);
    let denied: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        denied,
        [
            "mount EPERM",
            "unshare EPERM",
            "keyctl EPERM",
            "bpf EPERM",
            "clone-newuser EPERM",
            "clone3 ENOSYS",
            "af_alg EPERM",
            "af_vsock EPERM",
            "personality EPERM",
            "beyond-table ENOSYS",
            "setns EPERM",
            "perf_event_open EPERM",
            "io_uring_setup EPERM",
        ]
    );
}

#[tokio::test]
async fn no_descriptor_leaks_into_a_container() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "fds").await;
    // The last one is the directory that ls itself reads.
    let run = pod.run(sh("exec ls /proc/self/fd")).await;
    assert_eq!(run.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let process = pod.start(sh("sleep 1000")).await.unwrap();
    let exec = fixture::exec(pod.client(), "c", &["ls", "/proc/self/fd"]).await;
    assert_eq!(exec.1.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    drop(process);
}

#[tokio::test]
async fn a_memory_hog_is_killed_and_counted() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "hog").await;
    pod.limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
    let run = pod.run(sh("exec tail /dev/zero")).await;
    assert_eq!((run.exit.code, run.exit.signal), (137, Some(9)));
    assert!(pod.cgroup().oom_kills() > 0);
    pod.limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    assert_eq!(pod.run(sh("true")).await.exit.code, 0);
}

#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "bomb").await;
    pod.limits = Limits { pids: 20, ..Limits::default() };
    let run = pod.run(sh("i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo made $i")).await;
    assert!(!run.stdout.contains("made 60"), "{}", run.stdout);
    assert!(run.stderr.contains("fork"), "{}", run.stderr);
    assert!(pod.cgroup().usage().pids < 20);
}

#[tokio::test]
async fn an_exec_is_in_the_container() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "exec").await;
    let process = pod.start(sh("export X=1; sleep 1000")).await.unwrap();
    let (code, out, err) = fixture::exec(pod.client(), "c", &["sh", "-c", "id -u; hostname; grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; grep memory /proc/self/cgroup; echo oops >&2; ps | grep -c sleep; exit 3"]).await;
    assert_eq!((code, err.as_str()), (3, "oops\n"));
    assert!(out.starts_with("0\nexec\n"), "{out}");
    for part in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000a00405fb", ":/\n"] {
        assert!(out.contains(part), "{part} not in {out}");
    }
    let of = |pid: u32, ns: &str| std::fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
    let exec = pod.client().exec(fixture::pipes("c", &["sleep", "1000"]).0).await.unwrap();
    for ns in ["user", "net", "pid", "mnt", "ipc", "uts", "cgroup"] {
        assert_eq!(of(exec.process.pid, ns), of(process.pid, ns), "{ns}");
    }
    exec.process.signal(15).unwrap();
    let exit = fixture::within(exec.exit).await.unwrap();
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    // After an exec the next container must still be made in the pod's own pid namespace.
    assert_eq!(pod.run_as("second", sh("echo $$")).await.stdout, "1\n");
    let missing = pod.client().exec(fixture::pipes("c", &["no-such-command"]).0).await.unwrap_err();
    assert_eq!(missing.exit_code(), 127);
}

#[tokio::test]
async fn an_exec_with_a_terminal() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "tty").await;
    pod.start(sh("sleep 1000")).await.unwrap();
    let stdio = ExecStdio::Terminal { rows: 30, columns: 91 };
    let args = ["sh", "-c", "tty; stty size; read line; echo got $line; stty size; exit 4"].map(str::to_owned).into();
    let request =
        ExecRequest { container: "c".into(), args, env: vec!["TERM=dumb".into()], cwd: None, user: None, stdio };
    let exec = pod.client().exec(request).await.unwrap();
    let mut master = fixture::Terminal::new(exec.terminal.as_ref().unwrap());
    let text = master.read_until("30 91");
    assert!(text.contains("/dev/pts/0"), "{text}");
    exec.resize(40, 100).unwrap();
    master.write("hello\n");
    let text = master.read_until("40 100");
    assert!(text.contains("got hello"), "{text}");
    assert_eq!(fixture::within(exec.exit).await.unwrap().code, 4);
    pod.tty = true;
    let run = pod.run_as("own", sh("tty; stty size > /dev/null && echo is a terminal")).await;
    assert!(run.stdout.contains("/dev/pts/0") && run.stdout.contains("is a terminal"), "{}", run.stdout);
}

#[tokio::test]
async fn a_replaced_devpts_is_not_trusted() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "fakepts").await;
    pod.add_capabilities = vec!["SYS_ADMIN".into()];
    let process = pod.start(sh("umount /dev/pts; mkfifo /dev/pts/ptmx && touch /ready; sleep 1000")).await.unwrap();
    fixture::wait_for(|| std::fs::metadata(pod.root().join("ready")).ok()).await;
    let stdio = ExecStdio::Terminal { rows: 1, columns: 1 };
    let request =
        ExecRequest { container: "c".into(), args: vec!["sh".into()], env: vec![], cwd: None, user: None, stdio };
    let error = pod.client().exec(request).await.unwrap_err();
    assert!(error.to_string().contains("opening the terminal"), "{error}");
    drop(process);
}

#[tokio::test]
async fn a_flood_of_output_leaves_bounded_files_and_the_newest_lines() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "flood").await;
    pod.log_limit_bytes = 1 << 20;
    let run = pod
        .run(sh(
            "yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 67108864; echo; echo the end",
        ))
        .await;
    assert_eq!(run.exit.code, 0);
    let sizes: Vec<u64> =
        logs::paths(&pod.log_dir(), "c").iter().map(|p| std::fs::metadata(p).unwrap().len()).collect();
    assert!(sizes.iter().all(|s| *s <= 1 << 20) && sizes.iter().sum::<u64>() > 1 << 20, "{sizes:?}");
    assert!(run.stdout.ends_with("the end\n"));
}

#[tokio::test]
async fn an_agent_may_die_and_its_pods_are_found_again() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "adopt").await;
    let first = pod.start(sh("sleep 1000")).await.unwrap();
    let short = pod.start_as("short", sh("sleep 0.3; exit 5")).await.unwrap();
    pod.disconnect();
    fixture::ended(&short.pidfd);
    let (client, state) = ShimClient::connect(pod.dir()).await.unwrap();
    assert_eq!(state.pid, pod.sandbox_pid);
    let pids: Vec<_> = state.containers.iter().map(|c| (c.name.as_str(), c.process.as_ref().map(|p| p.pid))).collect();
    assert!(pids.contains(&("c", Some(first.pid))), "{pids:?}");
    let mut events = client.events().unwrap();
    match fixture::within(events.recv()).await.unwrap() {
        ShimEvent::Exited { container, exit } => assert_eq!((container.as_str(), exit.code), ("short", 5)),
        other => panic!("{other:?}"),
    }
    client.acknowledge("short").await.unwrap();
    // A newer agent ends the older connection, and hears no more of what was acknowledged.
    let (newest, state) = ShimClient::connect(pod.dir()).await.unwrap();
    assert_eq!(state.containers.len(), 1);
    assert_eq!(fixture::within(events.recv()).await, Some(ShimEvent::Gone));
    newest.signal("c", 9).await.unwrap();
    match fixture::within(newest.events().unwrap().recv()).await.unwrap() {
        ShimEvent::Exited { exit, .. } => assert_eq!(exit.signal, Some(9)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_killed_shim_takes_its_containers_along() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "killed").await;
    let process = pod.start(sh("sleep 1000 & sleep 1000")).await.unwrap();
    let exec = pod.client().exec(fixture::pipes("c", &["sleep", "1000"]).0).await.unwrap();
    pod.kill_shim();
    fixture::ended(&process.pidfd);
    fixture::ended(&exec.process.pidfd);
    assert_eq!(fixture::within(pod.events.recv()).await, Some(ShimEvent::Gone));
    let error = ShimClient::connect(pod.dir()).await.unwrap_err();
    assert!(
        matches!(error, strata_runtime::Error::Io { ref source, .. } if source.raw_os_error() == Some(libc::ECONNREFUSED)),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "bad").await;
    let cases: [(Vec<String>, i32, &str); 4] = [
        (vec!["no-such-command".into()], 127, "executing no-such-command: command not found"),
        (vec!["/bin/absent".into()], 127, "executing /bin/absent: command not found"),
        (vec!["/etc/passwd".into()], 126, "executing /etc/passwd: permission denied"),
        (vec!["/etc".into()], 126, "executing /etc: permission denied"),
    ];
    for (args, code, message) in cases {
        let error = pod.start(args).await.unwrap_err();
        assert_eq!(error.exit_code(), code);
        assert!(error.to_string().starts_with(message), "{error}");
    }
    std::os::unix::fs::symlink("/tmp", pod.root().join("proc2")).unwrap();
    std::fs::remove_dir(pod.root().join("proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", pod.root().join("proc")).unwrap();
    let error = pod.start(sh("true")).await.unwrap_err();
    assert!(error.to_string().starts_with("mounting /proc"), "{error}");
    std::fs::remove_file(pod.root().join("proc")).unwrap();
    assert_eq!(pod.run(sh("pwd")).await.exit.code, 0, "the pod still works, and makes what is missing");
    pod.working_dir = Some("/new/work".into());
    assert_eq!(pod.run(sh("pwd")).await.stdout, "/new/work\n");
}

#[tokio::test]
async fn bind_mounts_are_attached_where_the_plan_says() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "binds").await;
    let source = pod.dir().join("hosts");
    std::fs::write(&source, "127.0.0.1 me\n").unwrap();
    pod.binds = vec![(source.clone(), "/etc/hosts".into(), true), (pod.dir().join("vol"), "/data/vol".into(), false)];
    std::fs::create_dir(pod.dir().join("vol")).unwrap();
    let run = pod.run(sh("cat /etc/hosts; echo x > /data/vol/f; (echo y > /etc/hosts) 2>/dev/null || echo ro")).await;
    assert_eq!(run.stdout, "127.0.0.1 me\nro\n", "{}", run.stderr);
    assert_eq!(std::fs::metadata(pod.dir().join("vol/f")).unwrap().uid(), 0);
}

#[tokio::test]
async fn nothing_is_left() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let parent;
    {
        let node = Node::new();
        let pod = Pod::new(&node, "left").await;
        let process = pod.start(sh("sleep 1000 & setsid sleep 1000 & sleep 1000")).await.unwrap();
        parent = node.cgroup_parent.clone();
        pod.client().shutdown().await.unwrap();
        fixture::ended(&process.pidfd);
        let group = PodCgroup::existing(&node.cgroups, "left").unwrap();
        assert_eq!(node.cgroups.pods(), ["left"]);
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(node.cgroups.pods().is_empty());
    }
    assert!(!Path::new("/sys/fs/cgroup/memory").join(&parent).exists());
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

#[tokio::test]
async fn the_cgroup_kills_what_hides() {
    let node = Node::new();
    let pod = Pod::new(&node, "kill").await;
    let process = pod.start(sh("(while :; do sleep 0.01 & done) & sleep 1000")).await.unwrap();
    pod.cgroup().kill_all().unwrap();
    fixture::ended(&process.pidfd);
    let group: ContainerCgroup = pod.cgroup();
    tokio::task::spawn_blocking(move || group.remove()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_zygote_is_found_again_and_its_mounts_are_pinned() {
    let node = Node::new();
    let pid = node.zygote.pid().unwrap();
    let state = node.dir().to_owned();
    let shim = fixture::shim();
    // A thread with its own working directory stands for an agent that starts.
    let enter = move || {
        let (state, shim) = (state.clone(), shim.clone());
        std::thread::spawn(move || {
            strata_sys::process::unshare_directories().unwrap();
            let zygote = strata_runtime::zygote::enter(&state, &shim).unwrap();
            let seen = state.join("layers").join("mark").exists();
            if !seen {
                std::fs::create_dir_all(state.join("layers")).unwrap();
                rustix::mount::mount("tmpfs", state.join("layers"), "tmpfs", rustix::mount::MountFlags::empty(), None)
                    .unwrap();
                std::fs::write(state.join("layers").join("mark"), "x").unwrap();
            }
            (zygote.pid().unwrap(), seen)
        })
        .join()
        .unwrap()
    };
    assert_eq!(enter(), (pid, false));
    assert_eq!(enter(), (pid, true), "the second agent sees the first one's mount");
    assert!(!node.dir().join("layers/mark").exists(), "the host's table does not");
}

#[tokio::test]
async fn a_dead_zygote_is_replaced_and_pods_live_on() {
    let node = Node::new();
    let pod = Pod::new(&node, "before").await;
    let process = pod.start(sh("sleep 1000")).await.unwrap();
    let old = node.zygote.pid().unwrap();
    fixture::kill(old);
    let mut after = Pod::new(&node, "after").await;
    assert_ne!(node.zygote.pid().unwrap(), old);
    assert_eq!(after.run(sh("true")).await.exit.code, 0);
    assert!(process.signal(0).is_ok(), "the container of the first pod has ended");
}

/// Not a test of time: prints the medians of a start beside what was asked (`--ignored --nocapture`).
#[tokio::test]
#[ignore = "a measurement"]
async fn start_latency() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "time").await;
    let (mut starts, mut sandboxes) = (Vec::new(), Vec::new());
    for n in 0..100 {
        let request = pod.request(&format!("c{n}"), vec!["/bin/true".into()]);
        let begun = std::time::Instant::now();
        pod.client().start(request).await.unwrap();
        starts.push(begun.elapsed());
        pod.exit_of(&format!("c{n}")).await;
        pod.client().acknowledge(&format!("c{n}")).await.unwrap();
    }
    let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.sandbox_pid)).unwrap();
    println!("shim: {}", memory.lines().find(|l| l.starts_with("Pss:")).unwrap());
    for n in 0..30 {
        let other = Pod::new(&node, &format!("s{n}")).await;
        sandboxes.push(other.made_in);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        (times[times.len() / 2], times[0])
    };
    println!("start (median, best): {:?}; sandbox: {:?}", median(&mut starts), median(&mut sandboxes));
}

#[tokio::test]
async fn standard_input_is_kept_for_whoever_attaches() {
    use std::io::Write;
    let node = Node::new();
    let mut pod = Pod::new(&node, "stdin").await;
    let mut request = pod.request("c", sh("printf 'name? '; read a; echo \"hello $a\"; cat; echo over"));
    request.keeps_stdin = true;
    pod.client().start(request).await.unwrap();
    let log = pod.log_dir();
    // A prompt has no line's end, and is there all the same.
    let text =
        |dir: &Path| logs::paths(dir, "c").iter().map(|p| std::fs::read_to_string(p).unwrap()).collect::<String>();
    fixture::wait_for(|| text(&log).contains("P name? ").then_some(())).await;
    let mut first = std::fs::File::from(pod.client().attach("c").await.unwrap());
    first.write_all(b"you\n").unwrap();
    drop(first);
    // A later agent attaches again: nobody has closed it in between.
    pod.disconnect();
    let (client, _) = ShimClient::connect(pod.dir()).await.unwrap();
    let mut events = client.events().unwrap();
    let mut second = std::fs::File::from(client.attach("c").await.unwrap());
    second.write_all(b"more\n").unwrap();
    drop(second);
    client.close_stdin("c").await.unwrap();
    let ended = fixture::within(events.recv()).await.unwrap();
    assert!(matches!(ended, ShimEvent::Exited { exit, .. } if exit.code == 0), "{ended:?}");
    for words in ["hello you", "more", "over"] {
        assert!(text(&log).contains(words), "{words} is not in {}", text(&log));
    }
    assert!(client.attach("c").await.is_err(), "it has ended");
    // One that was not asked to keep it reads the end at once.
    pod.events = events;
    let (client, _) = ShimClient::connect(pod.dir()).await.unwrap();
    client.start(pod.request("d", sh("cat; sleep 1000"))).await.unwrap();
    assert!(client.attach("d").await.is_err());
}

#[tokio::test]
async fn an_administrator_of_the_pod_mounts_but_does_not_lift_a_mounts_limits() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "admin").await;
    pod.add_capabilities = vec!["SYS_ADMIN".into()];
    pod.read_only_root = true;
    let run = pod
        .run(sh("mount -t tmpfs x /tmp && echo mounted; mount -o bind /tmp /bin/../etc && echo bound; \
                 for at in / /proc/sys; do mount -o remount,bind,rw,dev,suid $at || echo kept; done; touch /x || echo ro"))
        .await;
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), ["mounted", "bound", "kept", "kept", "ro"], "{}", run.stderr);
}
