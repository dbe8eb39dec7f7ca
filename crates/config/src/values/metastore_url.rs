//! The metastore's address.

use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

use super::{Context, Given, SettingValue};

/// Where the metastore is: `postgres://user:password@host:port/name?options`, `sqlite:///absolute/path` or
/// `sqlite::memory:`. A password in it is not shown by anything but [`MetastoreUrl::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct MetastoreUrl(String);

impl MetastoreUrl {
    /// The address in clear, in the canonical form above.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is `SQLite`; it is `PostgreSQL` otherwise.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    /// The address with `***` for each password.
    #[must_use]
    pub fn masked(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return self.0.clone();
        };
        if url.password().is_none() && !url.query_pairs().any(|(name, _)| is_password(&name)) {
            return self.0.clone();
        }
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return "***".to_owned();
        }
        if url.query().is_some() {
            let masked: Vec<(String, String)> = url
                .query_pairs()
                .map(|(name, value)| {
                    let value = if is_password(&name) { "***".to_owned() } else { value.into_owned() };
                    (name.into_owned(), value)
                })
                .collect();
            url.query_pairs_mut().clear().extend_pairs(masked);
        }
        url.to_string()
    }
}

fn is_password(parameter: &str) -> bool {
    parameter.to_lowercase().contains("password")
}

impl fmt::Debug for MetastoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.masked())
    }
}

impl Serialize for MetastoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

impl SettingValue for MetastoreUrl {
    const KIND: &'static str = "postgres://user:password@host/name or sqlite:///absolute/path";

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        let text = String::parse(given, context)?;
        let (scheme, rest) = text.split_once(':').ok_or_else(|| format!("expected {}", Self::KIND))?;
        // SQLAlchemy writes the driver behind a plus sign; Gust has one driver for each database.
        let database = scheme.split('+').next().unwrap_or(scheme);
        match database {
            "postgres" | "postgresql" => postgres(rest),
            "sqlite" => sqlite(rest, context),
            "mysql" | "mariadb" => Err(format!("MySQL cannot be Gust's metastore; expected {}", Self::KIND)),
            other => Err(format!("{other} cannot be Gust's metastore; expected {}", Self::KIND)),
        }
        .map(Self)
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn masked(&self) -> String {
        MetastoreUrl::masked(self)
    }
}

fn postgres(rest: &str) -> Result<String, String> {
    let text = format!("postgres:{rest}");
    if !rest.starts_with("//") {
        return Err("expected // behind the scheme, as in postgres://user:password@host/name".to_owned());
    }
    Url::parse(&text).map_err(|error| {
        format!("{error}; expected postgres://user:password@host:port/name, with %40 for @ and %2F for / in a password")
    })?;
    Ok(text)
}

fn sqlite(rest: &str, context: &Context<'_>) -> Result<String, String> {
    if rest == ":memory:" || rest == "//:memory:" {
        return Ok("sqlite::memory:".to_owned());
    }
    let place = rest.strip_prefix("//").unwrap_or(rest);
    let (path, options) =
        place.split_once('?').map_or((place, None), |(path, options)| (path, Some(options)));
    let path = context.path(path).map_err(|reason| format!("{reason} behind sqlite://"))?;
    // SQLAlchemy's four slashes are three here.
    let path = path.display().to_string();
    let path = if path.starts_with("//") { format!("/{}", path.trim_start_matches('/')) } else { path };
    let options = options.map_or_else(String::new, |options| format!("?{options}"));
    Ok(format!("sqlite://{path}{options}"))
}

/// `SQLAlchemy`'s form of an address, where it differs from Gust's: three slashes begin a relative path there, which
/// Airflow refuses as well (`settings.py: configure_orm`), and nothing at all means memory.
pub(crate) fn from_sql_alchemy(text: &str) -> Result<String, String> {
    let Some((scheme, rest)) = text.trim().split_once(':') else {
        return Ok(text.to_owned());
    };
    if scheme.split('+').next() != Some("sqlite") {
        return Ok(text.to_owned());
    }
    match rest {
        "//" | "///:memory:" => Ok("sqlite::memory:".to_owned()),
        _ if rest.starts_with("////") => Ok(format!("sqlite://{}", &rest[3..])),
        _ => Err("expected an absolute path, which SQLAlchemy writes with four slashes: sqlite:////path"
            .to_owned()),
    }
}
