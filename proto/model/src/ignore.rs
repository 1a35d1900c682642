//! Which paths of a build context count: the rules of a `.dockerignore` file, and the patterns they are made of.
//!
//! Source: Docker's documentation of `.dockerignore`, and Go's `path/filepath.Match` for single patterns.

use alloc::{string::String, vec::Vec};

/// Rules that are applied, the last one that matches wins.
pub const RULES_MAX: usize = 10_000;

/// The rules of one `.dockerignore` file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreRules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: String,
    /// `!pattern`: what it matches counts again.
    negated: bool,
}

impl IgnoreRules {
    /// Reads the file's text: one pattern a line, `#` comments, `!` for exceptions. Lines beyond [`RULES_MAX`] are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let line = line.trim();
            let (negated, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            (!pattern.is_empty()).then_some(Rule { pattern, negated })
        });
        Self(rules.take(RULES_MAX).collect())
    }

    /// No rules.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is ignored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path (relative, with `/`) is left out: by a rule for itself or for a directory that it is in.
    #[must_use]
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.0 {
            // A rule that would change nothing need not be looked at.
            if rule.negated == ignored && covers(&rule.pattern, path) {
                ignored = !rule.negated;
            }
        }
        ignored
    }

    /// Whether below an ignored directory something may count again.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.0.iter().any(|rule| rule.negated)
    }
}

/// Whether the pattern matches the path or one of the directories above it.
fn covers(pattern: &str, path: &str) -> bool {
    matches(pattern, path) || path.match_indices('/').any(|(at, _)| matches(pattern, &path[..at]))
}

/// A path without empty parts, `.` and leading `/`; `..` takes the part before away and cannot leave the root.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a pattern matches a whole path: `*` and `?` within one part, `[a-z]`, `[^a]`, `\` before what is meant literally, and `**` for any
/// number of parts. A malformed pattern matches nothing.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    match_parts(&pattern, &path)
}

/// With the last `**` remembered, as one does with `*` in a string: no pattern takes more than |pattern| * |path| steps.
fn match_parts(pattern: &[&str], path: &[&str]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < path.len() {
        if pattern.get(p) == Some(&"**") {
            retry = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|part| match_part(part, path[t])) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = retry {
            retry = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    // `a/**` is everything in a, not a itself.
    p == pattern.len()
}

/// Whether a pattern matches one part of a path, which has no `/`.
#[must_use]
pub fn match_part(pattern: &str, name: &str) -> bool {
    let Some(tokens) = tokens(pattern) else { return false };
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < name.len() {
        match tokens.get(p) {
            Some(Token::Any) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(token) if token.takes(name[t]) => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = retry else { return false };
        retry = Some((after, from + 1));
        (p, t) = (after, from + 1);
    }
    tokens[p..].iter().all(|token| *token == Token::Any)
}

/// Whether a pattern is more than a name: it has a `*`, `?` or `[` that is not escaped.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// A name without the `\` that protect characters in it.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut name = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.extend(chars.next()),
            c => name.push(c),
        }
    }
    name
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == c,
            Self::Set { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Char(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let from = match chars.next()? {
                        ']' if !ranges.is_empty() => break,
                        ']' | '-' => return None,
                        '\\' => chars.next()?,
                        c => c,
                    };
                    let to = match chars.next_if_eq(&'-') {
                        None => from,
                        Some(_) => match chars.next()? {
                            ']' | '-' => return None,
                            '\\' => chars.next()?,
                            c => c,
                        },
                    };
                    ranges.push((from, to));
                }
                Token::Set { negated, ranges }
            }
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go_and_docker() {
        for (pattern, path, expect) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*.go", "main.go", true),
            ("a*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]", "]", false),
            ("[a", "a", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/b/xy", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**/a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/b/**/z", "a/x/b/y/b/z", true),
            ("*/*/x", "a/b/x", true),
            ("*/*/x", "a/x", false),
        ] {
            assert_eq!(matches(pattern, path), expect, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_wins() {
        let rules = IgnoreRules::parse(
            "# comment\n\n*.md\n!README.md\nnode_modules\n /tmp/ \n**/*.o\n!keep/**\ndocs\n!docs/api/*.md\ndocs/api/secret.md\n",
        );
        for (path, ignored) in [
            ("CHANGES.md", true),
            ("README.md", false),
            ("sub/CHANGES.md", false),
            ("node_modules", true),
            ("node_modules/a/b.js", true),
            ("tmp/x", true),
            ("a/b/c.o", true),
            ("keep/c.o", false),
            ("docs/x", true),
            ("docs/api/a.md", false),
            ("docs/api/secret.md", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(rules.ignores(path), ignored, "{path}");
        }
        assert!(rules.has_exceptions() && !IgnoreRules::parse("a\n").has_exceptions());
        assert!(IgnoreRules::parse("*\n!a").ignores("b") && !IgnoreRules::parse("*\n!a").ignores("a/x"));
    }

    #[test]
    fn hard_patterns_do_not_take_forever() {
        let pattern = "a*".repeat(500);
        assert!(!matches(&pattern, &("a".repeat(2000) + "b/c")));
        let deep = "**/a/".repeat(200) + "b";
        assert!(!matches(&deep, &"a/".repeat(500)));
    }

    #[test]
    fn paths_cannot_leave_the_root() {
        for (path, expect) in [("/a//b/./c/", "a/b/c"), ("../../a", "a"), ("a/../../b", "b"), (".", ""), ("a/..", "")] {
            assert_eq!(clean(path), expect);
        }
        assert_eq!(unescape("a\\*b\\\\"), "a*b\\");
        assert!(is_pattern("a*") && !is_pattern("a\\*"));
    }
}
