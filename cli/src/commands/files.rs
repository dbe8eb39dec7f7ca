//! Reading and writing the files of `import` and `export`.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Map, Value};

/// Reads a file, or the standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("reading the standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Reads a file that holds one JSON object.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn read_object(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = read(path)?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => anyhow::bail!("{} holds no JSON object; expected {{\"name\": …}}", path.display()),
    }
}

/// Writes a file that may hold secrets, readable by its owner alone, or the standard output for `-`.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// JSON for a file.
///
/// # Errors
/// As [`write()`].
pub fn write_object(path: &Path, fields: Map<String, Value>) -> anyhow::Result<()> {
    write(path, &format!("{:#}\n", Value::Object(fields)))
}
