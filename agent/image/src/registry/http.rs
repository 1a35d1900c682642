//! Requests: redirects, time limits, size limits, retries.

use super::{Registry, Repository};
use crate::{
    error::{ImageError, Result},
    limits,
};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE},
};
use serde::Deserialize;
use std::{future::Future, net::IpAddr};
use tokio::time::{sleep, timeout};

impl Registry {
    /// Whether the settings allow to speak to this address: TLS always, plain HTTP only with declared hosts.
    pub(super) fn may_speak_to(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or("");
        let with_port = url.port().map(|port| format!("{host}:{port}"));
        match url.scheme() {
            "https" => true,
            "http" => self.0.insecure.contains(host) || with_port.is_some_and(|host| self.0.insecure.contains(&host)),
            _ => false,
        }
    }

    /// Asks a repository for `path`, answering one challenge. Gives any answer but 401.
    pub(super) async fn ask(
        &self,
        repository: &Repository,
        what: &str,
        path: &str,
        accept: Option<&str>,
        offset: Option<u64>,
    ) -> Result<Response> {
        let from = repository.name();
        let text = format!("{}/v2/{}/{path}", repository.base, repository.path);
        let url = Url::parse(&text).map_err(|e| ImageError::invalid(format!("address {text}"), e.to_string()))?;
        let known = self.authorization(repository);
        let answer = self.send(&from, what, &url, accept, known.as_deref(), offset).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let fresh = self.authorize(repository, what, answer.headers()).await?;
        let answer = self.send(&from, what, &url, accept, Some(&fresh), offset).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let detail = error_text(answer).await;
            return Err(ImageError::Unauthorized { what: what.into(), from, detail });
        }
        Ok(answer)
    }

    /// Sends one GET and follows its redirects. The authorization goes only to the address it was meant for.
    pub(super) async fn send(
        &self,
        from: &str,
        what: &str,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<&str>,
        offset: Option<u64>,
    ) -> Result<Response> {
        let unreachable = |detail: String| ImageError::Unreachable { what: what.into(), from: from.into(), detail };
        let mut at = url.clone();
        for _ in 0..=limits::REDIRECTS_MAX {
            let mut request = self.0.http.get(at.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(authorization) = authorization.filter(|_| same_origin(&at, url)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(offset) = offset.filter(|offset| *offset > 0) {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let answer = timeout(limits::ANSWER_TIMEOUT, request.send())
                .await
                .map_err(|_| unreachable(format!("no answer within {} s", limits::ANSWER_TIMEOUT.as_secs())))?
                .map_err(|e| unreachable(hint(&chain(&e.without_url()), &at)))?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| at.join(location).ok());
            at = next.ok_or_else(|| unreachable(format!("it answers {} without an address", answer.status())))?;
            if !self.may_speak_to(&at) {
                return Err(unreachable("it redirects to plain HTTP at a host that is not declared insecure".into()));
            }
        }
        Err(unreachable(format!("more than {} redirects", limits::REDIRECTS_MAX)))
    }
}

/// Asks again after a pause while the error may pass by itself.
pub(super) async fn with_retries<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    for pause in limits::ASK_PAUSES {
        match ask().await {
            Err(error @ ImageError::Unreachable { .. }) => tracing::debug!(%error, "asking again"),
            done => return done,
        }
        sleep(pause).await;
    }
    ask().await
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// An error and all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// Says what to do when TLS meets a server that speaks none.
fn hint(detail: &str, url: &Url) -> String {
    let loopback = url.host_str().and_then(|host| host.parse::<IpAddr>().ok()).is_some_and(|ip| ip.is_loopback());
    let plain = detail.contains("InvalidContentType") || detail.contains("corrupt message");
    if url.scheme() == "https" && (plain || (loopback && detail.contains("handshake"))) {
        format!("{detail}: it does not speak TLS; if plain HTTP is meant, declare it in insecure_registries")
    } else {
        detail.to_owned()
    }
}

/// Turns answers other than 2xx into errors.
pub(super) async fn expect_success(from: &str, what: &str, answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let (what, from) = (what.to_owned(), from.to_owned());
    let detail = error_text(answer).await;
    Err(match status.as_u16() {
        404 => ImageError::NotFound { what, from },
        401 | 403 => ImageError::Unauthorized { what, from, detail },
        416 => ImageError::Corrupt { what, from, detail: "it is shorter than announced".into() },
        408 | 425 | 429 | 500..=599 => ImageError::Unreachable { what, from, detail },
        _ => ImageError::invalid(what, format!("{from} answers {detail}")),
    })
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}
#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Status and, where there is one, the first error of the body (distribution-spec "error codes").
async fn error_text(answer: Response) -> String {
    let status = answer.status().to_string();
    let body = read_limited("", "", answer, limits::ERROR_ANSWER_BYTES_MAX).await.unwrap_or_default();
    let errors = serde_json::from_slice::<Errors>(&body).ok();
    match errors.as_ref().and_then(|e| e.errors.first()) {
        Some(error) => format!("{status}: {} {}", error.code, error.message).chars().take(300).collect(),
        None => status,
    }
}

/// Reads a body whole; more than `max_bytes` is an error as soon as that is known.
pub(super) async fn read_limited(from: &str, what: &str, mut answer: Response, max_bytes: u64) -> Result<Vec<u8>> {
    let too_large = || ImageError::TooLarge { what: what.into(), from: from.into(), max_bytes };
    let unreachable = |detail: String| ImageError::Unreachable { what: what.into(), from: from.into(), detail };
    if answer.content_length().is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        let chunk = timeout(limits::STALL_TIMEOUT, answer.chunk())
            .await
            .map_err(|_| unreachable(format!("no byte for {} s", limits::STALL_TIMEOUT.as_secs())))?
            .map_err(|e| unreachable(chain(&e.without_url())))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}
