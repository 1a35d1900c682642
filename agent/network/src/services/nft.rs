//! The program `nft`: one script is one transaction of the kernel.

use crate::NetworkError;
use std::{io, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How long one transaction may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Characters of its complaint that are passed on.
const COMPLAINT_CHARS_MAX: usize = 500;

/// Runs a script in the agent's network namespace.
pub(super) async fn run(script: &str) -> Result<(), NetworkError> {
    let failed = |source: io::Error| NetworkError::Rules { why: source.to_string() };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetworkError::NoNft,
            _ => failed(source),
        })?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = timeout(TIMEOUT, talk).await;
    let output = output
        .map_err(|_| NetworkError::Rules { why: format!("nft did not end within {} s", TIMEOUT.as_secs()) })?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let why: String = String::from_utf8_lossy(&output.stderr).chars().take(COMPLAINT_CHARS_MAX).collect();
    Err(NetworkError::Rules { why: why.trim().to_owned() })
}
