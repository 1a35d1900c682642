//! Words of a Dockerfile: how a line falls into them, and how variables and quotes in them are resolved.
//!
//! Source: Dockerfile reference, "Environment replacement"; the rules of quotes are those of Docker's own lexer: no command substitution, no
//! splitting of what a variable gives.

use std::iter::Peekable;
use std::str::Chars;

use strata_model::ignore::match_part;

use crate::limits::WORD_BYTES_MAX;

/// Splits at blanks that are neither quoted nor escaped. Quotes and escapes stay in the words.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Where variables get their values.
pub(crate) trait Lookup {
    /// The value, if the variable is set.
    fn value_of(&self, name: &str) -> Option<String>;
}

impl Lookup for [(String, String)] {
    fn value_of(&self, name: &str) -> Option<String> {
        self.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone())
    }
}

/// Resolves a word's quotes, escapes and variables.
///
/// # Errors
/// What is wrong with it, or the message of `${NAME:?message}`.
pub(crate) fn expand(word: &str, escape: char, variables: &(impl Lookup + ?Sized)) -> Result<String, String> {
    let mut lexer = Lexer { chars: word.chars().peekable(), escape, variables, depth: 0 };
    let value = lexer.until(None)?;
    if value.len() > WORD_BYTES_MAX {
        return Err(format!("a value of {} bytes; at most {WORD_BYTES_MAX} are possible", value.len()));
    }
    Ok(value)
}

/// How deep `${A:-${B:-…}}` may be nested.
const DEPTH_MAX: usize = 32;

struct Lexer<'a, L: Lookup + ?Sized> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    variables: &'a L,
    depth: usize,
}

impl<L: Lookup + ?Sized> Lexer<'_, L> {
    /// Reads to the end, or to (and over) an unquoted `stop`.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut value = String::new();
        while let Some(c) = self.chars.next() {
            if value.len() > WORD_BYTES_MAX {
                return Err(format!("a value of more than {WORD_BYTES_MAX} bytes"));
            }
            match c {
                _ if Some(c) == stop => return Ok(value),
                '\'' => loop {
                    match self.chars.next() {
                        Some('\'') => break,
                        Some(c) => value.push(c),
                        None => return Err("a single quote is not closed".into()),
                    }
                },
                '"' => self.double_quoted(&mut value)?,
                '$' => value.push_str(&self.variable()?),
                // At the end of a word the escape means itself.
                c if c == self.escape => value.push(self.chars.next().unwrap_or(c)),
                c => value.push(c),
            }
        }
        match stop {
            None => Ok(value),
            Some(_) => Err("`${` is not closed by `}`".into()),
        }
    }

    fn double_quoted(&mut self, value: &mut String) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => value.push_str(&self.variable()?),
                c if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => value.push(next),
                    Some(next) => value.extend([c, next]),
                    None => return Err("a double quote is not closed".into()),
                },
                c => value.push(c),
            }
        }
        Err("a double quote is not closed".into())
    }

    /// Behind a `$`.
    fn variable(&mut self) -> Result<String, String> {
        match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(format!("`${{` nested more than {DEPTH_MAX} times"));
                }
                let value = self.braced();
                self.depth -= 1;
                value
            }
            Some(c) if is_name(*c) => {
                let name = self.name();
                Ok(self.variables.value_of(&name).unwrap_or_default())
            }
            _ => Ok("$".into()),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| is_name(*c)) {
            name.push(c);
        }
        name
    }

    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("`${` needs the name of a variable".into());
        }
        let value = self.variables.value_of(&name);
        let operator = self.chars.next().ok_or("`${` is not closed by `}`")?;
        if operator == '}' {
            return Ok(value.unwrap_or_default());
        }
        // With a colon an empty value counts as none.
        let (operator, set) = match operator {
            ':' => (self.chars.next().unwrap_or('}'), value.clone().filter(|value| !value.is_empty())),
            other => (other, value.clone()),
        };
        match operator {
            '-' => {
                let other = self.until(Some('}'))?;
                Ok(set.unwrap_or(other))
            }
            '+' => {
                let other = self.until(Some('}'))?;
                Ok(set.map(|_| other).unwrap_or_default())
            }
            '?' => {
                let message = self.until(Some('}'))?;
                set.ok_or_else(|| match message.as_str() {
                    "" => format!("the variable {name} is not set"),
                    message => format!("the variable {name} is not set: {message}"),
                })
            }
            '#' | '%' => {
                let longest = self.chars.next_if_eq(&operator).is_some();
                let pattern = self.until(Some('}'))?;
                Ok(trim(&value.unwrap_or_default(), &pattern, operator == '#', longest))
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'))?;
                let new = self.until(Some('}'))?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &new, all))
            }
            other => Err(format!("`${{{name}…{other}` is no form of a variable that is known")),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Takes what the pattern matches from the beginning or the end.
