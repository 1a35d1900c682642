//! The instructions that change nothing but the image's configuration.

use super::{Build, Stage};
use crate::config::{HealthConfig, Nothing, set_env};
use crate::dockerfile::{Action, Command, Healthcheck, Step};
use crate::error::{BuildError, Result};

/// The shell of commands in shell form, where neither SHELL nor the base image names one.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Ports that one range of EXPOSE may name.
const PORTS_MAX: u16 = 1_000;

impl Build<'_> {
    /// Does one step.
    pub(super) async fn step(&mut self, at: usize, stage: &mut Stage, step: &Step) -> Result<()> {
        match &step.action {
            Action::Copy(copy) => return self.copy(at, stage, step, copy).await,
            Action::Run(run) => return self.run(stage, step, run).await,
            Action::Workdir(path) => return self.workdir(stage, step, path).await,
            action => self.configure(stage, action)?,
        }
        let created = self.epoch.unwrap_or(stage.created);
        stage.config.add(&step.text, created, None);
        Ok(())
    }

    fn configure(&self, stage: &mut Stage, action: &Action) -> Result<()> {
        let words = |stage: &Stage, words: &[String]| {
            words.iter().map(|word| self.expand(stage, word)).collect::<Result<Vec<String>>>()
        };
        let pairs = |stage: &Stage, pairs: &[(String, String)]| {
            // All see the values from before the instruction.
            let pairs = pairs.iter().map(|(name, value)| Ok((self.expand(stage, name)?, self.expand(stage, value)?)));
            pairs.collect::<Result<Vec<(String, String)>>>()
        };
        match action {
            Action::Arg(args) => {
                for (name, default) in args {
                    let given = self.argument(name);
                    let value = match (given, default) {
                        (Some(given), _) => given,
                        (None, Some(word)) => self.expand(stage, word)?,
                        (None, None) => continue,
                    };
                    stage.args.push((name.clone(), value));
                }
            }
            Action::Env(list) => {
                for (name, value) in pairs(stage, list)? {
                    set_env(&mut stage.config.config.env, &name, &value);
                }
            }
            Action::Label(list) => stage.config.config.labels.extend(pairs(stage, list)?),
            Action::Expose(list) => {
                for word in words(stage, list)? {
                    for port in ports(&word)? {
                        stage.config.config.exposed_ports.insert(port, Nothing {});
                    }
                }
            }
            Action::Volume(list) => {
                for path in words(stage, list)? {
                    if path.trim().is_empty() {
                        return Err(BuildError::invalid("the path of a volume is empty"));
                    }
                    stage.config.config.volumes.insert(path, Nothing {});
                }
            }
            Action::User(word) => {
                let user = self.expand(stage, word)?;
                if user.is_empty() || user.contains(char::is_whitespace) {
                    return Err(BuildError::invalid(format!("{user:?} is no user")));
                }
                stage.config.config.user = user;
            }
            Action::Cmd(command) => {
                stage.config.config.cmd = self.command(stage, command);
                stage.cmd_set = true;
            }
            Action::Entrypoint(command) => {
                stage.config.config.entrypoint = self.command(stage, command);
                // The base image's command was made for the base image's entry point.
                if !stage.cmd_set {
                    stage.config.config.cmd.clear();
                }
            }
            Action::Shell(shell) => stage.config.config.shell.clone_from(shell),
            Action::Stopsignal(word) => {
                let signal = self.expand(stage, word)?;
                strata_runtime::spec::signal_number(&signal)
                    .map_err(|_| BuildError::invalid(format!("{signal:?} is no signal such as SIGTERM or 15")))?;
                stage.config.config.stop_signal = signal;
            }
            Action::Healthcheck(check) => {
                let config = self.healthcheck(stage, check);
                stage.config.config.healthcheck = Some(config);
            }
            Action::Maintainer(name) => stage.config.author.clone_from(name),
            Action::Onbuild(text) => stage.config.config.on_build.push(text.clone()),
            Action::Copy(_) | Action::Run(_) | Action::Workdir(_) => {}
        }
        Ok(())
    }

    /// Program and arguments of a command.
    pub(super) fn command(&self, stage: &Stage, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let shell = &stage.config.config.shell;
                let mut words: Vec<String> =
                    if shell.is_empty() { SHELL.map(String::from).to_vec() } else { shell.clone() };
                words.push(text.clone());
                words
            }
        }
    }

    fn healthcheck(&self, stage: &Stage, check: &Healthcheck) -> HealthConfig {
        let shell = &stage.config.config.shell;
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
            // A check with a shell of its own can only be said with all its words.
            Some(command) if !shell.is_empty() => {
                ["CMD".to_owned()].into_iter().chain(self.command(stage, command)).collect()
            }
            Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        };
        HealthConfig {
            test,
            interval: check.interval_ns.unwrap_or(0),
            timeout: check.timeout_ns.unwrap_or(0),
            start_period: check.start_period_ns.unwrap_or(0),
            start_interval: check.start_interval_ns.unwrap_or(0),
            retries: check.retries.unwrap_or(0),
        }
    }
}

/// `80`, `80/udp`, `8000-8010/tcp` as the names that a config has.
fn ports(word: &str) -> Result<Vec<String>> {
    let bad = || BuildError::invalid(format!("{word:?} is no port such as 80, 53/udp or 8000-8010"));
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") || first > last || last - first >= PORTS_MAX {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_have_protocols_and_ranges() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(ports("8000-8002").unwrap(), ["8000/tcp", "8001/tcp", "8002/tcp"]);
        for word in ["", "x", "80/x", "9-8", "1-65535", "70000"] {
            assert!(ports(word).is_err(), "{word}");
        }
    }
}
