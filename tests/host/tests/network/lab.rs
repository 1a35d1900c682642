//! Network namespaces that live as long as a helper process, which ends when this process does.

use std::{
    fs::File,
    future::Future,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, held by a process that waits for the end of its standard input.
pub struct Netns {
    holder: Child,
}

impl Netns {
    pub fn new() -> Self {
        Self::unshare(&["--net"])
    }

    pub fn with_user_namespace() -> Self {
        Self::unshare(&["--user", "--map-root-user", "--net"])
    }

    fn unshare(flags: &[&str]) -> Self {
        let mut holder = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self { holder }
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    pub fn open(&self) -> File {
        File::open(self.path()).unwrap()
    }

    /// Runs `work` on a thread within the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.open();
        let inside = || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs `work` on a runtime of its own within the namespace.
    pub fn run<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.enter(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work))
    }

    /// The output of iproute2's `ip` within the namespace.
    pub fn ip(&self, args: &[&str]) -> String {
        ip(Some(self), args)
    }

    /// `ip monitor link` within the namespace, already listening.
    pub fn link_monitor(&self) -> Monitor {
        let net = format!("--net={}", self.path());
        let mut child =
            Command::new("nsenter").args([&net, "ip", "-o", "monitor", "link"]).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let monitor = Monitor { child, lines };
        // It says nothing when it is ready: poke until it reports.
        for n in 0..200 {
            self.ip(&["link", "set", "lo", "alias", &format!("poke{n}")]);
            if monitor.lines.recv_timeout(Duration::from_millis(50)).is_ok() {
                return monitor;
            }
        }
        panic!("ip monitor does not report");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
}

/// Reports of link changes.
pub struct Monitor {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Monitor {
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            if wanted(&line) {
                return;
            }
        }
        panic!("the report did not come");
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A bridge in a namespace of its own that nodes are plugged into.
pub struct Lab {
    switch: Netns,
    mtu: u32,
}

/// A node: its namespace has the link `uplink`.
pub struct Node {
    pub netns: Netns,
    pub address: Ipv4Addr,
}

impl Lab {
    pub fn new(mtu: u32) -> Self {
        let switch = Netns::new();
        switch.ip(&["link", "add", "lan", "type", "bridge"]);
        switch.ip(&["link", "set", "lan", "up"]);
        Self { switch, mtu }
    }

    pub fn node(&self, n: u8) -> Node {
        let netns = Netns::new();
        let address = Ipv4Addr::new(192, 168, 77, 100 + n);
        let (port, mtu, pid) = (format!("port{n}"), self.mtu.to_string(), netns.holder.id().to_string());
        let peer = ["peer", "name", "uplink", "mtu", &mtu, "netns", &pid];
        self.switch.ip(&[&["link", "add", &port, "mtu", &mtu, "type", "veth"][..], &peer].concat());
        self.switch.ip(&["link", "set", &port, "master", "lan", "up"]);
        // A new namespace inherits this from the machine; a node must not depend on it.
        netns.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
        netns.ip(&["link", "set", "lo", "up"]);
        netns.ip(&["address", "add", &format!("{address}/24"), "dev", "uplink"]);
        netns.ip(&["link", "set", "uplink", "up"]);
        Node { netns, address }
    }
}

/// Two nodes that share no link, but a router between them; it lives as long as the first value.
pub fn routed_pair() -> (Netns, Node, Node) {
    let router = Netns::new();
    router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let node = |n: u8| {
        let netns = Netns::new();
        let (port, pid) = (format!("port{n}"), netns.holder.id().to_string());
        let (address, gateway) = (Ipv4Addr::new(192, 168, 80 + n, 2), format!("192.168.{}.1", 80 + n));
        router.ip(&["link", "add", &port, "type", "veth", "peer", "name", "uplink", "netns", &pid]);
        router.ip(&["address", "add", &format!("{gateway}/24"), "dev", &port]);
        router.ip(&["link", "set", &port, "up"]);
        netns.ip(&["link", "set", "lo", "up"]);
        netns.ip(&["address", "add", &format!("{address}/24"), "dev", "uplink"]);
        netns.ip(&["link", "set", "uplink", "up"]);
        netns.ip(&["route", "add", "default", "via", &gateway]);
        Node { netns, address }
    };
    let (a, b) = (node(1), node(2));
    (router, a, b)
}

/// Index and name of each link.
pub fn links_of(netns: Option<&Netns>) -> Vec<String> {
    let all = ip(netns, &["-o", "link"]);
    all.lines().map(|l| l.splitn(3, ':').take(2).collect()).collect()
}

fn ip(netns: Option<&Netns>, args: &[&str]) -> String {
    let mut command = match netns {
        Some(netns) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", netns.path())).arg("ip");
            command
        }
        None => Command::new("ip"),
    };
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