fn trim(value: &str, pattern: &str, front: bool, longest: bool) -> String {
    let cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    let fits = |cut: &&usize| {
        let (start, end) = value.split_at(**cut);
        match_part(pattern, if front { start } else { end })
    };
    // From the front a long match ends late, from the end it begins early.
    let cut = if front == longest { cuts.iter().rev().find(fits) } else { cuts.iter().find(fits) };
    match cut {
        Some(cut) if front => value[*cut..].to_owned(),
        Some(cut) => value[..*cut].to_owned(),
        None => value.to_owned(),
    }
}

/// Puts `new` in the place of the longest match from the left, once or everywhere.
fn replace(value: &str, pattern: &str, new: &str, all: bool) -> String {
    let mut result = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        let ends =
            rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev().find(|end| match_part(pattern, &rest[..*end]));
        match ends {
            Some(end) => {
                result.push_str(new);
                rest = &rest[end..];
                if !all {
                    break;
                }
            }
            None => {
                let next = rest.chars().next().map_or(0, char::len_utf8);
                result.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn variables() -> Vec<(String, String)> {
        [("A", "a"), ("EMPTY", ""), ("P", "a/b/c.tar.gz"), ("Q", "'x\" $A")].map(|(n, v)| (n.into(), v.into())).to_vec()
    }

    #[test]
    fn words_are_expanded_as_docker_does() {
        for (word, expect) in [
            ("plain", "plain"),
            ("$A", "a"),
            ("${A}b", "ab"),
            ("$Ab", ""),
            ("$A-b", "a-b"),
            ("'$A'", "$A"),
            ("\"$A\"", "a"),
            ("\\$A", "$A"),
            ("\"\\$A \\\" \\n\"", "$A \" \\n"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("a$", "a$"),
            ("$-", "$-"),
            ("${NO:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${A:-x}", "a"),
            ("${A:+x}", "x"),
            ("${NO:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${NO:-${A}/$A}", "a/a"),
            ("${NO:-'}'}", "}"),
            ("${A:?no}", "a"),
            ("${P#*/}", "b/c.tar.gz"),
            ("${P##*/}", "c.tar.gz"),
            ("${P%.*}", "a/b/c.tar"),
            ("${P%%.*}", "a/b/c"),
            ("${P/\\//-}", "a-b/c.tar.gz"),
            ("${P//\\//-}", "a-b-c.tar.gz"),
            // What a variable holds is not looked at again.
            ("$Q", "'x\" $A"),
            ("ünï$A", "ünïa"),
        ] {
            assert_eq!(expand(word, '\\', variables().as_slice()).as_deref(), Ok(expect), "{word}");
        }
        for word in ["'a", "\"a", "${A", "${}", "${NO:?}", "${A!x}", &"${NO:-".repeat(100)] {
            assert!(expand(word, '\\', variables().as_slice()).is_err(), "{word}");
        }
        let error = expand("${NO?is needed}", '\\', variables().as_slice()).unwrap_err();
        assert_eq!(error, "the variable NO is not set: is needed");
        assert_eq!(expand("a`$A", '`', variables().as_slice()).unwrap(), "a$A");
    }

    #[test]
    fn lines_fall_into_words() {
        for (text, expect) in [
            ("a b\tc", vec!["a", "b", "c"]),
            ("  a=\"x y\" b='q r'  c=d\\ e ", vec!["a=\"x y\"", "b='q r'", "c=d\\ e"]),
            ("a=\"x \\\" y\" z", vec!["a=\"x \\\" y\"", "z"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text, '\\'), expect);
        }
    }
}
