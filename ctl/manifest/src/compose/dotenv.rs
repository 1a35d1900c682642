//! `.env` and `env_file`: `NAME=value` a line.
//! Source: the Compose specification, "env_file", and Docker's "Syntax for environment files".

use std::collections::HashMap;

use super::variables::Variables;
use crate::scalar::cut;

/// Reads the variables in order. Values in no quotes or in double quotes have their own variables replaced, by `variables` and what stands
/// before them; without `variables` they are taken as they are.
///
/// # Errors
/// The line and what is wrong with it. Values are not shown.
pub(crate) fn parse(text: &str, variables: Option<&Variables<'_>>) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    // Variables of the surroundings win over those that stand before in the file.
    let mut before: HashMap<String, String> = HashMap::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (first, more) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        let here = line;
        if trimmed.is_empty() || trimmed.starts_with('#') {
            (rest, line) = (more, line + 1);
            continue;
        }
        let bare = first.trim_start();
        let bare = bare.strip_prefix("export ").map_or(bare, str::trim_start);
        let name_len = bare.find(['=', ':']).unwrap_or(bare.len());
        let name = bare[..name_len].trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((here, format!("{:?} is no NAME=value", cut(name))));
        }
        if name_len == bare.len() {
            // `NAME` alone: the environment's, if it is there.
            if let Some(value) = variables.and_then(|v| v.get(name)) {
                found.push((name.to_owned(), value));
            }
            (rest, line) = (more, line + 1);
            continue;
        }
        let offset = rest.len() - rest.trim_start().len();
        let after = &rest[offset..];
        let after = after.strip_prefix("export ").map_or(after, str::trim_start);
        let value = after[name_len + 1..].trim_start_matches([' ', '\t']);
        let (value, expand, left) = read_value(value).map_err(|why| (here, format!("{}: {why}", cut(name))))?;
        line += rest[..rest.len() - left.len()].matches('\n').count();
        rest = left;
        let value = match variables {
            Some(variables) if expand => {
                let value = variables.interpolate_with(&value, &before);
                value.map_err(|why| (here, format!("{}: {why}", cut(name))))?
            }
            _ => value,
        };
        before.insert(name.to_owned(), value.clone());
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

/// The value, whether variables in it are replaced, and what stands behind its line.
fn read_value(text: &str) -> Result<(String, bool, &str), String> {
    let rest_of_line = |text: &'_ str| -> usize { text.find('\n').map_or(text.len(), |at| at + 1) };
    if let Some(inner) = text.strip_prefix('\'') {
        let end = inner.find('\'').ok_or("the quote ' has no end")?;
        let left = &inner[end + 1..];
        return Ok((inner[..end].to_owned(), false, &left[rest_of_line(left)..]));
    }
    if let Some(inner) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = inner.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    let left = &inner[at + 1..];
                    return Ok((value, true, &left[rest_of_line(left)..]));
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some('$') => value.push_str("$$"),
                    Some(c @ ('"' | '\\' | '\'')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        return Err("the quote \" has no end".to_owned());
    }
    let end = text.find('\n').unwrap_or(text.len());
    let line = &text[..end];
    let comment = line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '\t']));
    let value = comment.map_or(line, |(at, _)| &line[..at]).trim_end();
    Ok((value.to_owned(), true, &text[rest_of_line(text)..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::around::Nowhere;

    #[test]
    fn lines_are_read_as_docker_reads_them() {
        let variables = Variables::new(&Nowhere, [("HOST".to_owned(), "h".to_owned())].into());
        let text = "# comment\n\nA=1\r\nexport B = two words  # why\nC='$HOST # \"x\"'\nD=\"a\\nb $HOST \\$HOST\" # c\nE=${HOST}:$A\nF=\nG: yaml\nHOST\nNOT_SET\nI=a#b\nJ='two\nlines'\nK=last";
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$HOST # \"x\""),
            ("D", "a\nb h $HOST"),
            ("E", "h:1"),
            ("F", ""),
            ("G", "yaml"),
            ("HOST", "h"),
            ("I", "a#b"),
            ("J", "two\nlines"),
            ("K", "last"),
        ];
        let found = parse(text, Some(&variables)).unwrap();
        assert_eq!(found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), want);
        assert_eq!(parse("A=$B", None).unwrap(), [("A".to_owned(), "$B".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, want) in [
            ("A=1\nB='x\n", (2, "B: the quote ' has no end")),
            ("\n\nA=\"x", (3, "A: the quote \" has no end")),
            ("=x", (1, "\"\" is no NAME=value")),
            ("A B=x", (1, "\"A B\" is no NAME=value")),
            ("A='x\ny'\nB=${", (3, "B: \"${\" is no reference to a variable: write ${NAME}, or $$ for a dollar")),
        ] {
            let variables = Variables::new(&Nowhere, [].into());
            let (line, why) = parse(text, Some(&variables)).unwrap_err();
            assert_eq!((line, why.as_str()), want);
        }
    }
}
