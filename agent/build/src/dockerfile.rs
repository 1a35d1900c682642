//! The text of a Dockerfile as stages and steps. `parse-dockerfile` reads it; what its words mean is decided here, variables later.

mod lines;

use parse_dockerfile::{Command as Parsed, Flag, HealthcheckArguments, Instruction, JsonOrStringArray, Source};

use crate::error::{BuildError, Result};
use crate::heredoc::{self, Documents};
use crate::limits::{DOCKERFILE_BYTES_MAX, STEPS_MAX};
use crate::words;
use lines::Lines;

/// The name of a build argument, and its default as it stands there.
pub(crate) type ArgDeclaration = (String, Option<String>);

/// A Dockerfile.
#[derive(Debug)]
pub(crate) struct Dockerfile {
    /// Its name, for messages.
    pub name: String,
    /// What protects characters and ends lines that go on.
    pub escape: char,
    /// `ARG` before the first `FROM`, with lines.
    pub global_args: Vec<(usize, Vec<ArgDeclaration>)>,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// What follows one `FROM`.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Of its `FROM`, from 1.
    pub line: usize,
    /// The `FROM` as it stands there.
    pub text: String,
    /// An image, a stage, or `scratch`; not yet expanded.
    pub image: String,
    /// `--platform`; not yet expanded.
    pub platform: Option<String>,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// In order.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// From 1.
    pub line: usize,
    /// As it stands there, on one line.
    pub text: String,
    /// What it asks for.
    pub action: Action,
}

/// What an instruction asks for. Words are as they stand there unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Copy(Copy),
    Arg(Vec<ArgDeclaration>),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    /// The instruction's text.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// Of RUN, CMD, ENTRYPOINT and HEALTHCHECK; variables in it are the shell's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// For the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// ADD: archives are unpacked.
    pub add: bool,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub sources: Vec<CopySource>,
    pub dest: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopySource {
    Path(String),
    /// A here-document: its name, its text, and whether variables in it are expanded.
    Text(String, String, bool),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub command: Command,
    /// Whether it has a network beside loopback.
    pub network: bool,
}

/// HEALTHCHECK; numbers absent mean what the base image says, or Docker's defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Healthcheck {
    /// `None`: no check, also not the base image's.
    pub command: Option<Command>,
    pub interval_ns: Option<u64>,
    pub timeout_ns: Option<u64>,
    pub start_period_ns: Option<u64>,
    pub start_interval_ns: Option<u64>,
    pub retries: Option<u64>,
}

impl Dockerfile {
    /// Reads it.
    ///
    /// # Errors
    /// [`BuildError::Dockerfile`] with the line.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        let fault = |line: usize, message: String| BuildError::Dockerfile { file: name.to_owned(), line, message };
        if text.len() > DOCKERFILE_BYTES_MAX {
            return Err(fault(1, format!("it has {} bytes; at most {DOCKERFILE_BYTES_MAX} are possible", text.len())));
        }
        let escape = lines::escape_directive(text);
        let (kept, documents) = heredoc::extract(text, escape).map_err(|(line, message)| fault(line, message))?;
        let parsed =
            parse_dockerfile::parse(&kept).map_err(|error| fault(error.line().max(1), format!("{error:#}")))?;
        let lines = Lines::new(&kept, escape);
        let reader = Reader { lines: &lines, escape, documents: &documents };
        let mut file = Self { name: name.to_owned(), escape, global_args: Vec::new(), stages: Vec::new() };
        if parsed.instructions.len() > STEPS_MAX {
            return Err(fault(1, format!("more than {STEPS_MAX} instructions")));
        }
        for instruction in &parsed.instructions {
            let at = start(instruction);
            let line = lines.number(at);
            file.take(&reader, instruction, at).map_err(|message| fault(line, message))?;
        }
        Ok(file)
    }

    fn take(&mut self, reader: &Reader<'_>, instruction: &Instruction<'_>, at: usize) -> Result<(), String> {
        let (line, text) = (reader.lines.number(at), reader.lines.text(at));
        if let Instruction::From(from) = instruction {
            let [platform] = flags(&from.options, ["platform"])?;
            let name = from.as_.as_ref().map(|(_, name)| name.value.to_lowercase());
            let image = from.image.value.clone().into_owned();
            self.stages.push(Stage { line, text, image, platform, name, steps: Vec::new() });
            return Ok(());
        }
        let action = reader.action(instruction, line)?;
        match (self.stages.last_mut(), action) {
            (None, Action::Arg(args)) => self.global_args.push((line, args)),
            (None, _) => return Err("the first instruction must be FROM (or ARG)".into()),
            (Some(stage), action) => stage.steps.push(Step { line, text, action }),
        }
        Ok(())
    }
}

struct Reader<'a> {
    lines: &'a Lines<'a>,
    escape: char,
    documents: &'a Documents,
}

