//! Answering a registry's challenge (RFC 7235, distribution-spec "token authentication").

use super::{Credentials, Registry, Repository, http};
use crate::{
    error::{ImageError, Result},
    limits,
};
use reqwest::{Url, header::HeaderMap};
use serde::Deserialize;
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

/// Seconds that a token lives when its server does not say (distribution-spec).
const TOKEN_LIFE_DEFAULT_S: u64 = 60;

/// A header value, and until when it is used.
#[derive(Clone)]
pub(super) struct Authorization {
    value: String,
    until: Instant,
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorization").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Registry {
    /// The header value that worked last for this repository.
    pub(super) fn authorization(&self, repository: &Repository) -> Option<String> {
        let kept = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&repository.key()).filter(|kept| kept.until > Instant::now()).map(|kept| kept.value.clone())
    }

    /// Finds the header value that a 401 answer asks for.
    pub(super) async fn authorize(&self, repository: &Repository, what: &str, headers: &HeaderMap) -> Result<String> {
        let refused = |detail: &str| ImageError::Unauthorized {
            what: what.into(),
            from: repository.name(),
            detail: detail.into(),
        };
        let credentials = self.credentials(repository).await?;
        let life = Duration::from_secs(TOKEN_LIFE_DEFAULT_S);
        let (value, life) = match challenge(headers) {
            Some(Challenge::Basic) => {
                let credentials = credentials.ok_or_else(|| refused("it wants a user name and a password"))?;
                (credentials.basic(), life)
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", repository.path));
                self.token(repository, what, &realm, service.as_deref(), &scope, credentials.as_ref()).await?
            }
            None => return Err(refused("it names no way to authenticate that is known here")),
        };
        let mut kept = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= limits::AUTHORIZATIONS_KEPT {
            kept.clear();
        }
        kept.insert(repository.key(), Authorization { value: value.clone(), until: Instant::now() + life });
        Ok(value)
    }

    async fn credentials(&self, repository: &Repository) -> Result<Option<Credentials>> {
        let Some(path) = self.0.auth_file.clone() else { return Ok(None) };
        let registry = repository.registry.clone();
        tokio::task::spawn_blocking(move || Credentials::from_file(&path, &registry))
            .await
            .map_err(|_| ImageError::Cancelled { what: "reading credentials".into() })?
    }

    async fn token(
        &self,
        repository: &Repository,
        what: &str,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(String, Duration)> {
        let from = format!("token server {realm} of {}", repository.name());
        let refused = |detail: String| ImageError::Unauthorized { what: what.into(), from: from.clone(), detail };
        let mut url = Url::parse(realm).map_err(|e| refused(format!("its address is not valid: {e}")))?;
        if !self.may_speak_to(&url) {
            return Err(refused("it speaks plain HTTP; declare it insecure if that is meant".into()));
        }
        url.query_pairs_mut().append_pair("scope", scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let authorization = credentials.map(Credentials::basic);
        let answer = self.send(&from, what, &url, None, authorization.as_deref(), None).await?;
        if matches!(answer.status().as_u16(), 400 | 401 | 403) {
            return Err(refused(format!("it answers {}", answer.status())));
        }
        let answer = http::expect_success(&from, what, answer).await?;
        let body = http::read_limited(&from, "a token", answer, limits::TOKEN_ANSWER_BYTES_MAX).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|e| refused(format!("its answer cannot be read: {e}")))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| refused("its answer holds no token".into()))?;
        // Ask for a new one a little before the old one ends.
        let life = answer.expires_in.unwrap_or(TOKEN_LIFE_DEFAULT_S).clamp(1, 24 * 3600) * 4 / 5;
        Ok((format!("Bearer {token}"), Duration::from_secs(life)))
    }
}

impl Repository {
    fn key(&self) -> (String, String) {
        (self.base.clone(), self.path.clone())
    }
}

/// The strongest challenge that is known here: Bearer before Basic.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(reqwest::header::WWW_AUTHENTICATE) {
        let Some(parsed) = value.to_str().ok().and_then(|text| http_auth::parse_challenges(text).ok()) else {
            continue;
        };
        for one in parsed {
            let param = |name: &str| {
                let found = one.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            if one.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = param("realm")
            {
                return Some(Challenge::Bearer { realm, service: param("service"), scope: param("scope") });
            }
            if one.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};

    #[test]
    fn challenges_are_read_wherever_they_stand() {
        let bearer = |scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: "https://a.example/token".into(),
                service: Some("r".into()),
                scope: scope.map(Into::into),
            })
        };
        for (values, want) in [
            (vec![r#"Basic realm="x""#], Some(Challenge::Basic)),
            (
                vec![r#"Bearer realm="https://a.example/token",service="r",scope="repository:a/b:pull,push""#],
                bearer(Some("repository:a/b:pull,push")),
            ),
            (vec![r#"Basic realm="x", bearer realm="https://a.example/token", service=r"#], bearer(None)),
            (vec![r#"Basic realm="x""#, r#"Bearer realm="https://a.example/token",service="r""#], bearer(None)),
            (vec!["Negotiate"], None),
            (vec!["Bearer service=\"r\""], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(challenge(&headers), want, "{values:?}");
        }
    }
}
