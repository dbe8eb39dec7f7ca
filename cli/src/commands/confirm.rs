use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::UsageError;

/// Asks before something that cannot be undone. Nobody is asked where nobody can answer: then `--yes` must say it.
///
/// # Errors
/// [`UsageError`] where nobody can answer.
pub fn confirm(question: &str, is_agreed: bool) -> anyhow::Result<bool> {
    if is_agreed {
        return Ok(true);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(UsageError(format!("{question} Nobody can be asked here; give --yes to do it")).into());
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
