//! The Python package inside this binary, and how it gets onto the disk.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;

/// Path below the written folder, and text.
const FILES: &[(&str, &str)] = &[
    ("start.py", include_str!("../../../python/start.py")),
    ("gust_child/__init__.py", include_str!("../../../python/gust_child/__init__.py")),
    ("gust_child/dagfile.py", include_str!("../../../python/gust_child/dagfile.py")),
    ("gust_child/osproc.py", include_str!("../../../python/gust_child/osproc.py")),
    ("gust_child/parser.py", include_str!("../../../python/gust_child/parser.py")),
    ("gust_child/questions.py", include_str!("../../../python/gust_child/questions.py")),
    ("gust_child/triggerer.py", include_str!("../../../python/gust_child/triggerer.py")),
    ("gust_child/warm.py", include_str!("../../../python/gust_child/warm.py")),
    ("gust_child/wire.py", include_str!("../../../python/gust_child/wire.py")),
    ("gust_child/zygote.py", include_str!("../../../python/gust_child/zygote.py")),
];

/// The hashed lock of the Python environment, for `pip install --require-hashes`.
pub const REQUIREMENTS_LOCK: &str = include_str!("../../../python/requirements.lock");

/// First twelve hex digits of the parts' hash.
pub(crate) fn short_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes the package below `home` where it is not there yet and returns the folder. The folder's name is the
/// content's hash, so that several versions of the binary may share a home.
pub(crate) fn write_package(home: &Path) -> Result<PathBuf, Error> {
    let name = short_hash(FILES.iter().flat_map(|(path, text)| [*path, *text]));
    let parent = home.join("python");
    let folder = parent.join(&name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let context = |path: &Path| Error::io(format!("writing the Python package to {}", path.display()));
    let aside = parent.join(format!(".{name}-{}", std::process::id()));
    for (path, text) in FILES {
        let file = aside.join(path);
        let above = file.parent().unwrap_or(&aside);
        fs::create_dir_all(above).map_err(context(above))?;
        fs::write(&file, text).map_err(context(&file))?;
    }
    match fs::rename(&aside, &folder) {
        Ok(()) => Ok(folder),
        // Somebody else was first with the same content.
        Err(_) if folder.is_dir() => {
            fs::remove_dir_all(&aside).map_err(context(&aside))?;
            Ok(folder)
        }
        Err(problem) => Err(context(&folder)(problem)),
    }
}
