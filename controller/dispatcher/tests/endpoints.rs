//! Which pods are behind which service, and what sessions are told of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use strata_dispatcher::{Catalog, FRAMES_MAX, PodFacts, REMOVED_SERVICES_KEPT, ServiceFrame, ServiceSession, Serving};
use strata_model::{ObjectName, Protocol, ServicePort, ServiceSpec, TargetPort, Uid};

fn spec(app: &str) -> ServiceSpec {
    let port = ServicePort {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Named("http".into()),
        published: None,
    };
    ServiceSpec { selector: [("app".into(), app.into())].into(), ports: vec![port], ..ServiceSpec::default() }
}

fn pod(n: u8, app: &str, serving: Serving) -> PodFacts {
    PodFacts {
        uid: Uid::from_trusted(format!("pod-{n}")),
        namespace: "default".into(),
        labels: BTreeMap::from([("app".into(), app.into()), ("tier".into(), "x".into())]),
        address: Some([10, 64, 16, n].into()),
        node: "a".into(),
        hostname: String::new(),
        serving,
        ports: vec![("http".into(), Protocol::Tcp, 8080), ("http".into(), Protocol::Udp, 1)],
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn addresses(catalog: &Catalog, service: &str) -> Vec<u8> {
    catalog.view(&name(service)).unwrap().endpoints.iter().map(|e| e.address.octets()[3]).collect()
}

#[test]
fn ready_pods_with_the_labels_are_behind_a_service_with_their_named_port() {
    let mut catalog = Catalog::default();
    catalog.set_service(&name("web"), spec("web"), 0, [pod(2, "web", Serving::Ready), pod(3, "db", Serving::Ready)]);
    catalog.set_pod(&pod(4, "web", Serving::Unready), 0);
    catalog.set_pod(&pod(5, "web", Serving::Ready), 0);
    catalog.set_pod(&PodFacts { namespace: "other".into(), ..pod(6, "web", Serving::Ready) }, 0);
    assert_eq!(addresses(&catalog, "web"), [2, 5]);
    assert_eq!(catalog.view(&name("web")).unwrap().endpoints[0].ports, [8080]);
    let open = ServiceSpec { publish_not_ready: true, ..spec("web") };
    let all = [pod(2, "web", Serving::Ready), pod(4, "web", Serving::Unready), pod(7, "web", Serving::Not)];
    catalog.set_service(&name("web"), open, 0, all);
    assert_eq!(addresses(&catalog, "web"), [2, 4]);
}

#[test]
fn whoever_leaves_is_known_with_the_version_that_says_so() {
    let mut catalog = Catalog::default();
    catalog.set_service(&name("web"), spec("web"), 0, [pod(2, "web", Serving::Ready)]);
    assert_eq!(catalog.left("pod-2"), None);
    catalog.set_pod(&pod(3, "none", Serving::Not), 5);
    assert_eq!(catalog.left("pod-3"), None, "it was in no service");
    catalog.set_pod(&pod(2, "web", Serving::Not), 5);
    assert_eq!(catalog.left("pod-2"), Some((catalog.version(), 5)));
    catalog.forget_left(6);
    assert_eq!(catalog.left("pod-2"), None);
}

#[test]
fn changes_that_change_nothing_are_none() {
    let mut catalog = Catalog::default();
    catalog.set_service(&name("web"), spec("web"), 0, [pod(2, "web", Serving::Ready)]);
    let version = catalog.version();
    catalog.set_service(&name("web"), spec("web"), 0, []);
    catalog.set_pod(&pod(2, "web", Serving::Ready), 0);
    catalog.set_pod(&pod(9, "else", Serving::Ready), 0);
    catalog.remove_pod(&Uid::from_trusted("pod-9"), 0);
    assert_eq!(catalog.version(), version);
}

#[test]
fn a_session_is_told_everything_once_and_then_what_changed() {
    let mut catalog = Catalog::default();
    let mut session = ServiceSession::new();
    assert_eq!(
        session.frame(&catalog),
        ServiceFrame::Full { sequence: 1, services: vec![] },
        "also that there are none"
    );
    catalog.set_service(&name("web"), spec("web"), 0, [pod(2, "web", Serving::Ready)]);
    catalog.set_service(&name("db"), spec("db"), 0, []);
    let ServiceFrame::Delta { sequence: 2, changed, removed } = session.frame(&catalog) else { panic!("a delta") };
    assert_eq!((changed.len(), removed.len()), (2, 0));
    assert_eq!(session.frame(&catalog), ServiceFrame::Nothing);
    // Many changes of one service are one; what came and went in between is only gone.
    for n in 3..9 {
        catalog.set_pod(&pod(n, "web", Serving::Ready), 0);
    }
    catalog.set_service(&name("brief"), spec("brief"), 0, []);
    catalog.remove_service(&name("brief"), 0);
    catalog.remove_service(&name("db"), 0);
    let ServiceFrame::Delta { sequence: 3, changed, removed } = session.frame(&catalog) else { panic!("a delta") };
    assert_eq!(changed.iter().map(|v| v.name.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(removed, [name("brief"), name("db")]);
    // A service of the same name made anew is not removed.
    catalog.set_service(&name("db"), spec("db"), 0, []);
    let ServiceFrame::Delta { changed, removed, .. } = session.frame(&catalog) else { panic!("a delta") };
    assert_eq!((changed.len(), removed.len()), (1, 0));
}

#[test]
fn acknowledgements_say_what_is_in_effect_and_bound_what_waits() {
    let mut catalog = Catalog::default();
    let mut session = ServiceSession::new();
    let mut frames = 0;
    for n in 0..20 {
        catalog.set_service(&name(&format!("s{n}")), spec("web"), 0, []);
        frames += u64::from(session.frame(&catalog) != ServiceFrame::Nothing);
    }
    assert_eq!((frames, session.in_effect()), (FRAMES_MAX as u64, None));
    session.acknowledge(2);
    assert_eq!(session.in_effect(), Some(2));
    assert_ne!(session.frame(&catalog), ServiceFrame::Nothing);
    session.acknowledge(9);
    assert_eq!(session.in_effect(), Some(catalog.version()));
}

#[test]
fn a_session_that_is_too_far_behind_is_told_everything() {
    let mut catalog = Catalog::default();
    let mut session = ServiceSession::new();
    session.frame(&catalog);
    for n in 0..=REMOVED_SERVICES_KEPT {
        catalog.set_service(&name(&format!("s{n}")), spec("web"), 0, []);
        catalog.remove_service(&name(&format!("s{n}")), 0);
    }
    assert!(matches!(session.frame(&catalog), ServiceFrame::Full { sequence: 2, .. }));
}
