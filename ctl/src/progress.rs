//! Telling people on stderr how far something is: a bar where stderr is a terminal, lines where something changes elsewhere.

use crate::output::talk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A bar, or nothing when nobody looks.
pub struct Progress {
    bar: Option<ProgressBar>,
    said: String,
}

impl Progress {
    /// A bar that counts things.
    pub fn counting(prefix: &str) -> Self {
        Self::with_template(prefix, "{spinner} {prefix} [{bar:30}] {pos}/{len} {wide_msg}")
    }

    /// A bar that counts bytes of a known sum.
    pub fn bytes(prefix: &str) -> Self {
        Self::with_template(
            prefix,
            "{spinner} {prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}",
        )
    }

    /// A spinner that counts bytes of an unknown sum.
    pub fn bytes_so_far(prefix: &str) -> Self {
        Self::with_template(prefix, "{spinner} {prefix} {bytes} {binary_bytes_per_sec} {wide_msg}")
    }

    fn with_template(prefix: &str, template: &str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(prefix.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, said: String::new() }
    }

    /// Sets how far it is.
    pub fn set(&self, done: u64, of: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(done);
        }
    }

    /// Shows a passing remark, which only a bar has room for.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Says something once: again only after something else was said.
    pub fn say(&mut self, text: &str) {
        if text.is_empty() || self.said == text {
            return;
        }
        text.clone_into(&mut self.said);
        match &self.bar {
            Some(bar) => bar.suspend(|| talk(text)),
            None => talk(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
