//! One call of `ctl`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// A call of `ctl` that is over.
#[derive(Debug)]
pub struct Run {
    /// What was called.
    pub line: String,
    /// Its exit code, 128+N for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Calls a command with some standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn of(mut command: Command, stdin: &str) -> Result<Self> {
        let line = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| line.clone())?;
        let mut input = child.stdin.take().context("stdin")?;
        let text = stdin.to_owned();
        let writer = std::thread::spawn(move || {
            // The command may end without reading all of it.
            input.write_all(text.as_bytes()).ok();
        });
        let output = child.wait_with_output()?;
        writer.join().ok();
        Ok(Self::from_output(line, &output))
    }

    fn from_output(line: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or_else(|| output.status.signal().map(|s| 128 + s)).unwrap_or(-1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { line, code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Fails unless the exit code was 0.
    ///
    /// # Errors
    /// With everything the command said.
    pub fn ok(self) -> Result<Self> {
        self.code_is(0)
    }

    /// Fails unless the exit code was this.
    ///
    /// # Errors
    /// With everything the command said.
    pub fn code_is(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "{}\nexit code {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{} printed no JSON:\n{}", self.line, self.stdout))
    }
}
