//! The sockets of zygote and shim against garbage, half requests, wrong order, floods, peers that stall and a lack of descriptors: they go on serving,
//! nothing leaks, and nothing spins. Only root can reach them; what is tested is that no broken agent takes a pod down.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "runtime/fixture.rs"]
mod fixture;

use fixture::{Node, Pod, sh};
use prost::Message as _;
use rustix::process::{Pid, Resource, Rlimit};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};
use strata_runtime::{
    ShimClient,
    wire::{self, request::Request},
    zygote::ZYGOTE_SOCKET,
};
use strata_sys::packet;

const SHIM_SOCKET: &str = "shim.sock";
/// Messages of one storm.
const MESSAGES: usize = 400;
/// What a process that only waits may use of the processor, of all the time.
const IDLE_SHARE: f64 = 0.3;

struct Random(u64);

impl Random {
    /// A number below `bound` (xorshift64*).
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

fn encode(request: Request) -> Vec<u8> {
    wire::Request { id: 1, request: Some(request) }.encode_to_vec()
}

/// Requests that are well formed, with values that are not.
fn wild(random: &mut Random) -> Vec<u8> {
    let long = "x".repeat(random.below(60_000));
    let number = [0, 1, 7, u32::MAX][random.below(4)];
    encode(match random.below(7) {
        0 => Request::Hello(wire::Hello { version: number }),
        1 => Request::CreateSandbox(wire::CreateSandbox {
            hostname: long.chars().take(random.below(100)).collect(),
            id_base: number,
            id_count: [0, 1, 65_536, u32::MAX][random.below(4)],
            sysctls: vec![wire::Sysctl { name: "kernel.core_pattern".into(), value: long }; random.below(2)],
        }),
        2 => Request::Start(wire::Start {
            name: ["c", "other", &long][random.below(3)].into(),
            plan: (random.below(3) > 0).then(|| wire::Plan {
                args: vec![long.clone(); random.below(2)],
                cwd: "/../..".into(),
                mounts: vec![wire::Mount { target: "/etc".into(), ..wire::Mount::default() }; random.below(20)],
                seccomp: vec![0xff; random.below(100)],
                tty: random.below(2) == 0,
                ..wire::Plan::default()
            }),
            cgroups: number,
            log_limit_bytes: u64::from(number),
            has_stdin: random.below(2) == 0,
            keeps_stdin: random.below(2) == 0,
        }),
        3 => Request::Exec(wire::Exec {
            container: ["c", "none", &long][random.below(3)].into(),
            args: vec!["/no/such/program".into(); random.below(3)],
            env: vec!["=".into(), "=".repeat(5), long],
            tty: random.below(2) == 0,
            rows: number,
            uid: Some(number),
            groups: vec![number; random.below(1_000)],
            ..wire::Exec::default()
        }),
        4 => Request::Acknowledge(wire::Acknowledge { container: long, exec: 1 }),
        5 => Request::Attach(wire::Attach { container: "c".into(), close: false }),
        _ => Request::Signal(wire::Signal { container: "none".into(), signal: number as i32 }),
    })
}

/// What would end the pod by right is not sent.
fn is_fatal(message: &[u8]) -> bool {
    match wire::Request::decode(message).ok().and_then(|r| r.request) {
        Some(Request::Shutdown(_)) => true,
        Some(Request::Signal(signal)) => signal.container.is_empty() || signal.container == "c",
        _ => false,
    }
}

/// Descriptors of many kinds, none of them what is wanted.
fn odd_fds() -> Vec<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (a, b) = packet::pair().unwrap();
    let open = |path: &str| OwnedFd::from(File::open(path).unwrap());
    vec![open("/dev/null"), open("/"), open("/etc/hostname"), open("/proc/self/ns/mnt"), read, write, a, b]
}

fn connect(dir: &Path, socket: &str) -> OwnedFd {
    packet::connect_in(dir, socket).unwrap()
}

