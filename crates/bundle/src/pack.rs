use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use gust_model::BundleVersion;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Bundles are packed on every change of a file; a stronger level would cost more time than it saves space.
const LEVEL: i32 = 3;

/// A packed bundle.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The SHA-256 of the archive before compression.
    pub version: BundleVersion,
    /// The compressed archive.
    pub archive: Bytes,
    /// How many files it holds.
    pub file_count: usize,
}

/// Why a folder cannot be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// A file or folder cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name that other machines may not be able to hold.
    #[error("{0:?} has a name that is not UTF-8; rename it")]
    BadName(PathBuf),
    /// A link leads out of the folder, so that what it means would differ from machine to machine.
    #[error("{0} is a link that leads out of the bundle; put a copy of the file there")]
    LinkOutside(PathBuf),
    /// The archive cannot be written (memory).
    #[error("the archive cannot be made: {0}")]
    Archive(#[from] io::Error),
}

/// What is left out of a bundle: caches, version control and the like change without the DAGs changing.
fn is_left_out(name: &str) -> bool {
    matches!(
        name,
        "__pycache__"
            | ".git"
            | ".hg"
            | ".svn"
            | ".venv"
            | ".mypy_cache"
            | ".ruff_cache"
            | ".pytest_cache"
            | ".DS_Store"
    ) || name.ends_with('~')
        || matches!(name.rsplit_once('.'), Some((_, "pyc" | "swp")))
}

/// Packs a folder. The same files give the same archive, whatever their order on disk, their times or their owner.
/// Links within the folder are packed as what they lead to.
///
/// # Errors
/// [`PackError`] naming the file that cannot be packed.
pub fn pack(folder: &Path) -> Result<Packed, PackError> {
    let root =
        folder.canonicalize().map_err(|source| PackError::Unreadable { path: folder.to_owned(), source })?;
    let mut files = Vec::new();
    collect(&root, &root, "", &mut files, 0)?;
    files.sort_unstable();

    let mut archive = tar::Builder::new(Vec::new());
    archive.mode(tar::HeaderMode::Deterministic);
    for (name, path) in &files {
        let unreadable = |source| PackError::Unreadable { path: path.clone(), source };
        let mut content = Vec::new();
        fs::File::open(path).and_then(|mut file| file.read_to_end(&mut content)).map_err(unreadable)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if is_executable(path).map_err(unreadable)? { 0o755 } else { 0o644 });
        header.set_mtime(0);
        archive.append_data(&mut header, name, content.as_slice())?;
    }
    let plain = archive.into_inner()?;
    Ok(Packed {
        version: version_of(&plain),
        archive: zstd::stream::encode_all(plain.as_slice(), LEVEL)?.into(),
        file_count: files.len(),
    })
}

/// The version that an archive, before compression, is.
pub(crate) fn version_of(plain: &[u8]) -> BundleVersion {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(plain) {
        let _ = write!(text, "{byte:02x}");
    }
    BundleVersion::from(text)
}

#[cfg(unix)]
fn is_executable(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Links to folders may lead round in a circle; no real bundle is this deep.
const MAX_DEPTH: usize = 64;

fn collect(
    root: &Path,
    folder: &Path,
    prefix: &str,
    files: &mut Vec<(String, PathBuf)>,
    depth: usize,
) -> Result<(), PackError> {
    let unreadable = |path: &Path, source| PackError::Unreadable { path: path.to_owned(), source };
    if depth > MAX_DEPTH {
        return Err(unreadable(
            folder,
            io::Error::other("it lies more than 64 folders deep; is a link a circle?"),
        ));
    }
    for entry in fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| PackError::BadName(path.clone()))?;
        if is_left_out(name) {
            continue;
        }
        let target = match path.canonicalize() {
            Ok(target) => target,
            // A file that an editor removed since the folder was listed is simply not in this version.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(unreadable(&path, source)),
        };
        if !target.starts_with(root) {
            return Err(PackError::LinkOutside(path));
        }
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if target.is_dir() {
            collect(root, &path, &name, files, depth + 1)?;
        } else if target.is_file() {
            files.push((name, path));
        }
    }
    Ok(())
}
