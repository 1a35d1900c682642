//! The node's network on the real kernel: two "nodes" are network namespaces joined by a bridge in a third, pods are further ones.
//! Nothing here touches the network namespace of the machine. Needs root and iproute2.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "network/lab.rs"]
mod lab;

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use lab::{Lab, Netns, links_of};
use strata_model::Subnet;
use strata_network::{NetworkError, NodeNetwork, Overlay, Peer, ROUTE_PROTOCOL, host_ifname};

const BRIDGE: &str = "strata0";

fn subnet(n: u8) -> Subnet {
    format!("10.99.{}.0/20", n * 16).parse().unwrap()
}

fn address(n: u8, index: u32) -> Ipv4Addr {
    subnet(n).address(index).unwrap()
}

/// Attaches a pod to a node whose network is there already.
fn attach(node: &Netns, n: u8, pod: &Netns, index: u32) -> Result<String, NetworkError> {
    let netns = pod.open();
    node.run(async move {
        let network = NodeNetwork::ensure(BRIDGE, subnet(n), None, Overlay::Auto).await?;
        let ifname = host_ifname(&format!("{n}/{index}"));
        network.attach(netns.as_fd(), &ifname, address(n, index)).await?;
        Ok(ifname)
    })
}

/// Sends a word over TCP from one namespace to another and answers with the address the server saw.
fn tcp(client: &Netns, server: &Netns, to: Ipv4Addr) -> IpAddr {
    let (ready, port) = mpsc::channel();
    thread::scope(|scope| {
        let seen = scope.spawn(|| {
            server.enter(|| {
                let listener = TcpListener::bind((to, 0)).unwrap();
                ready.send(listener.local_addr().unwrap().port()).unwrap();
                // A client that cannot reach us must end the test, not hang it.
                let mut wait = [PollFd::new(&listener, PollFlags::IN)];
                let limit = Timespec { tv_sec: 15, tv_nsec: 0 };
                assert_eq!(poll(&mut wait, Some(&limit)).unwrap(), 1, "no connection came");
                let (mut stream, from) = listener.accept().unwrap();
                let mut word = [0; 4];
                stream.read_exact(&mut word).unwrap();
                assert_eq!(&word, b"word");
                stream.write_all(b"back").unwrap();
                from.ip()
            })
        });
        let port = port.recv().unwrap();
        client.enter(|| {
            let to = SocketAddr::from((to, port));
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
            stream.write_all(b"word").unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).unwrap();
            assert_eq!(back, "back");
        });
        seen.join().unwrap()
    })
}

