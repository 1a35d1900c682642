//! Stopping a group's processes from running, and letting them go on.

use super::{
    Group, Mode,
    files::{read_keyed, write},
};
use crate::error::{Error, Result};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long a group may take to stop: a process in the kernel stops when it comes out.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// A group that does not run until this is dropped.
#[derive(Debug)]
pub struct Frozen(pub(super) Group);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(e) = self.0.thaw() {
            tracing::error!("a container stays frozen: {e}");
        }
    }
}

impl Group {
    fn switch(&self) -> Option<PathBuf> {
        let (controller, file) =
            if self.mode == Mode::V2 { ("", "cgroup.freeze") } else { ("freezer", "freezer.state") };
        self.dir(controller).map(|d| d.join(file)).filter(|f| f.exists())
    }

    pub(super) fn freeze(&self) -> Result<()> {
        let Some(switch) = self.switch() else {
            return Err(Error::Invalid(
                "this host's cgroups cannot freeze a container: commit it with --no-pause".into(),
            ));
        };
        let v2 = self.mode == Mode::V2;
        write(&switch, if v2 { "1" } else { "FROZEN" })?;
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        let is_frozen = || match v2 {
            true => self.dir("").and_then(|d| read_keyed(&d.join("cgroup.events"), "frozen")) == Some(1),
            false => fs::read_to_string(&switch).is_ok_and(|state| state.trim() == "FROZEN"),
        };
        while !is_frozen() {
            if Instant::now() >= deadline {
                self.thaw()?;
                return Err(Error::Timeout { peer: "frozen container".into(), seconds: FREEZE_TIMEOUT.as_secs() });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(super) fn thaw(&self) -> Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        write(&switch, if self.mode == Mode::V2 { "0" } else { "THAWED" })
    }
}
