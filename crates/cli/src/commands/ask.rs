//! Asking the person at the terminal.

use anyhow::{Context as _, Result};
use futures::FutureExt as _;

use super::watch::Watch;

/// Asks `question`, which ends where the answer begins. Anything but a yes is a no.
pub(super) async fn consents(question: &str, watch: &mut Watch<'_>) -> Result<bool> {
    watch.printer.ask(question);
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.map(|line| line?.map_err(anyhow::Error::from));
    let answer = answer.map(|line| line.context("cannot read the answer"));
    let answer = watch.until(answer).await;
    if !answer.as_ref().is_ok_and(|line| line.ends_with('\n')) {
        // The question's line is still open.
        watch.printer.ask("\n");
    }
    Ok(matches!(answer?.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
