//! Join tokens: made for administrators and at start, redeemed once per joining node.

use super::{ApiState, Pki, Refusal, StoreErrorOrTimeout, limits};
use std::{fs, path::Path};
use strata_proto::{
    timestamp_ms, timestamp_now, timestamp_of_ms,
    types::{Kind, Meta, Object, Token, TokenSpec, object},
};
use strata_store::{Change, Condition, Key, Snapshot, Store, StoreError};
use strata_transport::{
    TransportError,
    pki::write_private,
    token::{JoinToken, hash_secret},
};
use subtle::ConstantTimeEq as _;
use tonic::Code;

/// Where the token of this start lies, for agents on the same machine.
const BOOTSTRAP_FILE: &str = "bootstrap-token";

/// Why there is no bootstrap token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It could not be made or written.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that `<state_dir>/bootstrap-token` holds a token that is valid for another hour at least.
///
/// # Errors
/// If it cannot be made, kept or written.
pub async fn ensure_bootstrap_token(store: &Store, pki: &Pki, state_dir: &Path) -> Result<(), TokenError> {
    let path = state_dir.join(BOOTSTRAP_FILE);
    let present: Option<JoinToken> = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
    let in_an_hour = timestamp_ms(Some(&timestamp_now())) + 3_600_000;
    let good = present.is_some_and(|t| {
        t.ca_fingerprint == pki.fingerprint() && check(&store.snapshot(), &t.id, &t.secret, in_an_hour).is_some()
    });
    if good {
        return Ok(());
    }
    let (token, object) = create(pki, limits::TOKEN_TTL_DEFAULT_S, 0)?;
    store.commit(vec![Change::put(object, Condition::Absent)]).await?;
    write_private(&path, &format!("{token}\n"))?;
    Ok(())
}

/// Makes a token and the object that stands for it; of the secret the object has only the hash.
pub(super) fn create(pki: &Pki, ttl_s: u32, uses: u32) -> Result<(JoinToken, Object), TransportError> {
    let token = JoinToken::create(pki.fingerprint())?;
    let now = timestamp_now();
    let expires = timestamp_of_ms(timestamp_ms(Some(&now)) + u64::from(ttl_s) * 1000);
    let meta = Meta {
        name: token.id.clone(),
        uid: uuid::Uuid::now_v7().to_string(),
        generation: 1,
        created: Some(now),
        ..Meta::default()
    };
    let spec = TokenSpec { secret_sha256: token.secret_sha256(), expires: Some(expires), uses_left: uses };
    let kind = object::Kind::Token(Token { spec: Some(spec) });
    Ok((token, Object { meta: Some(meta), kind: Some(kind) }))
}

fn key(id: &str) -> Key {
    Key::new(Kind::Token, "", id)
}

/// The token's object and spec, if id and secret are right and it has not expired.
fn check(snapshot: &Snapshot, id: &str, secret: &str, now_ms: u64) -> Option<(std::sync::Arc<Object>, TokenSpec)> {
    let object = snapshot.get(&key(id));
    let spec = object.as_ref().and_then(|o| match &o.kind {
        Some(object::Kind::Token(token)) => token.spec.clone(),
        _ => None,
    });
    // A secret is hashed and compared in any case, and in constant time: the answer's time tells neither ids nor digits.
    let expected = spec.as_ref().map_or_else(|| "0".repeat(64), |s| s.secret_sha256.clone());
    let fits: bool = hash_secret(secret).as_bytes().ct_eq(expected.as_bytes()).into();
    let (object, spec) = (object?, spec?);
    (fits && timestamp_ms(spec.expires.as_ref()) > now_ms).then_some((object, spec))
}

/// Looks whether a token would be accepted now.
pub(super) fn verify(state: &ApiState, id: &str, secret: &str) -> Result<(), Refusal> {
    let now = timestamp_ms(Some(&timestamp_now()));
    check(&state.store.snapshot(), id, secret, now).map(|_| ()).ok_or_else(refused)
}

fn refused() -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        "TokenRefused",
        "the join token is unknown, used up, expired or wrong: make a new one with `ctl token create`",
    )
}

/// Takes one use of a token. The last one removes it.
pub(super) async fn redeem(state: &ApiState, id: &str, secret: &str) -> Result<(), Refusal> {
    for _ in 0..limits::RETRIES {
        let now = timestamp_ms(Some(&timestamp_now()));
        let (object, spec) = check(&state.store.snapshot(), id, secret, now).ok_or_else(refused)?;
        let condition = Condition::Revision(super::apply::revision(&object));
        let change = match spec.uses_left {
            0 => return Ok(()),
            1 => Change::delete(key(id), condition),
            n => {
                let mut object = (*object).clone();
                object.kind = Some(object::Kind::Token(Token { spec: Some(TokenSpec { uses_left: n - 1, ..spec }) }));
                Change::put(object, condition)
            }
        };
        match state.commit(vec![change]).await {
            Ok(_) => return Ok(()),
            Err(StoreErrorOrTimeout::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::overloaded("joins with this token"))
}
