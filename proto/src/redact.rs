//! Messages that carry secrets never print them: their `Debug` names keys, types and sizes only.

use crate::{dispatch, types};
use std::fmt;

fn keys(map: &std::collections::HashMap<String, Vec<u8>>) -> Vec<&String> {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    keys
}

impl fmt::Debug for types::SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSpec")
            .field("type", &self.r#type)
            .field("keys", &keys(&self.data))
            .field("sealed_bytes", &self.sealed.len())
            .field("immutable", &self.immutable)
            .finish()
    }
}

impl fmt::Debug for dispatch::SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretContent").field("name", &self.name).field("keys", &keys(&self.data)).finish()
    }
}

impl fmt::Debug for types::Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .field("keys", &keys(&self.data))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_a_secret_does_not_print_it() {
        let data = || [("password".to_owned(), b"hunter2".to_vec())].into();
        let frame = dispatch::Template {
            secrets: vec![dispatch::SecretContent { name: "db".into(), data: data() }],
            spec: Some(types::TemplateSpec {
                materials: vec![types::Material { data: data(), ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let secret = types::SecretSpec { data: data(), ..Default::default() };
        let text = format!("{frame:?} {secret:?}");
        assert!(text.contains("password"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
    }
}
