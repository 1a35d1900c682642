//! Counting the requests of the API by method and status code, and how long their answers took: a layer around all services.

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http_body::Frame;
use prost::Message as _;
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use strata_telemetry::metrics::{Counter, Histogram};
use tonic::{Code, codegen::http::HeaderMap, service::Routes};

/// Every status code of gRPC.
const CODES: usize = 17;
/// Whose methods are told apart.
const SERVICES: [&str; 2] = ["strata.cluster.v1", "strata.dispatch.v1"];
/// The word for all other methods.
const OTHER: &str = "Other";

/// The counts.
#[derive(Debug)]
pub struct Requests {
    methods: BTreeMap<String, Arc<Method>>,
    other: Arc<Method>,
}

#[derive(Debug)]
struct Method {
    /// `Objects/Apply`.
    word: String,
    codes: [Counter; CODES],
    seconds: Histogram,
}

impl Method {
    fn new(word: String) -> Arc<Self> {
        Arc::new(Self { word, codes: Default::default(), seconds: Histogram::latencies() })
    }

    fn ended(&self, code: Code) {
        if let Some(counter) = usize::try_from(i32::from(code)).ok().and_then(|n| self.codes.get(n)) {
            counter.increment();
        }
    }
}

impl Default for Requests {
    /// Knows the methods that the API's descriptors name: paths that somebody makes up are all counted as one.
    fn default() -> Self {
        let files = prost_types::FileDescriptorSet::decode(strata_proto::DESCRIPTORS).unwrap_or_default();
        let mut methods = BTreeMap::new();
        for file in files.file.iter().filter(|f| SERVICES.contains(&f.package())) {
            for service in &file.service {
                for method in &service.method {
                    let word = format!("{}/{}", service.name(), method.name());
                    methods.insert(format!("/{}.{word}", file.package()), Method::new(word));
                }
            }
        }
        Self { methods, other: Method::new(OTHER.to_owned()) }
    }
}

impl Requests {
    /// Puts the layer around services.
    #[must_use]
    pub fn around(self: &Arc<Self>, routes: Routes) -> Routes {
        Routes::from(routes.into_axum_router().layer(middleware::from_fn_with_state(self.clone(), measure)))
    }

    /// Method, code and how many ended with it; only what has happened.
    #[must_use]
    pub fn counts(&self) -> Vec<(&str, String, u64)> {
        let mut counts = Vec::new();
        for method in self.asked() {
            for (number, counter) in method.codes.iter().enumerate() {
                let code = Code::from_i32(i32::try_from(number).unwrap_or_default());
                if counter.get() > 0 {
                    counts.push((method.word.as_str(), format!("{code:?}"), counter.get()));
                }
            }
        }
        counts
    }

    /// Method and its latencies; only methods that were asked for.
    #[must_use]
    pub fn latencies(&self) -> Vec<(&str, &Histogram)> {
        self.asked().map(|m| (m.word.as_str(), &m.seconds)).collect()
    }

    fn asked(&self) -> impl Iterator<Item = &Arc<Method>> {
        let all = self.methods.values().chain([&self.other]);
        all.filter(|m| m.seconds.read().0.last().is_some_and(|(_, count)| *count > 0))
    }
}

async fn measure(State(requests): State<Arc<Requests>>, request: Request, next: Next) -> Response {
    let method = requests.methods.get(request.uri().path()).unwrap_or(&requests.other).clone();
    let begun = Instant::now();
    let response = next.run(request).await;
    method.seconds.record(begun.elapsed());
    let (parts, body) = response.into_parts();
    // An answer without messages carries its status among the headers (gRPC over HTTP/2, "Trailers-Only").
    let early = status(&parts.headers);
    if let Some(code) = early {
        method.ended(code);
    }
    let method = early.is_none().then_some(method);
    Response::from_parts(parts, Body::new(Counted { body, method }))
}

fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// An answer whose status comes at its end.
struct Counted {
    body: Body,
    /// Until it is counted.
    method: Option<Arc<Method>>,
}

impl HttpBody for Counted {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let code = match &next {
            Some(Ok(frame)) => frame.trailers_ref().map(|trailers| status(trailers).unwrap_or(Code::Unknown)),
            Some(Err(_)) | None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(method) = self.method.take()
        {
            method.ended(code);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    /// The client left before the end.
    fn drop(&mut self) {
        if let Some(method) = self.method.take() {
            method.ended(Code::Cancelled);
        }
    }
}