#[test]
fn pods_reach_each_other_within_and_across_nodes_with_their_own_addresses() {
    {
        let lab = Lab::new(1400);
        let (a, b) = (lab.node(1), lab.node(2));
        let (a1, a2, b1) = (Netns::new(), Netns::with_user_namespace(), Netns::with_user_namespace());
        attach(&a.netns, 1, &a1, 2).unwrap();
        attach(&a.netns, 1, &a2, 3).unwrap();
        attach(&b.netns, 2, &b1, 2).unwrap();
        for (node, n, peer) in [(&a, 1, &b), (&b, 2, &a)] {
            let peers =
                [Peer { subnet: subnet(1), address: a.address }, Peer { subnet: subnet(2), address: b.address }];
            let changes = node.netns.run(async move {
                NodeNetwork::ensure(BRIDGE, subnet(n), None, Overlay::Auto)
                    .await
                    .unwrap()
                    .ensure_peer_routes(&peers)
                    .await
                    .unwrap()
            });
            assert!(changes.failed.is_empty() && changes.set == 1, "{changes:?} to {}", peer.address);
        }

        assert_eq!(tcp(&a1, &a2, address(1, 3)), address(1, 2), "two pods of one node");
        assert_eq!(tcp(&a1, &b1, address(2, 2)), address(1, 2), "across nodes, no address translated");
        assert_eq!(tcp(&b1, &a2, address(1, 3)), address(2, 2), "and back");
        assert_eq!(tcp(&a.netns, &a1, address(1, 2)), address(1, 1), "the node and its pod");
        assert_eq!(tcp(&a.netns, &b1, address(2, 2)), IpAddr::V4(a.address), "a node and another's pod");
        assert_eq!(tcp(&a1, &a.netns, address(1, 1)), address(1, 2), "a pod and its gateway");
        assert_eq!(tcp(&a1, &a1, Ipv4Addr::LOCALHOST), Ipv4Addr::LOCALHOST, "loopback is up");

        // Packets of the largest size pass: the pods took their MTU from the uplink.
        assert!(a1.ip(&["-o", "link", "show", "eth0"]).contains("mtu 1400"));
        let (ready, port) = mpsc::channel();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                b1.enter(|| {
                    let socket = UdpSocket::bind((address(2, 2), 0)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    ready.send(socket.local_addr().unwrap().port()).unwrap();
                    socket.recv(&mut [0; 9000]).unwrap()
                })
            });
            let port = port.recv().unwrap();
            a1.enter(|| {
                let socket = UdpSocket::bind((address(1, 2), 0)).unwrap();
                socket.send_to(&[7; 1372], (address(2, 2), port)).unwrap();
            });
            assert_eq!(receiver.join().unwrap(), 1372);
        });
    }
    let ours =
        |link: &&String| ["strata0", "sp", "uplink", "port"].iter().any(|name| link.contains(&format!(" {name}")));
    assert_eq!(links_of(None).iter().find(ours), None, "nothing in the machine's own network namespace");
}

#[test]
fn everything_may_be_repeated_and_running_pods_do_not_notice() {
    let lab = Lab::new(1500);
    let a = lab.node(1);
    let (a1, a2) = (Netns::new(), Netns::new());
    let name = attach(&a.netns, 1, &a1, 2).unwrap();
    attach(&a.netns, 1, &a2, 3).unwrap();
    let links = links_of(Some(&a.netns));
    let inside = a1.ip(&["-o", "-4", "address"]);
    for _ in 0..2 {
        assert_eq!(attach(&a.netns, 1, &a1, 2).unwrap(), name);
    }
    assert_eq!(links_of(Some(&a.netns)), links, "no link is made twice or anew");
    assert_eq!(a1.ip(&["-o", "-4", "address"]), inside);
    assert_eq!(tcp(&a1, &a2, address(1, 3)), address(1, 2));

    // A bridge keeps its MAC address whatever is attached to it, so that pods' neighbour entries stay right.
    assert!(a.netns.ip(&["-o", "link", "show", BRIDGE]).contains("0a:58:0a:63:10:01"));

    // The host's end under another's name, and an eth0 that is another's, are not taken over.
    let other = Netns::new();
    let netns = other.open();
    let taken = name.clone();
    let result = a.netns.run(async move {
        NodeNetwork::ensure(BRIDGE, subnet(1), None, Overlay::Auto)
            .await?
            .attach(netns.as_fd(), &taken, address(1, 9))
            .await
    });
    assert!(matches!(result, Err(NetworkError::ForeignLink { .. })), "{result:?}");
    other.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "x"]);
    let result = attach(&a.netns, 1, &other, 9);
    assert!(matches!(result, Err(NetworkError::ForeignLink { .. })), "{result:?}");
    assert_eq!(links_of(Some(&a.netns)), links);

    // Addresses that are no pod's here.
    for bad in [address(1, 1), address(2, 2), Ipv4Addr::new(10, 99, 31, 255), Ipv4Addr::new(10, 99, 16, 0)] {
        let netns = other.open();
        let result = a.netns.run(async move {
            NodeNetwork::ensure(BRIDGE, subnet(1), None, Overlay::Auto)
                .await?
                .attach(netns.as_fd(), "sp-test", bad)
                .await
        });
        assert!(matches!(result, Err(NetworkError::BadAddress { .. })), "{bad}: {result:?}");
    }

    // Another subnet: the bridge has its gateway only.
    a.netns.run(async { NodeNetwork::ensure(BRIDGE, subnet(3), None, Overlay::Auto).await.map(|_| ()) }).unwrap();
    let addresses = a.netns.ip(&["-o", "-4", "address", "show", BRIDGE]);
    assert!(addresses.contains("10.99.48.1/20") && addresses.lines().count() == 1, "{addresses}");

    // A name that belongs to something else.
    let result = a.netns.run(async { NodeNetwork::ensure("uplink", subnet(1), None, Overlay::Auto).await.map(|_| ()) });
    assert!(matches!(result, Err(NetworkError::NotABridge { .. })), "{result:?}");
}

