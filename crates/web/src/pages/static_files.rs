//! Scripts, the stylesheet and the icon, embedded in the binary.

use std::{fmt::Write as _, sync::LazyLock};

use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Assets;

/// Changes with any of the files, so that browsers may keep what an address with it gave for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut names: Vec<_> = Assets::iter().collect();
    names.sort();
    let mut mixed = [0_u8; 8];
    for file in names.iter().filter_map(|name| Assets::get(name)) {
        for (at, byte) in file.metadata.sha256_hash().iter().enumerate() {
            // The rotation keeps two equal files from cancelling each other out.
            mixed[at % 8] = mixed[at % 8].rotate_left(3) ^ byte;
        }
    }
    mixed.iter().fold("v".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
});

/// The address of a file.
pub(super) fn url(name: &str) -> String {
    format!("/static/{}/{name}", *VERSION)
}

/// `GET /static/[version/]name`.
pub(super) async fn serve(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let (version, name) = path.split_once('/').map_or(("", path.as_str()), |(version, name)| (version, name));
    let Some(file) = Assets::get(name) else {
        return (StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let etag = format!("\"{}\"", *VERSION);
    let caching =
        if version == *VERSION { "public, max-age=31536000, immutable" } else { "public, no-cache" };
    let caching = [(header::CACHE_CONTROL, caching), (header::ETAG, &etag)];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response()
}
