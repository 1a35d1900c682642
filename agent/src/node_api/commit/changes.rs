//! Lines of a Dockerfile that change how an image runs, as `commit -c` takes them.

use serde_json::{Map, Value, json};

/// Lines of one commit.
const LINES_MAX: usize = 128;

/// What is to be changed, in order.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Change>);

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Cmd, Entrypoint.
    Command(&'static str, Vec<String>),
    /// Env: name and value.
    Env(String, String),
    /// Labels.
    Label(String, String),
    /// Members of ExposedPorts, Volumes.
    Members(&'static str, Vec<String>),
    /// User, WorkingDir, StopSignal.
    Text(&'static str, String),
}

impl Changes {
    /// Reads the lines; the error says which and why.
    pub(super) fn parse(lines: &[String]) -> Result<Self, String> {
        if lines.len() > LINES_MAX {
            return Err(format!("lines: at most {LINES_MAX} are possible"));
        }
        let mut all = Vec::new();
        for line in lines {
            all.extend(parse(line.trim()).map_err(|why| format!("{line:?}: {why}"))?);
        }
        Ok(Self(all))
    }

    /// Applies them to the `config` of an image's config.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        let has_command = self.0.iter().any(|c| matches!(c, Change::Command("Cmd", _)));
        for change in &self.0 {
            match change {
                Change::Command(key, words) => {
                    config.insert((*key).to_owned(), json!(words));
                    // As in a Dockerfile: the base's arguments were for its own program.
                    if *key == "Entrypoint" && !has_command {
                        config.remove("Cmd");
                    }
                }
                Change::Env(name, value) => {
                    let mut env = match config.remove("Env") {
                        Some(Value::Array(env)) => env,
                        _ => Vec::new(),
                    };
                    let line = json!(format!("{name}={value}"));
                    let own = env
                        .iter_mut()
                        .find(|l| l.as_str().and_then(|l| l.split_once('=')).is_some_and(|(n, _)| n == name));
                    match own {
                        Some(own) => *own = line,
                        None => env.push(line),
                    }
                    config.insert("Env".into(), Value::Array(env));
                }
                Change::Label(name, value) => add(config, "Labels", [(name.clone(), json!(value))]),
                Change::Members(key, names) => {
                    add(config, key, names.iter().map(|name| (name.clone(), json!({}))));
                }
                Change::Text(key, text) => {
                    config.insert((*key).to_owned(), json!(text));
                }
            }
        }
    }
}

/// Adds members to the object at a key, which is made if it is not one.
fn add(config: &mut Map<String, Value>, key: &str, members: impl IntoIterator<Item = (String, Value)>) {
    let mut object = match config.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.extend(members);
    config.insert(key.to_owned(), Value::Object(object));
}

fn parse(line: &str) -> Result<Vec<Change>, String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("nothing follows the instruction".into());
    }
    Ok(match word.to_ascii_uppercase().as_str() {
        "CMD" => vec![Change::Command("Cmd", command(rest)?)],
        "ENTRYPOINT" => vec![Change::Command("Entrypoint", command(rest)?)],
        "ENV" => pairs(rest)?.into_iter().map(|(n, v)| Change::Env(n, v)).collect(),
        "LABEL" => pairs(rest)?.into_iter().map(|(n, v)| Change::Label(n, v)).collect(),
        "EXPOSE" => {
            vec![Change::Members("ExposedPorts", words(rest)?.iter().map(|p| port(p)).collect::<Result<_, _>>()?)]
        }
        "VOLUME" => {
            let names = if rest.starts_with('[') { strings(rest)? } else { words(rest)? };
            vec![Change::Members("Volumes", names)]
        }
        "USER" => vec![Change::Text("User", one(rest)?)],
        "WORKDIR" => vec![Change::Text("WorkingDir", one(rest)?)],
        "STOPSIGNAL" => vec![Change::Text("StopSignal", one(rest)?)],
        _ => {
            return Err(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR are possible".into()
            );
        }
    })
}

fn strings(text: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(text).map_err(|e| format!("it is no list of strings: {e}"))
}

/// `["a", "b"]`, else a line for the shell.
fn command(text: &str) -> Result<Vec<String>, String> {
    if text.starts_with('[') { strings(text) } else { Ok(vec!["/bin/sh".into(), "-c".into(), text.into()]) }
}

fn one(text: &str) -> Result<String, String> {
    match words(text)?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err("one word is wanted".into()),
    }
}

fn port(text: &str) -> Result<String, String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    match number.parse::<u16>() {
        Ok(1..) if known => Ok(format!("{number}/{protocol}")),
        _ => Err(format!("{text:?} is no port, as in 80 or 53/udp")),
    }
}

/// `A=1 B="x y"`, or `A the whole rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("a name without a value")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pairs = words(text)?.into_iter().map(|word| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is no NAME=VALUE")),
    });
    pairs.collect()
}

/// Words as a shell separates them, without what it would expand.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), l) if l == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, l) if l.is_whitespace() => words.extend(word.take()),
            (_, l) => word.get_or_insert_default().push(l),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn applied(base: Value, lines: &[&str]) -> Value {
        let Value::Object(mut config) = base else { return Value::Null };
        let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        Changes::parse(&lines).unwrap().apply(&mut config);
        Value::Object(config)
    }

    #[test]
    fn lines_change_what_they_name() {
        for (base, lines, want) in [
            (json!({}), vec!["CMD echo hi"], json!({"Cmd": ["/bin/sh", "-c", "echo hi"]})),
            (json!({"Cmd": ["a"]}), vec!["ENTRYPOINT [\"e\"]"], json!({"Entrypoint": ["e"]})),
            (
                json!({"Cmd": ["a"]}),
                vec!["entrypoint [\"e\"]", "CMD [\"b\"]"],
                json!({"Entrypoint": ["e"], "Cmd": ["b"]}),
            ),
            (json!({"Env": ["A=1"]}), vec!["ENV A=2 B=\"x y\" C=d\\ e"], json!({"Env": ["A=2", "B=x y", "C=d e"]})),
            (json!({}), vec!["ENV A the rest"], json!({"Env": ["A=the rest"]})),
            (json!({"Labels": null}), vec!["LABEL a=b"], json!({"Labels": {"a": "b"}})),
            (json!({}), vec!["EXPOSE 80 53/udp"], json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}})),
            (json!({}), vec!["VOLUME [\"/a\"]", "VOLUME /b"], json!({"Volumes": {"/a": {}, "/b": {}}})),
            (
                json!({}),
                vec!["USER 1:2", "WORKDIR /x", "STOPSIGNAL INT"],
                json!({"User": "1:2", "WorkingDir": "/x", "StopSignal": "INT"}),
            ),
        ] {
            assert_eq!(applied(base, &lines), want, "{lines:?}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["RUN x", "CMD", "CMD [1]", "EXPOSE http", "ENV A", "ENV ='x'", "USER a b", "LABEL a='", ""] {
            assert!(Changes::parse(&[line.to_owned()]).is_err(), "{line}");
        }
    }
}