impl Reader<'_> {
    fn action(&self, instruction: &Instruction<'_>, line: usize) -> Result<Action, String> {
        Ok(match instruction {
            Instruction::Add(add) => self.copy(true, &add.options, &add.src, &add.dest.value, add.add.span.start)?,
            Instruction::Copy(copy) => {
                self.copy(false, &copy.options, &copy.src, &copy.dest.value, copy.copy.span.start)?
            }
            Instruction::Arg(arg) => Action::Arg(self.args(&arg.arguments.value)?),
            Instruction::Cmd(cmd) => Action::Cmd(self.command(&cmd.arguments)),
            Instruction::Entrypoint(entrypoint) => Action::Entrypoint(self.command(&entrypoint.arguments)),
            Instruction::Env(env) => Action::Env(self.pairs("ENV", &env.arguments.value)?),
            Instruction::Expose(expose) => {
                Action::Expose(expose.arguments.iter().map(|port| port.value.clone().into_owned()).collect())
            }
            Instruction::Healthcheck(check) => Action::Healthcheck(self.healthcheck(&check.options, &check.arguments)?),
            Instruction::Label(label) => Action::Label(self.pairs("LABEL", &label.arguments.value)?),
            Instruction::Maintainer(maintainer) => Action::Maintainer(maintainer.name.value.clone().into_owned()),
            Instruction::Onbuild(onbuild) => self.onbuild(&onbuild.instruction)?,
            Instruction::Run(run) => self.run(run, line)?,
            Instruction::Shell(shell) => {
                Action::Shell(shell.arguments.iter().map(|word| word.value.clone().into_owned()).collect())
            }
            Instruction::Stopsignal(signal) => Action::Stopsignal(signal.arguments.value.clone().into_owned()),
            Instruction::User(user) => Action::User(user.arguments.value.clone().into_owned()),
            Instruction::Volume(volume) => Action::Volume(match &volume.arguments {
                JsonOrStringArray::Json(list) => {
                    list.value.iter().map(|word| word.value.clone().into_owned()).collect()
                }
                JsonOrStringArray::String(list) => list.iter().map(|word| word.value.clone().into_owned()).collect(),
            }),
            Instruction::Workdir(workdir) => Action::Workdir(workdir.arguments.value.clone().into_owned()),
            other => return Err(format!("this instruction is not known: {other:?}")),
        })
    }

    fn command(&self, command: &Parsed<'_>) -> Command {
        match command {
            Parsed::Exec(words) => {
                Command::Exec(words.value.iter().map(|word| word.value.clone().into_owned()).collect())
            }
            Parsed::Shell(text) => Command::Shell(lines::join(text.value, self.escape)),
            // The enum may grow; the crate has no third form.
            _ => Command::Exec(Vec::new()),
        }
    }

    fn copy(
        &self,
        add: bool,
        options: &[Flag<'_>],
        sources: &[Source<'_>],
        dest: &str,
        at: usize,
    ) -> Result<Action, String> {
        let [from, chown, chmod, link] = flags(options, ["from", "chown", "chmod", "link"])?;
        if add && from.is_some() {
            return Err("ADD has no --from: use COPY".into());
        }
        if link.is_some_and(|link| !matches!(link.as_str(), "" | "true" | "false")) {
            return Err("--link is true or false".into());
        }
        let mut names = heredoc::names(self.lines.text(at).as_str(), self.escape).into_iter();
        let sources = sources.iter().map(|source| match source {
            Source::Path(path) => Ok(CopySource::Path(path.value.clone().into_owned())),
            Source::HereDoc(document) => {
                let name = names.next().unwrap_or_else(|| "document".into());
                Ok(CopySource::Text(name, document.value.clone().into_owned(), document.expand))
            }
            other => Err(format!("this source is not known: {other:?}")),
        });
        let sources = sources.collect::<Result<Vec<_>, String>>()?;
        Ok(Action::Copy(Copy { add, from, chown, chmod, sources, dest: dest.to_owned() }))
    }

    fn args(&self, text: &str) -> Result<Vec<ArgDeclaration>, String> {
        let args = words::split(text, self.escape).into_iter().map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        });
        let args: Vec<_> = args.collect();
        match args.iter().find(|(name, _)| !is_name(name)) {
            Some((name, _)) => Err(format!("ARG: {name:?} is no name of a variable")),
            None => Ok(args),
        }
    }

    /// `name=value name=value`, or the old form `name the rest of the line`.
    fn pairs(&self, instruction: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let words = words::split(text, self.escape);
        let old_form = words.first().is_some_and(|word| !word.contains('='));
        if old_form {
            let (name, value) =
                text.split_once(char::is_whitespace).ok_or_else(|| format!("{instruction} needs NAME=VALUE"))?;
            return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
        }
        let pairs = words.into_iter().map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{instruction}: {word:?} is not NAME=VALUE; a value with blanks needs quotes")),
        });
        pairs.collect()
    }

    fn healthcheck(&self, options: &[Flag<'_>], arguments: &HealthcheckArguments<'_>) -> Result<Healthcheck, String> {
        let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let [interval, timeout, start_period, start_interval, retries] = flags(options, names)?;
        let time = |text: Option<String>| text.map(|text| duration_ns(&text)).transpose();
        let retries =
            retries.map(|text| text.parse().map_err(|_| format!("--retries={text} is no number"))).transpose()?;
        let command = match arguments {
            HealthcheckArguments::Cmd { arguments, .. } => Some(self.command(arguments)),
            _ => None,
        };
        Ok(Healthcheck {
            command,
            interval_ns: time(interval)?,
            timeout_ns: time(timeout)?,
            start_period_ns: time(start_period)?,
            start_interval_ns: time(start_interval)?,
            retries,
        })
    }

    fn onbuild(&self, instruction: &Instruction<'_>) -> Result<Action, String> {
        if matches!(instruction, Instruction::From(_) | Instruction::Maintainer(_) | Instruction::Onbuild(_)) {
            return Err("ONBUILD cannot hold FROM, MAINTAINER or ONBUILD".into());
        }
        Ok(Action::Onbuild(self.lines.text(start(instruction))))
    }

    fn run(&self, run: &parse_dockerfile::RunInstruction<'_>, line: usize) -> Result<Action, String> {
        if run.options.iter().any(|flag| flag.name.value == "mount") {
            return Err("RUN --mount is not built yet: COPY what the step needs, and remove it in the same step".into());
        }
        let [network, security] = flags(&run.options, ["network", "security"])?;
        let network = match network.as_deref() {
            None | Some("default") => true,
            Some("none") => false,
            Some(other) => {
                return Err(format!("RUN --network={other} is not allowed: a step has the network of a pod, or none"));
            }
        };
        if let Some(other) = security.filter(|security| security != "sandbox") {
            return Err(format!("RUN --security={other} is not allowed: every step runs isolated"));
        }
        let mut command = self.command(&run.arguments);
        if let Command::Shell(text) = &mut command {
            if let Some(document) = run.here_docs.first() {
                if document.value.starts_with("#!") {
                    return Err("a RUN here-document with its own interpreter (#!) is not built yet: COPY it to a file and run that".into());
                }
                if !text.trim().is_empty() {
                    return Err(format!("{:?} behind the here-document is not known", text.trim()));
                }
                *text = document.value.trim_end_matches('\n').to_owned();
            }
            if let Some(documents) = self.documents.get(&line) {
                text.push_str(documents);
            }
            if text.trim().is_empty() {
                return Err("RUN needs a command".into());
            }
        }
        Ok(Action::Run(Run { command, network }))
    }
}