#[test]
fn many_pods_are_attached_at_once() {
    let lab = Lab::new(1500);
    let a = lab.node(1);
    let pods: Vec<Netns> = (0..16).map(|_| Netns::new()).collect();
    let fds: Vec<_> = pods.iter().map(Netns::open).collect();
    a.netns.run(async move {
        let network = NodeNetwork::ensure(BRIDGE, subnet(1), None, Overlay::Auto).await.unwrap();
        let mut attached = Vec::new();
        let network = std::sync::Arc::new(network);
        for (i, netns) in (2..).zip(fds) {
            let network = network.clone();
            attached.push(tokio::spawn(async move {
                network.attach(netns.as_fd(), &host_ifname(&i.to_string()), address(1, i)).await
            }));
        }
        for one in attached {
            one.await.unwrap().unwrap();
        }
    });
    assert_eq!(tcp(&pods[0], &pods[15], address(1, 17)), address(1, 2));
}

#[test]
fn routes_are_exactly_those_wanted_and_foreign_ones_stay() {
    let lab = Lab::new(1500);
    let a = lab.node(1);
    let via = Ipv4Addr::new(192, 168, 77, 2);
    let ensure = |peers: Vec<Peer>| {
        a.netns.run(async move {
            NodeNetwork::ensure(BRIDGE, subnet(1), None, Overlay::Direct)
                .await
                .unwrap()
                .ensure_peer_routes(&peers)
                .await
                .unwrap()
        })
    };
    let ours = || a.netns.ip(&["-4", "route", "show", "proto", &ROUTE_PROTOCOL.to_string()]);
    a.netns.ip(&["route", "add", "10.99.64.0/20", "via", "192.168.77.9"]);
    a.netns.ip(&["route", "add", "10.5.0.0/16", "via", "192.168.77.9"]);

    let peer = |n, address| Peer { subnet: subnet(n), address };
    let changes = ensure(vec![peer(1, a.address), peer(2, via), peer(3, via)]);
    assert_eq!((changes.set, changes.removed, changes.failed.len()), (2, 0, 0), "{changes:?}");
    let changes = ensure(vec![peer(2, via), peer(3, via)]);
    assert_eq!((changes.set, changes.removed, changes.failed.len()), (0, 0, 0), "a second time does nothing");
    // One moves, one goes, one is taken by somebody else's route, one is on no link of ours.
    let moved = Ipv4Addr::new(192, 168, 77, 3);
    let changes = ensure(vec![peer(2, moved), peer(4, via), peer(5, Ipv4Addr::new(172, 16, 0, 1))]);
    assert_eq!((changes.set, changes.removed), (1, 1), "{changes:?}");
    assert!(matches!(&changes.failed[0], (p, NetworkError::ForeignRoute { .. }) if p.subnet == subnet(4)));
    assert!(matches!(&changes.failed[1], (p, NetworkError::Kernel { .. }) if p.subnet == subnet(5)));
    assert_eq!(ours().trim(), "10.99.32.0/20 via 192.168.77.3 dev uplink", "{}", ours());
    ensure(vec![]);
    assert_eq!(ours().trim(), "");
    let all = a.netns.ip(&["-4", "route"]);
    assert!(all.contains("10.99.64.0/20 via 192.168.77.9") && all.contains("10.5.0.0/16 via 192.168.77.9"), "{all}");
}

