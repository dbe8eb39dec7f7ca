use gust_model::{BundleName, BundleVersion};
use gust_ports::{ObjectKey, ObjectStore, ObjectStoreError};

use crate::Packed;

/// The key of a version's archive.
pub(crate) fn archive_key(name: &BundleName, version: &BundleVersion) -> Result<ObjectKey, ObjectStoreError> {
    ObjectKey::new(format!(
        "bundles/{}/{}.tar.zst",
        ObjectKey::segment(name.as_str()),
        ObjectKey::segment(version.as_str())
    ))
}

fn pointer_key(name: &BundleName) -> Result<ObjectKey, ObjectStoreError> {
    ObjectKey::new(format!("bundles/{}/current", ObjectKey::segment(name.as_str())))
}

/// Stores a packed bundle, then moves the pointer to it. A version that is there already is not sent again.
///
/// # Errors
/// The object store's; the pointer has then not moved.
pub async fn push(
    store: &dyn ObjectStore,
    name: &BundleName,
    packed: &Packed,
) -> Result<(), ObjectStoreError> {
    // Whatever lies under the key is this content or is refused at unpacking by its hash, so either outcome serves.
    store.create(&archive_key(name, &packed.version)?, packed.archive.clone()).await?;
    store.replace(&pointer_key(name)?, packed.version.as_str().to_owned().into()).await
}

/// The version that a bundle's pointer names; `None` if nothing was pushed yet or the pointer holds no version.
///
/// # Errors
/// The object store's.
pub async fn current_version(
    store: &dyn ObjectStore,
    name: &BundleName,
) -> Result<Option<BundleVersion>, ObjectStoreError> {
    let pointer = store.read(&pointer_key(name)?).await?;
    Ok(pointer.and_then(|content| {
        let text = std::str::from_utf8(&content).ok()?.trim();
        (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| BundleVersion::from(text))
    }))
}
