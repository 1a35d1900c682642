//! What an end means: codes and words.

use strata_reconciler::ExitFact;
use strata_runtime::Exit;

/// An end, with whether the kernel killed any of the container's processes for want of memory.
pub(super) fn fact(exit: &Exit, out_of_memory: bool) -> ExitFact {
    let (reason, message) = match (exit.code, out_of_memory) {
        // Its main process coped with the loss of another one.
        (0, _) => ("Completed", String::new()),
        (_, true) => ("OOMKilled", "the kernel killed it for want of memory; raise limits.memory or use less".into()),
        (_, false) => ("Error", exit.signal.map(|s| format!("ended by signal {s}")).unwrap_or_default()),
    };
    let finished_unix_ms = u64::try_from(exit.finished_ns / 1_000_000).unwrap_or(0);
    ExitFact { code: exit.code, reason: reason.into(), message, finished_unix_ms }
}

/// A container that could not be started.
pub(super) fn start_error(code: i32, message: impl Into<String>, unix_ms: u64) -> ExitFact {
    ExitFact { code, reason: "StartError".into(), message: message.into(), finished_unix_ms: unix_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_word() {
        let exit = |code, signal| Exit { code, signal, finished_ns: 5_000_000 };
        for (exit, oom, reason) in [
            (exit(0, None), false, "Completed"),
            (exit(0, None), true, "Completed"),
            (exit(3, None), false, "Error"),
            (exit(137, Some(9)), false, "Error"),
            (exit(137, Some(9)), true, "OOMKilled"),
        ] {
            let fact = fact(&exit, oom);
            assert_eq!((fact.reason.as_str(), fact.finished_unix_ms), (reason, 5), "{exit:?} {oom}");
        }
    }
}