/// The values of the flags that an instruction may have, each at most once.
fn flags<const N: usize>(options: &[Flag<'_>], known: [&str; N]) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for flag in options {
        let name = flag.name.value.as_ref();
        let Some(at) = known.iter().position(|known| *known == name) else {
            let known: Vec<String> = known.iter().map(|known| format!("--{known}")).collect();
            return Err(format!(
                "the flag --{name} is not known or not built yet here; possible are {}",
                known.join(", ")
            ));
        };
        if values[at].is_some() {
            return Err(format!("the flag --{name} comes twice"));
        }
        values[at] = Some(flag.value.as_ref().map(|value| value.value.clone().into_owned()).unwrap_or_default());
    }
    Ok(values)
}

/// A duration as Go writes them (`1m30s`, `500ms`), in nanoseconds.
fn duration_ns(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no duration such as 30s or 1m30s");
    let mut rest = text;
    let mut sum = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        rest = &rest[unit..];
        let part = (number * scale).round();
        if !(0.0..1e18).contains(&part) {
            return Err(bad());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        {
            sum = sum.saturating_add(part as u64);
        }
    }
    if text.is_empty() { Err(bad()) } else { Ok(sum) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Where an instruction begins in the text.
fn start(instruction: &Instruction<'_>) -> usize {
    let keyword = match instruction {
        Instruction::Add(i) => &i.add,
        Instruction::Arg(i) => &i.arg,
        Instruction::Cmd(i) => &i.cmd,
        Instruction::Copy(i) => &i.copy,
        Instruction::Entrypoint(i) => &i.entrypoint,
        Instruction::Env(i) => &i.env,
        Instruction::Expose(i) => &i.expose,
        Instruction::From(i) => &i.from,
        Instruction::Healthcheck(i) => &i.healthcheck,
        Instruction::Label(i) => &i.label,
        Instruction::Maintainer(i) => &i.maintainer,
        Instruction::Onbuild(i) => &i.onbuild,
        Instruction::Run(i) => &i.run,
        Instruction::Shell(i) => &i.shell,
        Instruction::Stopsignal(i) => &i.stopsignal,
        Instruction::User(i) => &i.user,
        Instruction::Volume(i) => &i.volume,
        Instruction::Workdir(i) => &i.workdir,
        _ => return 0,
    };
    keyword.span.start
}

#[cfg(test)]
#[path = "dockerfile/tests.rs"]
mod tests;
