//! Who gets in: every service of the running controller and agents against certificates and tokens that should open nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use std::{
    future::Future,
    time::{Duration, SystemTime},
};
use strata_proto::{
    cluster::{
        GetRequest, InfoRequest, JoinRequest, cluster_client::ClusterClient, join_client::JoinClient,
        objects_client::ObjectsClient,
    },
    dispatch::{AgentMessage, dispatch_client::DispatchClient},
    node::{LogsRequest, node_client::NodeClient},
    peer::{GetLayerRequest, peer_client::PeerClient},
    types::Kind,
};
use strata_testkit::{Cluster, eventually};
use strata_transport::{
    CONTROLLER_SERVER_NAME, Identity, Role, client, node_server_name,
    pki::{CERTIFICATE_VALIDITY, Ca, KeyPair},
    token::JoinToken,
};
use tonic::{Code, Status, transport::Channel};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    strata_transport::install_crypto();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A server of the cluster and the name in its certificate.
struct Door {
    address: String,
    name: String,
}

fn controller(cluster: &Cluster) -> Result<Door> {
    let address = cluster.status()?["controller"]["address"].as_str().context("address")?.to_owned();
    Ok(Door { address, name: CONTROLLER_SERVER_NAME.to_owned() })
}

fn node(cluster: &Cluster, name: &str) -> Result<Door> {
    let status = cluster.ctl(&["get", "node", name, "-o", "json"])?.ok()?.json()?["status"].clone();
    let address = format!("{}:{}", status["address"].as_str().context("address")?, status["port"]);
    Ok(Door { address, name: node_server_name(name) })
}

fn ca(cluster: &Cluster) -> Result<Ca> {
    Ok(Ca::load(&cluster.home().join("controller/pki"))?)
}

