#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use strata_proto::types::{Meta, Secret};
use strata_store::{Change, Condition, Store, backend};

fn secret(data: &[(&str, &str)]) -> Object {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
    let meta = Meta { namespace: "default".into(), name: "db".into(), uid: "u1".into(), ..Meta::default() };
    let spec = SecretSpec { data, ..SecretSpec::default() };
    Object { meta: Some(meta), kind: Some(object::Kind::Secret(Secret { spec: Some(spec), status: None })) }
}

fn sealed(vault: &Vault, data: &[(&str, &str)], present: Option<&Object>) -> Object {
    let mut object = secret(data);
    vault.seal(&mut object, present, "u1").unwrap();
    object
}

fn parts(object: &Object) -> (SecretSpec, SecretStatus) {
    let Some(object::Kind::Secret(s)) = object.kind.clone() else { panic!("no secret") };
    (s.spec.unwrap(), s.status.unwrap())
}

#[test]
fn what_is_stored_carries_no_data_and_equal_data_stays_as_it_is() {
    use prost::Message as _;
    let vault = Vault::of_key(&[7; 32]);
    let stored = sealed(&vault, &[("password", "hunter2"), ("user", "app")], None);
    let (spec, status) = parts(&stored);
    assert!(spec.data.is_empty() && !spec.sealed.is_empty());
    assert_eq!(
        (status.keys.as_slice(), spec.r#type.as_str()),
        (["password".to_owned(), "user".into()].as_slice(), "Opaque")
    );
    assert!(!stored.encode_to_vec().windows(7).any(|w| w == b"hunter2"));
    let again = sealed(&vault, &[("user", "app"), ("password", "hunter2")], Some(&stored));
    assert_eq!(again, stored);
    let other = sealed(&vault, &[("user", "app"), ("password", "hunter3")], Some(&stored));
    assert_ne!(parts(&other).1.sha256, status.sha256);
    // Nobody can give sealed bytes of their own.
    let mut forged = secret(&[]);
    let Some(object::Kind::Secret(s)) = &mut forged.kind else { panic!() };
    s.spec.get_or_insert_default().sealed = parts(&stored).0.sealed;
    vault.seal(&mut forged, None, "u1").unwrap();
    assert!(parts(&forged).1.keys.is_empty());
    assert!(vault.data(&forged).unwrap().is_empty());
}

#[test]
fn a_secret_that_comes_back_as_it_was_shown_keeps_its_data() {
    let vault = Vault::of_key(&[7; 32]);
    let stored = sealed(&vault, &[("password", "hunter2")], None);
    let mut shown = stored.clone();
    redact(&mut shown);
    assert!(parts(&shown).0.sealed.is_empty());
    vault.seal(&mut shown, Some(&stored), "u1").unwrap();
    assert_eq!(shown, stored);
    // A document that says of itself that there is no data empties it.
    assert!(parts(&sealed(&vault, &[], Some(&stored))).1.keys.is_empty());
}

#[test]
fn templates_keep_a_secret_of_their_own() {
    let vault = Vault::of_key(&[7; 32]);
    let stored = sealed(&vault, &[("password", "hunter2")], None);
    let material = vault.material(&stored).unwrap();
    assert_eq!(material.sha256, parts(&stored).1.sha256);
    assert_eq!(vault.content(&material).unwrap().data["password"], b"hunter2");
    assert!(vault.content(&Material { name: "other".into(), ..material.clone() }).is_err());
    let moved = Object { meta: Some(Meta { name: "dc".into(), ..stored.meta.clone().unwrap() }), ..stored.clone() };
    assert!(vault.material(&moved).is_err());
    assert!(Vault::of_key(&[8; 32]).material(&stored).is_err());
}

#[tokio::test]
async fn sealed_secrets_without_their_key_are_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Box::new(backend::Memory::default())).unwrap();
    let vault = Vault::open(dir.path(), &store.snapshot()).unwrap();
    store.commit(vec![Change::put(sealed(&vault, &[("a", "b")], None), Condition::None)]).await.unwrap();
    assert!(Vault::open(dir.path(), &store.snapshot()).is_ok());
    let path = dir.path().join(KEY_FILE);
    let key = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "00".repeat(32)).unwrap();
    let error = Vault::open(dir.path(), &store.snapshot()).unwrap_err().to_string();
    assert!(error.contains("secret default/db") && error.contains("backup"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = Vault::open(dir.path(), &store.snapshot()).unwrap_err().to_string();
    assert!(error.contains("1 secrets") && error.contains("secret-key"), "{error}");
    assert!(!path.exists(), "no new key is made over sealed secrets");
    std::fs::write(&path, key).unwrap();
    assert!(Vault::open(dir.path(), &store.snapshot()).is_ok());
}
