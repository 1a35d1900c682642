//! The server: UDP and TCP at the gateway's address. Questions that are not about services go to the node's own resolvers.

use super::names::{Answer, Data, Names, Question};
use crate::NetworkError;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{MessageType, Metadata, OpCode, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, PTR, SOA, SRV},
        },
    },
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// Seconds that an answer may be kept: services change.
const TTL_S: u32 = 5;
/// Questions that wait for other resolvers at the same time; beyond it the answer is SERVFAIL.
const FORWARDS_AT_ONCE: usize = 256;
/// How long other resolvers may take for one question.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(3);
/// After so many questions in a row that had no answer in time, others are answered with SERVFAIL at once, for [`SILENCE`].
const SILENT_AFTER: usize = 3;
/// How long resolvers that do not answer are left alone.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a TCP connection may be silent.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that wait for a slow reader of one TCP connection.
const TCP_WAITING_MAX: usize = 32;
/// Addresses in one answer.
const RECORDS_MAX: usize = 256;
/// Resolvers of the node that are asked.
const UPSTREAMS_MAX: usize = 3;

/// Serves DNS at `address`, port 53, until it is dropped. Never ends by itself, but with an error.
///
/// # Errors
/// [`NetworkError::Dns`] if the port is taken.
pub async fn serve(address: Ipv4Addr, names: Arc<Names>) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Dns { address, source };
    let at = SocketAddr::from((address, 53));
    let handler = Handler {
        names,
        upstream: upstream(address),
        forwards: Semaphore::new(FORWARDS_AT_ONCE),
        turn: AtomicUsize::new(0),
        unanswered: Mutex::new((0, Instant::now())),
    };
    let mut server = Server::new(handler);
    server.register_socket(UdpSocket::bind(at).await.map_err(failed)?);
    server.register_listener(TcpListener::bind(at).await.map_err(failed)?, TCP_TIMEOUT, TCP_WAITING_MAX);
    tracing::debug!(%address, "DNS is served");
    server.block_until_done().await.map_err(|e| failed(std::io::Error::other(e.to_string())))
}

/// The node's own resolvers (resolv.conf(5)); `None` if it has none.
fn upstream(own: Ipv4Addr) -> Option<TokioResolver> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    let servers: Vec<NameServerConfig> =
        servers.filter(|ip| *ip != IpAddr::V4(own)).take(UPSTREAMS_MAX).map(NameServerConfig::udp_and_tcp).collect();
    if servers.is_empty() {
        return None;
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.attempts = 1;
    options.timeout = FORWARD_TIMEOUT / 2;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    builder.build().inspect_err(|error| tracing::warn!(%error, "other names cannot be resolved")).ok()
}

struct Handler {
    names: Arc<Names>,
    upstream: Option<TokioResolver>,
    forwards: Semaphore,
    /// Each answer with several addresses begins with another one.
    turn: AtomicUsize,
    /// Questions in a row that other resolvers did not answer in time, and when the last one was given up.
    unanswered: Mutex<(usize, Instant)>,
}

/// What is sent back.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    /// With answers that have nothing, so that they may be kept.
    soa: Option<Record>,
}

impl Reply {
    fn error(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), soa: None }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let reply = match request.request_info() {
            Ok(info) if request.metadata.op_code == OpCode::Query => {
                self.reply(info.query.original().name(), info.query.query_type()).await
            }
            Ok(_) => Reply::error(ResponseCode::NotImp),
            Err(_) => Reply::error(ResponseCode::FormErr),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.upstream.is_some();
        let builder = MessageResponseBuilder::from_message_request(request);
        let response = builder.build(metadata, reply.answers.iter(), [], reply.soa.iter(), []);
        match out.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer was not sent");
                let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                metadata.response_code = ResponseCode::ServFail;
                hickory_resolver::proto::op::Header { metadata, counts: Default::default() }.into()
            }
        }
    }
}

impl Handler {
    async fn reply(&self, name: &Name, kind: RecordType) -> Reply {
        let question = match kind {
            RecordType::A => Question::A,
            RecordType::SRV => Question::Srv,
            RecordType::PTR => Question::Ptr,
            _ => Question::Other,
        };
        let text = name.to_ascii();
        match self.names.answer(text.trim_end_matches('.'), question) {
            Answer::NotOurs => self.forward(name, kind).await,
            Answer::NoName => Reply { code: ResponseCode::NXDomain, soa: self.soa(), ..self.ours(Vec::new()) },
            Answer::Records(data) => {
                let mut answers: Vec<Record> = data.iter().filter_map(|d| record(name, d)).collect();
                if answers.is_empty() {
                    return Reply { soa: self.soa(), ..self.ours(answers) };
                }
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answers.len();
                answers.rotate_left(turn);
                answers.truncate(RECORDS_MAX);
                self.ours(answers)
            }
        }
    }

    fn ours(&self, answers: Vec<Record>) -> Reply {
        Reply { code: ResponseCode::NoError, authoritative: true, answers, soa: None }
    }

    fn soa(&self) -> Option<Record> {
        let domain = absolute(&self.names.domain())?;
        let mail = absolute(&format!("hostmaster.{}", self.names.domain()))?;
        let soa = SOA::new(domain.clone(), mail, 1, 7200, 1800, 86_400, TTL_S);
        Some(Record::from_rdata(domain, TTL_S, RData::SOA(soa)))
    }

    async fn forward(&self, name: &Name, kind: RecordType) -> Reply {
        let (Some(upstream), Ok(_permit)) = (&self.upstream, self.forwards.try_acquire()) else {
            return Reply::error(ResponseCode::ServFail);
        };
        if self.are_silent() {
            return Reply::error(ResponseCode::ServFail);
        }
        let answered = timeout(FORWARD_TIMEOUT, upstream.lookup(name.clone(), kind)).await;
        let in_time = !matches!(&answered, Err(_) | Ok(Err(NetError::Timeout)));
        self.note_answer(in_time);
        match answered {
            Ok(Ok(lookup)) => {
                let answers = lookup.answers().iter().take(RECORDS_MAX).cloned().collect();
                Reply { code: ResponseCode::NoError, authoritative: false, answers, soa: None }
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => {
                let soa = nothing.soa.map(|soa| (*soa).into_record_of_rdata());
                Reply { code: nothing.response_code, authoritative: false, answers: Vec::new(), soa }
            }
            Ok(Err(error)) => {
                tracing::debug!(%name, %error, "another resolver has no answer");
                Reply::error(ResponseCode::ServFail)
            }
            Err(_) => Reply::error(ResponseCode::ServFail),
        }
    }
}

impl Handler {
    /// Whether other resolvers have not answered lately.
    fn are_silent(&self) -> bool {
        let (count, last) = *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        count >= SILENT_AFTER && last.elapsed() < SILENCE
    }

    fn note_answer(&self, in_time: bool) {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        *unanswered = (if in_time { 0 } else { unanswered.0.saturating_add(1) }, Instant::now());
    }
}

fn absolute(text: &str) -> Option<Name> {
    Name::from_ascii(format!("{text}.")).ok()
}

fn record(name: &Name, data: &Data) -> Option<Record> {
    let rdata = match data {
        Data::A(address) => RData::A(A(*address)),
        Data::Srv { port, target } => RData::SRV(SRV::new(0, 1, *port, absolute(target)?)),
        Data::Ptr(target) => RData::PTR(PTR(absolute(target)?)),
    };
    Some(Record::from_rdata(name.clone(), TTL_S, rdata))
}
