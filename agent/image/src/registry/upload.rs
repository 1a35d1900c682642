//! A registry's repository as a place to push to (distribution-spec, "pushing").

use super::{Registry, Repository, http};
use crate::{
    error::{ImageError, Result},
    limits,
};
use futures::stream;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::Duration};
use strata_model::{Digest, ImageName};
use tokio::time::timeout;

/// One repository to push to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    registry: Registry,
    repository: Repository,
    name: String,
}

impl Registry {
    /// The repository of an image, to push to.
    pub(crate) fn target(&self, image: &ImageName) -> Target {
        let repository = self.repository(image);
        Target { registry: self.clone(), name: repository.name(), repository }
    }
}

impl Target {
    /// Whether the repository has a blob.
    pub(crate) async fn has(&self, what: &str, digest: &Digest) -> Result<bool> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.send(what, Method::HEAD, &url, limits::ANSWER_TIMEOUT, |r| r).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            // A registry that does not answer the question is given the blob again.
            StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            _ => http::expect_success(&self.name, what, answer).await.map(|_| true),
        }
    }

    /// Asks the registry to take a blob from another of its repositories; false if it does not.
    pub(crate) async fn mount(&self, what: &str, digest: &Digest, from: &str) -> Result<bool> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let answer =
            self.send(what, Method::POST, &url, limits::ANSWER_TIMEOUT, |r| r.header(CONTENT_LENGTH, 0)).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // Nobody sends anything to it: a registry that can forgets it at once.
                if let Ok(location) = self.location(&url, &answer) {
                    drop(self.send(what, Method::DELETE, &location, limits::ANSWER_TIMEOUT, |r| r).await);
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Sends a blob whole.
    pub(crate) async fn upload(
        &self,
        what: &str,
        digest: &Digest,
        content: &Content,
        sent: impl Fn(u64) + Send + Sync + Clone + 'static,
    ) -> Result<()> {
        http::with_retries(|| async {
            let begin = self.url("blobs/uploads/")?;
            let answer =
                self.send(what, Method::POST, &begin, limits::ANSWER_TIMEOUT, |r| r.header(CONTENT_LENGTH, 0)).await?;
            let answer = http::expect_success(&self.name, what, answer).await?;
            let mut url = self.location(&begin, &answer)?;
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let answer = self.send(what, Method::PUT, &url, limits::UPLOAD_TIMEOUT, |request| {
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, content.len)
                    .body(content.body(sent.clone()))
            });
            http::expect_success(&self.name, what, answer.await?).await.map(drop)
        })
        .await
    }

    /// Puts a manifest under a tag.
    pub(crate) async fn put_manifest(&self, what: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let url = self.url(&format!("manifests/{tag}"))?;
        http::with_retries(|| async {
            let answer = self.send(what, Method::PUT, &url, limits::ANSWER_TIMEOUT, |request| {
                request.header(CONTENT_TYPE, media_type).body(bytes.to_vec())
            });
            http::expect_success(&self.name, what, answer.await?).await.map(drop)
        })
        .await
    }

    fn url(&self, path: &str) -> Result<Url> {
        let text = format!("{}/v2/{}/{path}", self.repository.base, self.repository.path);
        Url::parse(&text).map_err(|e| ImageError::invalid(format!("address {text}"), e.to_string()))
    }

    fn location(&self, asked: &Url, answer: &Response) -> Result<Url> {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| asked.join(location).ok());
        let url = url
            .ok_or_else(|| ImageError::invalid("an upload", format!("{} does not say where to send it", self.name)))?;
        if !self.registry.may_speak_to(&url) {
            let detail = format!("{} wants it over plain HTTP at a host that is not declared insecure", self.name);
            return Err(ImageError::invalid("an upload", detail));
        }
        Ok(url)
    }

    /// Sends a request, and once more with an authorization if it asks for one. The authorization goes only to the registry's own address.
    async fn send(
        &self,
        what: &str,
        method: Method,
        url: &Url,
        within: Duration,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let own = Url::parse(&self.repository.base).is_ok_and(|base| http::same_origin(&base, url));
        let unreachable =
            |detail: String| ImageError::Unreachable { what: what.into(), from: self.name.clone(), detail };
        let once = |authorization: Option<String>| {
            let mut request = dress(self.registry.0.http.request(method.clone(), url.clone()));
            if let Some(authorization) = authorization.filter(|_| own) {
                request = request.header(AUTHORIZATION, authorization);
            }
            async move {
                timeout(within, request.send())
                    .await
                    .map_err(|_| unreachable(format!("no answer within {} s", within.as_secs())))?
                    .map_err(|e| unreachable(http::chain(&e.without_url())))
            }
        };
        let answer = once(self.registry.authorization(&self.repository)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !own {
            return Ok(answer);
        }
        let fresh = self.registry.authorize(&self.repository, what, answer.headers()).await?;
        let answer = once(Some(fresh)).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => http::expect_success(&self.name, what, answer).await,
            _ => Ok(answer),
        }
    }
}

/// The bytes of a blob, which can be read again.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    file: Arc<File>,
    pub(crate) len: u64,
}

impl Content {
    pub(crate) fn new(file: File, len: u64) -> Self {
        Self { file: Arc::new(file), len }
    }

    /// As a request's body, telling how much of it has gone out.
    fn body(&self, sent: impl Fn(u64) + Send + Sync + 'static) -> Body {
        let (file, len) = (self.file.clone(), self.len);
        let chunks = stream::try_unfold((file, 0_u64, sent), move |(file, at, sent)| async move {
            if at >= len {
                return Ok::<_, io::Error>(None);
            }
            let reader = file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; limits::EXPORT_BUFFER_BYTES];
                let count = reader.read_at(&mut buffer, at)?;
                buffer.truncate(count);
                Ok::<_, io::Error>(buffer)
            });
            let chunk = read.await.map_err(io::Error::other)??;
            if chunk.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let at = at + chunk.len() as u64;
            sent(at);
            Ok(Some((chunk, (file, at, sent))))
        });
        Body::wrap_stream(chunks)
    }
}
