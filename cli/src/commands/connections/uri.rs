//! A connection as a URI, as `AIRFLOW_CONN_…` variables and `--conn-uri` hold it
//! (`airflow/sdk/definitions/connection.py: Connection.from_uri`).

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Connection;

/// Reads a URI.
///
/// # Errors
/// What is wrong with it; never the URI itself, which may hold a password.
pub fn parse(text: &str) -> Result<Connection, String> {
    let (scheme, rest) =
        text.split_once("://").ok_or("expected type://login:password@host:port/schema?key=value")?;
    if scheme.is_empty() {
        return Err("the type before :// is missing".to_owned());
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // A second :// gives the host a protocol of its own: http://https://example.com.
    let (protocol, rest) = rest.split_once("://").map_or((None, rest), |(before, rest)| (Some(before), rest));
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(place, path)| (place, Some(path)));
    let (credentials, address) =
        authority.rsplit_once('@').map_or((None, authority), |(before, address)| (Some(before), address));
    let (host, port) = host_and_port(address)?;
    let (login, password) = match credentials {
        None => (None, None),
        Some(text) => match text.split_once(':') {
            Some((login, password)) => (Some(login), Some(password)),
            None => (Some(text), None),
        },
    };
    let decoded = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(decode);
    let host = decoded(Some(host)).map(|host| match protocol {
        Some(protocol) => format!("{protocol}://{host}"),
        None => host,
    });
    Ok(Connection {
        conn_type: normalized(scheme),
        description: None,
        host,
        schema: decoded(path),
        login: decoded(login),
        password: decoded(password),
        port,
        extra: query.filter(|query| !query.is_empty()).map(extra),
    })
}

/// Airflow's names of types have underscores, URIs have hyphens; PostgreSQL has two names.
fn normalized(scheme: &str) -> String {
    match scheme {
        "postgresql" => "postgres".to_owned(),
        other => other.replace('-', "_"),
    }
}

fn host_and_port(address: &str) -> Result<(&str, Option<i32>), String> {
    let behind_brackets = address.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = address[behind_brackets..].rfind(':') else { return Ok((address, None)) };
    let (host, port) = address.split_at(behind_brackets + colon);
    match port[1..].parse::<u16>() {
        Ok(port) => Ok((host, Some(i32::from(port)))),
        Err(_) if port.len() == 1 => Ok((host, None)),
        Err(_) => {
            Err("the port is no number up to 65535; write : and @ of a password as %3A and %40".to_owned())
        }
    }
}

fn extra(query: &str) -> String {
    let mut fields = Map::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        // Airflow puts what is not flat text under this one key, as JSON.
        if key == "__extra__" {
            return value.into_owned();
        }
        fields.insert(key.into_owned(), Value::from(value.into_owned()));
    }
    Value::Object(fields).to_string()
}

/// Undoes percent-encoding. A plus sign stands for itself outside of the query.
fn decode(text: &str) -> String {
    let protected = text.replace('+', "%2B");
    let escaped = protected.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).next().map_or_else(String::new, |(key, _)| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(text: &str) -> Connection {
        parse(text).unwrap()
    }

    #[test]
    fn all_parts_are_read_and_decoded() {
        let read = connection("postgresql://me%40corp:p%2Fw+1@db.example:5432/sales?sslmode=require&x=a%20b");
        assert_eq!(read.conn_type, "postgres");
        assert_eq!(read.login.as_deref(), Some("me@corp"));
        assert_eq!(read.password.as_deref(), Some("p/w+1"));
        assert_eq!((read.host.as_deref(), read.port), (Some("db.example"), Some(5432)));
        assert_eq!(read.schema.as_deref(), Some("sales"));
        assert_eq!(read.extra.as_deref(), Some(r#"{"sslmode":"require","x":"a b"}"#));
    }

    #[test]
    fn what_is_left_out_is_absent() {
        let read = connection("aws://");
        assert_eq!((read.conn_type.as_str(), read.host, read.port, read.extra), ("aws", None, None, None));
        assert_eq!(connection("google-cloud-platform://").conn_type, "google_cloud_platform");
        assert_eq!(connection("x://:secret@").password.as_deref(), Some("secret"));
    }

    #[test]
    fn hosts_may_have_a_protocol_or_brackets() {
        let read = connection("http://https://example.com:8443/path");
        assert_eq!((read.host.as_deref(), read.port), (Some("https://example.com"), Some(8443)));
        assert_eq!(connection("x://[::1]:80").host.as_deref(), Some("[::1]"));
    }

    #[test]
    fn nested_extra_is_one_value() {
        assert_eq!(connection("x://h?__extra__=%7B%22a%22%3A1%7D").extra.as_deref(), Some(r#"{"a":1}"#));
    }

    #[test]
    fn errors_never_show_the_uri() {
        for wrong in ["not a uri with secret", "://secret", "x://login:se@cret:port"] {
            assert!(!parse(wrong).err().unwrap().contains("cret"), "{wrong}");
        }
    }
}
