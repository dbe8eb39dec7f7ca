use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    path::{Component, Path},
};

use gust_model::BundleVersion;
use thiserror::Error;

use crate::pack::version_of;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Unpacked, in bytes.
    pub total_bytes: u64,
    /// Files.
    pub files: usize,
}

impl Default for Limits {
    /// Lambda's ephemeral storage by default is 512 MB; what does not fit there cannot run there.
    fn default() -> Self {
        Self { total_bytes: 500 * 1024 * 1024, files: 50_000 }
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It is not what its name says.
    #[error("its content is {found}: it was damaged or replaced")]
    WrongHash {
        /// The version that the content is.
        found: BundleVersion,
    },
    /// It is no archive, or a cut one.
    #[error("it is not a whole tar.zst archive: {0}")]
    Damaged(io::Error),
    /// It is too large.
    #[error("it unpacks to more than {} MB; a bundle holds code, data belongs elsewhere", .0 / 1024 / 1024)]
    TooLarge(u64),
    /// It has too many files.
    #[error("it holds more than {0} files")]
    TooMany(usize),
    /// A name leads out of the folder.
    #[error("the entry {0:?} leads out of the bundle")]
    Traversal(String),
    /// Only files are allowed.
    #[error("the entry {0:?} is a link or a device; bundles hold files only")]
    NotAFile(String),
    /// A name stands twice.
    #[error("the entry {0:?} stands twice")]
    Duplicate(String),
    /// The folder cannot be written.
    #[error("it cannot be written here: {0}")]
    Write(#[source] io::Error),
}

/// Unpacks an archive into an empty folder.
///
/// # Errors
/// [`Refusal`]; the folder may then hold a part of it, and the caller removes it.
pub fn unpack(archive: &[u8], version: &BundleVersion, into: &Path, limits: Limits) -> Result<(), Refusal> {
    let plain = decompress(archive, limits)?;
    let found = version_of(&plain);
    if found != *version {
        return Err(Refusal::WrongHash { found });
    }
    let mut seen = BTreeSet::new();
    let mut archive = tar::Archive::new(plain.as_slice());
    for entry in archive.entries().map_err(Refusal::Damaged)? {
        let mut entry = entry.map_err(Refusal::Damaged)?;
        let path = entry.path().map_err(Refusal::Damaged)?.into_owned();
        let shown = path.display().to_string();
        if path.components().any(|part| !matches!(part, Component::Normal(_))) || shown.contains('\\') {
            return Err(Refusal::Traversal(shown));
        }
        if !entry.header().entry_type().is_file() {
            return Err(Refusal::NotAFile(shown));
        }
        if !seen.insert(path.clone()) {
            return Err(Refusal::Duplicate(shown));
        }
        if seen.len() > limits.files {
            return Err(Refusal::TooMany(limits.files));
        }
        let target = into.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Refusal::Write)?;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(Refusal::Damaged)?;
        // A name that is a folder of another entry fails here, as creating it new does.
        let mut file = fs::File::create_new(&target).map_err(Refusal::Write)?;
        file.write_all(&content).map_err(Refusal::Write)?;
        // The folder's final name says that it is whole, also after a power loss.
        file.sync_all().map_err(Refusal::Write)?;
        if entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0) {
            make_executable(&target).map_err(Refusal::Write)?;
        }
    }
    Ok(())
}

fn decompress(archive: &[u8], limits: Limits) -> Result<Vec<u8>, Refusal> {
    // A tar adds headers and padding; a bundle at the limit must still pass.
    let limit = limits.total_bytes.saturating_add(limits.files as u64 * 1024);
    let mut plain = Vec::new();
    zstd::stream::Decoder::with_buffer(archive)
        .and_then(|decoder| decoder.take(limit + 1).read_to_end(&mut plain))
        .map_err(Refusal::Damaged)?;
    if plain.len() as u64 > limit { Err(Refusal::TooLarge(limits.total_bytes)) } else { Ok(plain) }
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> io::Result<()> {
    Ok(())
}
