//! `$(NAME)` in commands, arguments and values of variables.
//! Source: Kubernetes API reference, Container `command`: an unknown name stays as written, `$$` is a dollar.

use std::collections::HashMap;

use strata_model::limits::OBJECT_BYTES_MAX;
use strata_proto::types::EnvVar;

/// The variables of one container, and how much replacing them has brought in: values that double values would fill the memory.
#[derive(Default)]
pub(crate) struct Expansion {
    values: HashMap<String, String>,
    bytes: usize,
}

impl Expansion {
    /// Replaces references in a variable's value to those defined before, then defines it. What a variable from elsewhere holds only its
    /// node knows: references to it stay as written, and the agent replaces them.
    pub(crate) fn define(&mut self, variable: EnvVar) -> EnvVar {
        if variable.from.is_some() {
            self.values.remove(&variable.name);
            return variable;
        }
        let value = self.expand(&variable.value);
        self.values.insert(variable.name.clone(), value.clone());
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

    fn push_value(&mut self, out: &mut String, name: &str, as_written: &str) {
        let Some(value) = self.values.get(name) else { return out.push_str(as_written) };
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
    fn what_comes_from_elsewhere_is_left_to_the_node() {
        let mut expansion = Expansion::default();
        expansion.define(var("A", "1"));
        let from = Some(strata_proto::types::env_var::From::Field("metadata.name".into()));
        expansion.define(EnvVar { from, ..var("A", "") });
        assert_eq!(expansion.define(var("B", "<$(A)>")).value, "<$(A)>");
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
