//! `$(NAME)` in commands, arguments and values of variables.
//! Source: Kubernetes API reference, Container `command`: an unknown name stays as written, `$$` is a dollar.
//!
//! A variable whose value comes from a config, a secret or a field has none before the pod starts: a reference to it stays as `$(NAME)`, and
//! the node replaces it. So `$$(NAME)`, the text without a reference, cannot be said of such a name.

use std::collections::HashMap;

use strata_model::limits::OBJECT_BYTES_MAX;
use strata_proto::types::EnvVar;

/// The variables of one container, and how much replacing them has brought in: values that double values would fill the memory.
#[derive(Default)]
pub(crate) struct Expansion {
    /// `None`: known when the pod starts.
    values: HashMap<String, Option<String>>,
    bytes: usize,
    unsayable: Option<String>,
}

impl Expansion {
    /// Replaces references in a variable's value to those defined before, then defines it.
    pub(crate) fn define(&mut self, variable: EnvVar) -> EnvVar {
        let value = self.expand(&variable.value);
        let known = variable.from.is_none().then(|| value.clone());
        self.values.insert(variable.name.clone(), known);
        EnvVar { name: variable.name, value, from: variable.from }
    }

    /// Replaces references. One pass: what a value brings in is not looked at again.
    pub(crate) fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (before, from) = rest.split_at(dollar);
            out.push_str(before);
            let after = &from[1..];
            if let Some(more) = after.strip_prefix('$') {
                out.push('$');
                let name = more.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(name, _)| name);
                if let Some(name) = name.filter(|name| matches!(self.values.get(*name), Some(None))) {
                    self.unsayable = Some(name.to_owned());
                }
                rest = more;
                continue;
            }
            // A name has no parenthesis and no dollar, so the search ends early.
            let end = after.strip_prefix('(').and_then(|s| s.find([')', '(', '$']).map(|end| (s, end)));
            match end.filter(|(s, end)| s[*end..].starts_with(')')) {
                Some((s, end)) => {
                    self.push_value(&mut out, &s[..end], &from[..end + 3]);
                    rest = &s[end + 1..];
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// Whether more was brought in than an object may have; what was expanded since is not complete.
    pub(crate) fn is_too_large(&self) -> bool {
        self.bytes > OBJECT_BYTES_MAX
    }

    /// A variable of which `$$(NAME)` was written although the node would replace it.
    pub(crate) fn unsayable(&self) -> Option<&str> {
        self.unsayable.as_deref()
    }

    fn push_value(&mut self, out: &mut String, name: &str, as_written: &str) {
        let Some(Some(value)) = self.values.get(name) else { return out.push_str(as_written) };
        self.bytes += value.len();
        if self.bytes <= OBJECT_BYTES_MAX {
            out.push_str(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), value: value.into(), from: None }
    }

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let mut expansion = Expansion::default();
        for (name, value, want) in [("B", "$(A)", "$(A)"), ("A", "1", "1"), ("C", "<$(A)>", "<1>"), ("A", "2", "2")] {
            assert_eq!(expansion.define(var(name, value)).value, want);
        }
        for (text, want) in [
            ("$(A)", "2"),
            ("x$(A)y$(C)", "x2y<1>"),
            ("$(B)", "$(A)"),
            ("$(D)", "$(D)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$2"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$($(A)", "$(2"),
            ("$()", "$()"),
            ("é$(A)é", "é2é"),
        ] {
            assert_eq!(expansion.expand(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_known_only_at_the_start_is_left_for_the_node() {
        let mut expansion = Expansion::default();
        let from = Some(strata_proto::types::env_var::From::Field("status.podIP".into()));
        expansion.define(EnvVar { from, ..var("IP", "") });
        expansion.define(var("PORT", "80"));
        assert_eq!(expansion.define(var("URL", "http://$(IP):$(PORT)")).value, "http://$(IP):80");
        assert_eq!(expansion.expand("$(URL)/$$(PORT)"), "http://$(IP):80/$(PORT)");
        assert_eq!(expansion.unsayable(), None);
        expansion.expand("$$(IP)");
        assert_eq!(expansion.unsayable(), Some("IP"));
        expansion.define(var("IP", "::1"));
        assert_eq!(expansion.expand("$(IP)"), "::1", "the later definition wins");
    }

    #[test]
    fn values_that_double_values_do_not_fill_the_memory() {
        let mut expansion = Expansion::default();
        expansion.define(var("V0", "0123456789"));
        for i in 1..64 {
            let last = i - 1;
            expansion.define(var(&format!("V{i}"), &format!("$(V{last})$(V{last})")));
        }
        assert!(expansion.is_too_large());
    }
}