#[test]
fn pods_of_nodes_that_share_no_link_reach_each_other_by_vxlan() {
    let (_router, a, b) = lab::routed_pair();
    let peers = [Peer { subnet: subnet(1), address: a.address }, Peer { subnet: subnet(2), address: b.address }];
    let ensure = |node: &Netns, n: u8, peers: &[Peer]| {
        node.run(async move {
            let network = NodeNetwork::ensure(BRIDGE, subnet(n), None, Overlay::Auto).await.unwrap();
            network.ensure_peer_routes(peers).await.unwrap()
        })
    };
    let (pod_a, pod_b) = (Netns::new(), Netns::new());
    attach(&a.netns, 1, &pod_a, 2).unwrap();
    attach(&b.netns, 2, &pod_b, 2).unwrap();
    let changes = ensure(&a.netns, 1, &peers);
    assert_eq!((changes.set, changes.failed.len()), (1, 0), "{changes:?}");
    ensure(&b.netns, 2, &peers);
    assert_eq!(tcp(&pod_a, &pod_b, address(2, 2)), address(1, 2), "the pod's own address is seen");
    assert_eq!(tcp(&pod_b, &pod_a, address(1, 2)), address(2, 2));
    assert_eq!(tcp(&a.netns, &pod_b, address(2, 2)), address(1, 1), "the node comes from an address that leads back");
    let changes = ensure(&a.netns, 1, &peers);
    assert_eq!((changes.set, changes.removed), (0, 0), "a second time does nothing");
    // Nothing is learnt or flooded; what is too large is answered with the size that fits.
    let device = a.netns.ip(&["-d", "link", "show", "type", "vxlan"]);
    let about = device.split("vxlan id").nth(1).unwrap_or_default();
    assert!(about.contains("nolearning") && device.contains("mtu 1450") && !about.contains(" group "), "{device}");
    let ping = |size: &str| {
        pod_a.enter(|| {
            let to = address(2, 2).to_string();
            std::process::Command::new("busybox")
                .args(["ping", "-c", "1", "-W", "5", "-s", size, &to])
                .output()
                .unwrap()
        })
    };
    assert!(ping("1400").status.success(), "it fits");
    assert!(ping("8000").status.success(), "it is taken apart");
    // A peer that goes takes its entries along, the last one the device.
    ensure(&a.netns, 1, &[]);
    assert_eq!(a.netns.ip(&["link", "show", "type", "vxlan"]), "");
    assert_eq!(a.netns.ip(&["-4", "route", "show", "proto", &ROUTE_PROTOCOL.to_string()]).trim(), "");
}

#[test]
fn sweep_takes_links_of_pods_that_are_gone_and_no_others() {
    let lab = Lab::new(1500);
    let a = lab.node(1);
    let (kept, stale) = (Netns::new(), Netns::new());
    let keep = attach(&a.netns, 1, &kept, 2).unwrap();
    let gone = attach(&a.netns, 1, &stale, 3).unwrap();
    a.netns.ip(&["link", "add", "mine", "type", "veth", "peer", "name", "mine2"]);
    a.netns.ip(&["link", "set", "mine", "master", BRIDGE]);
    let sweep = || {
        let keep = HashSet::from([keep.clone()]);
        a.netns.run(async move {
            NodeNetwork::ensure(BRIDGE, subnet(1), None, Overlay::Auto).await.unwrap().sweep(&keep).await.unwrap()
        })
    };
    assert_eq!(sweep(), vec![gone.clone()]);
    assert_eq!(sweep(), Vec::<String>::new());
    let links = a.netns.ip(&["-o", "link"]);
    assert!(links.contains(&keep) && links.contains("mine@") && !links.contains(&gone), "{links}");
    assert!(!stale.ip(&["-o", "link"]).contains("eth0"));

    // A pod's link dies with its namespace, without our help.
    let monitor = a.netns.link_monitor();
    drop(kept);
    monitor.wait_for(|line| line.starts_with("Deleted") && line.contains(&keep));
    assert!(!a.netns.ip(&["-o", "link"]).contains(&keep));
}
