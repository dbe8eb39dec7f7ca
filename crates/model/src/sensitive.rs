//! Which names say that what stands under them is secret (`airflow/_shared/secrets_masker/secrets_masker.py`).

/// A name that holds any of these is a secret's (`DEFAULT_SENSITIVE_FIELDS`).
const SENSITIVE: &[&str] = &[
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy",
    "proxy_password",
    "proxies",
    "secret",
    "service_account",
    "service_key",
    "token",
    "keyfile_dict",
    "webhook_url",
];

/// Whether a name says that its value is secret: whether it holds one of Airflow's words or one of `more`, which are in
/// lower case. Case does not matter, and `api-key` counts as `api_key`.
#[must_use]
pub fn is_sensitive_name(name: &str, more: &[String]) -> bool {
    let mut normalized = String::with_capacity(name.len());
    for c in name.trim().to_lowercase().chars() {
        if c.is_alphanumeric() || c == '_' {
            normalized.push(c);
        } else if !normalized.ends_with('_') {
            normalized.push('_');
        }
    }
    SENSITIVE.iter().copied().chain(more.iter().map(String::as_str)).any(|word| normalized.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in ["password", "DB_PASSWORD", "api-key", "x.api.key", " Token ", "my_dsn"] {
            assert!(is_sensitive_name(name, &[]), "{name}");
        }
        assert!(!is_sensitive_name("colour", &[]));
        assert!(is_sensitive_name("favourite_colour", &["colour".to_owned()]));
    }
}