/// Sends garbage over many connections; each message may or may not be answered.
fn storm(dir: &Path, socket: &str, seed: u64) {
    let mut random = Random(seed);
    let odd = odd_fds();
    let mut connection = connect(dir, socket);
    for _ in 0..MESSAGES {
        let mut message = match random.below(4) {
            0 => {
                let size = random.below(2_000);
                random.bytes(size)
            }
            1 => vec![0xff; random.below(packet::MAX_MESSAGE_BYTES)],
            _ => wild(&mut random),
        };
        match random.below(4) {
            0 => message.truncate(random.below(message.len() + 1)),
            1 if !message.is_empty() => {
                let place = random.below(message.len());
                message[place] ^= 1 << random.below(8);
            }
            _ => {}
        }
        if is_fatal(&message) || message.len() > packet::MAX_MESSAGE_BYTES {
            continue;
        }
        let fds: Vec<BorrowedFd<'_>> =
            (0..random.below(packet::MAX_FDS + 1)).map(|_| odd[random.below(odd.len())].as_fd()).collect();
        // It may have been dropped for the last message.
        if packet::send(connection.as_fd(), &message, &fds, false).is_err() || random.below(3) == 0 {
            connection = connect(dir, socket);
        }
    }
}

fn fds_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn children(pid: u32) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().unwrap()
}

/// Seconds of processor time.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every architecture that this runs on (proc_pid_stat(5)).
    ticks as f64 / 100.0
}

/// A process that has nothing to do does nothing.
async fn is_idle(pid: u32) {
    let (before, begun) = (cpu(pid), Instant::now());
    tokio::time::sleep(Duration::from_millis(600)).await;
    let share = (cpu(pid) - before) / begun.elapsed().as_secs_f64();
    assert!(share < IDLE_SHARE, "process {pid} uses {share} of a processor for nothing");
}

fn limit_fds(pid: u32, count: u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let maximum = line.split_whitespace().nth(4).and_then(|hard| hard.parse().ok());
    let limit = Rlimit { current: Some(count), maximum };
    rustix::process::prlimit(Pid::from_raw(i32::try_from(pid).unwrap()), Resource::Nofile, limit).unwrap();
}

/// It gets no further descriptor: the lowest free number is beyond its limit.
fn limit_to_present(pid: u32) {
    let lowest_free = (0..).find(|fd| !Path::new(&format!("/proc/{pid}/fd/{fd}")).is_symlink()).unwrap();
    limit_fds(pid, lowest_free);
}

#[tokio::test]
async fn a_zygote_withstands_garbage_and_peers_that_stall() {
    let node = Node::new();
    let pid = node.zygote.pid().unwrap();
    let (fds, mine) = (fds_of(pid), children(pid));
    for seed in [11, 12, 13] {
        storm(node.dir(), ZYGOTE_SOCKET, seed);
    }
    // Peers that connect and say nothing, and such that ask without ever reading an answer.
    let mut stalled: Vec<OwnedFd> = (0..30).map(|_| connect(node.dir(), ZYGOTE_SOCKET)).collect();
    for _ in 0..4 {
        let connection = connect(node.dir(), ZYGOTE_SOCKET);
        let hello = encode(Request::Hello(wire::Hello { version: 1 }));
        for _ in 0..2_000 {
            if packet::send(connection.as_fd(), &hello, &[], false).is_err() {
                break;
            }
        }
        stalled.push(connection);
    }
    let mut pod = Pod::new(&node, "after").await;
    assert_eq!(pod.run(sh("echo well")).await.stdout, "well\n");
    assert_eq!(node.zygote.pid().unwrap(), pid, "the zygote died");
    drop((pod, stalled));
    fixture::wait_for(|| (fds_of(pid) <= fds).then_some(())).await;
    fixture::wait_for(|| (children(pid) == mine).then_some(())).await;
    assert!(status_kib(pid, "VmRSS") < 16 << 10, "{} KiB", status_kib(pid, "VmRSS"));
    is_idle(pid).await;
}