/// What each service answers to a harmless call: the code, or why there is no connection.
async fn answers(door: &Door, identity: &Identity) -> Vec<(&'static str, Result<(), Code>)> {
    let services: &[&'static str] =
        if door.name == CONTROLLER_SERVER_NAME { &["Objects", "Cluster", "Dispatch"] } else { &["Node", "Peer"] };
    let Ok(channel) = client::channel(&door.address, identity, &door.name).await else {
        return services.iter().map(|s| (*s, Err(Code::Unauthenticated))).collect();
    };
    let mut answers = Vec::new();
    for service in services {
        let answer = call(service, channel.clone()).await;
        answers.push((*service, answer.map_err(|status| status.code())));
    }
    answers
}

async fn call(service: &str, channel: Channel) -> Result<(), Status> {
    match service {
        "Objects" => {
            let get = GetRequest { kind: Kind::Namespace.into(), name: "default".into(), ..GetRequest::default() };
            ObjectsClient::new(channel).get(get).await.map(|_| ())
        }
        "Cluster" => ClusterClient::new(channel).info(InfoRequest {}).await.map(|_| ()),
        // An empty stream is refused for what it lacks, but only of whom may have a session at all.
        "Dispatch" => {
            let nothing = tokio_stream::iter(Vec::<AgentMessage>::new());
            let mut session = DispatchClient::new(channel).session(nothing).await?.into_inner();
            session.message().await.map(|_| ())
        }
        "Node" => {
            let logs = LogsRequest { pod_uid: "none".into(), ..LogsRequest::default() };
            NodeClient::new(channel).logs(logs).await.map(|_| ())
        }
        _ => {
            let layer = GetLayerRequest { diff_id: format!("sha256:{}", "0".repeat(64)), offset: 0 };
            let mut chunks = PeerClient::new(channel).get_layer(layer).await?.into_inner();
            chunks.message().await.map(|_| ())
        }
    }
}

fn is_shut(answer: &Result<(), Code>) -> bool {
    matches!(answer, Err(Code::Unauthenticated | Code::PermissionDenied | Code::Unavailable))
}

#[test]
fn foreign_expired_future_and_missing_certificates_open_no_service() -> Result<()> {
    let cluster = Cluster::here()?;
    let (ours, foreign) = (ca(&cluster)?, Ca::create()?);
    let doors = [controller(&cluster)?, node(&cluster, "node-1")?];
    block_on(async {
        let now = SystemTime::now();
        for role in [Role::Admin, Role::Node, Role::Controller] {
            let stranger = Identity { ca_pem: ours.cert_pem().to_owned(), ..foreign.issue(role, "node-2")? };
            // One of ours with a stranger's key.
            let stolen = Identity { key_pem: KeyPair::generate()?.pem(), ..ours.issue(role, "node-2")? };
            let expired = ours.issue_dated(role, "node-2", now - CERTIFICATE_VALIDITY - DAY, CERTIFICATE_VALIDITY)?;
            let early = ours.issue_dated(role, "node-2", now + DAY, CERTIFICATE_VALIDITY)?;
            let nobody = Identity { ca_pem: ours.cert_pem().to_owned(), ..Identity::default() };
            for (what, identity) in
                [("foreign", stranger), ("stolen", stolen), ("expired", expired), ("early", early), ("none", nobody)]
            {
                for door in &doors {
                    for (service, answer) in answers(door, &identity).await {
                        ensure!(is_shut(&answer), "{what} {role:?} at {service} of {}: {answer:?}", door.name);
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn every_role_opens_its_own_services_and_no_other() -> Result<()> {
    let cluster = Cluster::here()?;
    let ours = ca(&cluster)?;
    let doors = [controller(&cluster)?, node(&cluster, "node-1")?];
    block_on(async {
        for (role, open) in [
            (Role::Admin, &["Objects", "Cluster"][..]),
            (Role::Node, &["Dispatch", "Peer"][..]),
            (Role::Controller, &["Node"][..]),
        ] {
            // No node of this name is there: its session ends before it says Hello, so none comes to be.
            let identity = ours.issue(role, "visitor")?;
            for door in &doors {
                for (service, answer) in answers(door, &identity).await {
                    let expected = open.contains(&service);
                    ensure!(is_shut(&answer) != expected, "{role:?} at {service} of {}: {answer:?}", door.name);
                }
            }
        }
        // Nor does a server's certificate stand for another server.
        let elsewhere = Door { name: node_server_name("node-2"), ..node(&cluster, "node-1")? };
        let refused = client::channel(&elsewhere.address, &ours.issue(Role::Controller, "c")?, &elsewhere.name).await;
        ensure!(refused.is_err(), "node-1 passed for node-2");
        Ok(())
    })?;
    cluster.ctl(&["get", "node", "visitor"])?.code_is(3)?;
    Ok(())
}

async fn join(door: &Door, token: &JoinToken, node: &str) -> Result<(), String> {
    let channel = client::channel_pinned(&door.address, &token.ca_fingerprint).await.map_err(|e| e.to_string())?;
    let csr_pem = KeyPair::generate().and_then(|key| key.csr_pem(node)).map_err(|e| e.to_string())?;
    let request =
        JoinRequest { token_id: token.id.clone(), secret: token.secret.clone(), node: node.to_owned(), csr_pem };
    JoinClient::new(channel).join(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
}

fn token(cluster: &Cluster, args: &[&str]) -> Result<JoinToken> {
    let args: Vec<&str> = ["token", "create"].iter().chain(args).copied().collect();
    Ok(cluster.ctl(&args)?.ok()?.stdout.trim().parse()?)
}

#[test]
fn a_token_that_is_used_expired_garbled_or_of_another_cluster_joins_nobody() -> Result<()> {
    let cluster = Cluster::here()?;
    let door = controller(&cluster)?;
    let once = token(&cluster, &["--uses", "1"])?;
    block_on(async {
        join(&door, &once, "joiner").await.map_err(anyhow::Error::msg)?;
        let used = join(&door, &once, "joiner").await.unwrap_err();
        ensure!(used.contains("used up") && used.contains("ctl token create"), "{used}");
        let good = token(&cluster, &["--uses", "5"])?;
        let flip = |text: &str| format!("{}{}", if text.starts_with('0') { "1" } else { "0" }, &text[1..]);
        for garbled in [
            JoinToken { secret: flip(&good.secret), ..good.clone() },
            JoinToken { id: flip(&good.id), ..good.clone() },
            JoinToken { secret: String::new(), ..good.clone() },
            JoinToken { ca_fingerprint: flip(&good.ca_fingerprint), ..good.clone() },
        ] {
            ensure!(join(&door, &garbled, "joiner").await.is_err(), "{garbled:?}");
        }
        // A node that is connected keeps its name, whoever has a token.
        let taken = join(&door, &good, "node-1").await.unwrap_err();
        ensure!(taken.contains("node-1") && taken.contains("connected"), "{taken}");
        for name in ["", "Node-1", "../x", "a b", &"n".repeat(300)] {
            ensure!(join(&door, &good, name).await.is_err(), "{name:?}");
        }
        Ok(())
    })?;
    let short = token(&cluster, &["--ttl", "1s"])?;
    eventually("the token has expired", 10, || {
        let refused = block_on(async { Ok(join(&door, &short, "joiner").await) })?;
        ensure!(refused.is_err(), "it still joins");
        Ok(())
    })?;
    // Joining alone makes no node: it takes a session.
    cluster.ctl(&["get", "node", "joiner"])?.code_is(3)?;
    Ok(())
}

#[test]
fn an_agent_with_a_bad_token_says_so_and_ends() -> Result<()> {
    let cluster = Cluster::here()?;
    let state = cluster.home().join("joiner");
    std::fs::create_dir_all(&state)?;
    let settings = cluster.home().join("joiner.toml");
    let address = controller(&cluster)?.address;
    let wrong = token(&cluster, &[])?;
    for (text, words) in [
        ("strata.x".to_owned(), "ctl token create"),
        (JoinToken { secret: "0".repeat(64), ..wrong }.to_string(), "ctl token create"),
    ] {
        std::fs::write(
            &settings,
            format!(
                "node = \"joiner\"\ncontroller = \"{address}\"\ntoken = \"{text}\"\nstate_dir = {state:?}\nlisten = \"127.0.0.1:0\"\nid_start = 536870912\n"
            ),
        )?;
        let mut agent = std::process::Command::new(cluster.home().join("bin/strata-agent"));
        agent.arg("--config").arg(&settings);
        let run = strata_testkit::Run::of(agent, "")?;
        ensure!(run.code != 0 && run.stderr.contains(words), "{}: {}", run.code, run.stderr);
        ensure!(!run.stderr.contains(&text) || text.len() < 10, "the message repeats the token");
    }
    // What it made: a zygote may have been started for it.
    for (pid, name) in cluster.processes()? {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if name == "strata-shim" && environment.contains("/joiner") {
            cluster.kill9(pid)?;
        }
    }
    for pin in ["pin/mnt", "pin"] {
        std::process::Command::new("umount").arg("-l").arg(state.join(pin)).status()?;
    }
    std::fs::remove_file(settings)?;
    std::fs::remove_dir_all(state)?;
    Ok(())
}
