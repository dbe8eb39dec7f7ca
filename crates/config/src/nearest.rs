//! Finds the name that somebody probably meant.

use crate::settings::{Setting, sections, settings};

/// The setting that `section.key` most probably stands for: one that follows an Airflow setting of this very name, one
/// with this key in another section, or the one with the fewest typing errors between.
pub(crate) fn setting(section: &str, key: &str) -> Option<&'static Setting> {
    let (section, key) = (section.to_lowercase(), key.to_lowercase());
    let written = format!("{section}.{key}");
    settings()
        .find(|setting| setting.name == written || setting.airflow.contains(&written.as_str()))
        .or_else(|| settings().find(|setting| setting.key == key))
        .or_else(|| closest(&written, settings().map(|setting| (setting.name, setting))))
        .or_else(|| closest(&key, settings().map(|setting| (setting.key, setting))))
}

/// The section that `name` most probably stands for.
pub(crate) fn section(name: &str) -> Option<&'static str> {
    closest(&name.to_lowercase(), sections().map(|section| (section, section)))
}

/// A third of a name may be mistyped; beyond that a suggestion only misleads.
fn closest<T>(written: &str, names: impl Iterator<Item = (&'static str, T)>) -> Option<T> {
    names
        .map(|(name, what)| (strsim::damerau_levenshtein(written, name), name, what))
        .filter(|(distance, name, _)| *distance * 3 <= name.len())
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, _, what)| what)
}