#[tokio::test]
async fn a_shim_withstands_garbage_and_its_containers_do_not_notice() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "storm").await;
    let process = pod.start(sh("while :; do echo tick; sleep 0.02; done")).await.unwrap();
    let shim = pod.sandbox_pid;
    pod.disconnect();
    fixture::wait_for(|| Some(fds_of(shim))).await;
    let (client, _) = ShimClient::connect(pod.dir()).await.unwrap();
    let (fds, mine) = (fds_of(shim), children(shim));
    drop(client);
    for seed in [21, 22, 23] {
        storm(pod.dir(), SHIM_SOCKET, seed);
    }
    let mut stalled: Vec<OwnedFd> = (0..50).map(|_| connect(pod.dir(), SHIM_SOCKET)).collect();
    let flood = connect(pod.dir(), SHIM_SOCKET);
    let exec = encode(Request::Exec(wire::Exec { container: "none".into(), ..wire::Exec::default() }));
    for _ in 0..5_000 {
        if packet::send(flood.as_fd(), &exec, &[], false).is_err() {
            break;
        }
    }
    stalled.push(flood);
    let (client, state) = ShimClient::connect(pod.dir()).await.unwrap();
    let running: Vec<_> =
        state.containers.iter().filter_map(|c| Some((c.name.as_str(), c.process.as_ref()?.pid))).collect();
    assert_eq!(running, [("c", process.pid)]);
    let (code, out, _) = fixture::exec(&client, "c", &["echo", "well"]).await;
    assert_eq!((code, out.as_str()), (0, "well\n"));
    drop(stalled);
    fixture::wait_for(|| (fds_of(shim) <= fds).then_some(())).await;
    fixture::wait_for(|| (children(shim) == mine).then_some(())).await;
    assert!(status_kib(shim, "VmRSS") < 16 << 10, "{} KiB", status_kib(shim, "VmRSS"));
    let log = strata_runtime::logs::paths(&pod.log_dir(), "c")[0].clone();
    let length = fs::metadata(&log).unwrap().len();
    fixture::wait_for(|| (fs::metadata(&log).unwrap().len() > length).then_some(())).await;
}

#[tokio::test]
async fn a_log_that_is_no_file_is_refused() {
    let node = Node::new();
    let pod = Pod::new(&node, "pipe").await;
    let mut request = pod.request("c", sh("sleep 1000"));
    // Nobody reads it: writing to it would stop the shim, and with it every container of the pod.
    let (_read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    request.log_a = write;
    assert!(pod.client().start(request).await.is_err());
    assert!(pod.start(sh("sleep 1000")).await.is_ok());
}

#[tokio::test]
async fn without_descriptors_neither_spins_and_both_recover() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "few").await;
    let process = pod.start(sh("while :; do echo tick; sleep 0.05; done")).await.unwrap();
    let (zygote, shim) = (node.zygote.pid().unwrap(), pod.sandbox_pid);
    pod.disconnect();
    for (pid, dir, socket) in
        [(shim, pod.dir().to_owned(), SHIM_SOCKET), (zygote, node.dir().to_owned(), ZYGOTE_SOCKET)]
    {
        fixture::wait_for(|| {
            let before = fds_of(pid);
            std::thread::sleep(Duration::from_millis(50));
            (before == fds_of(pid)).then_some(())
        })
        .await;
        limit_to_present(pid);
        let waiting: Vec<OwnedFd> = (0..10).map(|_| connect(&dir, socket)).collect();
        is_idle(pid).await;
        limit_fds(pid, 1_024);
        drop(waiting);
    }
    let (client, state) = fixture::within(ShimClient::connect(pod.dir())).await.unwrap();
    assert_eq!(state.containers[0].process.as_ref().unwrap().pid, process.pid);
    assert_eq!(fixture::exec(&client, "c", &["true"]).await.0, 0);
    let mut after = Pod::new(&node, "after").await;
    assert_eq!(after.run(sh("true")).await.exit.code, 0);
    assert_eq!(node.zygote.pid().unwrap(), zygote);
}
