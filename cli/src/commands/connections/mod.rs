//! `gust connections …`

mod uri;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gust_config::Config;
use gust_model::{ConnectionId, record::ConnectionRecord};
use gust_ports::{
    MetastoreError,
    metastore::{TxMode, transact},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{UsageError, all_pages, files, find, open};
use crate::{house::House, output::Out};

/// `gust connections …`
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// List the Connections; passwords and extras are masked
    List {
        /// Only this one
        #[arg(long, value_name = "ID")]
        conn_id: Option<String>,
        /// Also passwords and extras, in clear
        #[arg(long)]
        show_values: bool,
    },
    /// Show one Connection
    Get {
        /// The Connection
        conn_id: String,
        /// Also password and extra, in clear
        #[arg(long)]
        show_values: bool,
    },
    /// Make or replace a Connection
    #[command(
        visible_alias = "add",
        after_help = "Examples:
  gust connections set warehouse --conn-uri 'postgres://me:secret@db.example.com/sales'
  gust connections set mail --conn-type smtp --conn-host mail.example.com --conn-port 587
  gust connections set lake --conn-json '{\"conn_type\": \"aws\", \"extra\": {\"region_name\": \"eu-central-1\"}}'"
    )]
    Set(Box<SetArgs>),
    /// Remove a Connection
    Delete {
        /// The Connection
        conn_id: String,
    },
    /// Set Connections as a file says
    #[command(
        after_help = "A JSON file: {\"warehouse\": \"postgres://…\", \"mail\": {\"conn_type\": \"smtp\", \"host\": \"…\"}}
An .env file: a line ID=URI, or ID={…} with JSON, for each."
    )]
    Import {
        /// The file, .json or .env; - for JSON from the standard input
        file: PathBuf,
        /// Replace Connections that exist; they are left as they are otherwise
        #[arg(long)]
        overwrite: bool,
    },
    /// Write all Connections to a JSON file, in clear
    Export {
        /// The file; - for the standard output
        file: PathBuf,
    },
}

/// `gust connections set`.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "the options' names are Airflow's")]
pub struct SetArgs {
    /// The Connection
    conn_id: String,
    /// All of it as a URI
    #[arg(long, value_name = "URI", conflicts_with_all = ["conn_json", "conn_type"])]
    conn_uri: Option<String>,
    /// All of it as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "conn_type")]
    conn_json: Option<String>,
    /// Its type, as postgres
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["conn_uri", "conn_json"])]
    conn_type: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    conn_description: Option<String>,
    /// The host
    #[arg(long, value_name = "HOST")]
    conn_host: Option<String>,
    /// The login
    #[arg(long, value_name = "LOGIN")]
    conn_login: Option<String>,
    /// The password
    #[arg(long, value_name = "PASSWORD")]
    conn_password: Option<String>,
    /// The schema or database
    #[arg(long, value_name = "SCHEMA")]
    conn_schema: Option<String>,
    /// The port
    #[arg(long, value_name = "N")]
    conn_port: Option<u16>,
    /// Further settings, a JSON object
    #[arg(long, value_name = "JSON")]
    conn_extra: Option<String>,
}

/// A Connection in clear.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its type.
    conn_type: String,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
    /// The login.
    #[serde(default)]
    login: Option<String>,
    /// The password.
    #[serde(default)]
    password: Option<String>,
    /// The host.
    #[serde(default)]
    host: Option<String>,
    /// The port.
    #[serde(default)]
    port: Option<i32>,
    /// The schema or database.
    #[serde(default)]
    schema: Option<String>,
    /// Further settings, JSON text.
    #[serde(default)]
    extra: Option<String>,
}

const COLUMNS: [&str; 9] =
    ["conn_id", "conn_type", "description", "host", "schema", "login", "password", "port", "extra"];

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: ConnectionsCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    let house = open(config).await?;
    match command {
        ConnectionsCommand::List { conn_id, show_values } => {
            let mut all = records(&house).await?;
            if let Some(wanted) = &conn_id {
                all.retain(|record| record.conn_id == *wanted.as_str());
            }
            let rows =
                all.iter().map(|record| shown(&house, record, show_values)).collect::<Result<Vec<_>, _>>()?;
            out.rows(&COLUMNS, &rows, "no Connections")?;
        }
        ConnectionsCommand::Get { conn_id, show_values } => {
            let id = ConnectionId::from(conn_id.as_str());
            let Some(record) = house.store.begin(TxMode::Read).await?.connection(&id).await? else {
                return Err(not_found(&house, &conn_id).await?);
            };
            out.details(&COLUMNS, &shown(&house, &record, show_values)?)?;
        }
        ConnectionsCommand::Set(args) => {
            let conn_id = args.conn_id.clone();
            put(&house, vec![(conn_id.clone(), given(*args)?)], true).await?;
            out.say(&format!("set the Connection {conn_id}"))?;
        }
        ConnectionsCommand::Delete { conn_id } => {
            let id = ConnectionId::from(conn_id.as_str());
            let was_there = transact(&*house.store, TxMode::Write, move |tx| {
                let id = id.clone();
                Box::pin(async move { tx.delete_connection(&id).await })
            })
            .await?;
            if !was_there {
                return Err(not_found(&house, &conn_id).await?);
            }
            out.say(&format!("removed the Connection {conn_id}"))?;
        }
        ConnectionsCommand::Import { file, overwrite } => {
            let connections = imported(&file)?;
            let all = connections.len();
            let count = put(&house, connections, overwrite).await?;
            let skipped = all - count;
            let hint = if skipped > 0 {
                format!(", {skipped} exist and were left (--overwrite)")
            } else {
                String::new()
            };
            out.say(&format!("{count} Connections were imported{hint}"))?;
        }
        ConnectionsCommand::Export { file } => {
            let mut all = Map::new();
            for record in records(&house).await? {
                all.insert(record.conn_id.to_string(), serde_json::to_value(opened(&house, &record)?)?);
            }
            files::write_object(&file, all)?;
        }
    }
    Ok(())
}

async fn records(house: &House) -> anyhow::Result<Vec<ConnectionRecord>> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    Ok(all_pages!(u32::MAX, |limit, offset| { tx.connections("", limit, offset).await? }))
}

async fn not_found(house: &House, conn_id: &str) -> anyhow::Result<anyhow::Error> {
    let all = records(house).await?;
    Ok(find::missing("Connection", conn_id, all.iter().map(|record| record.conn_id.as_str())))
}

fn opened(house: &House, record: &ConnectionRecord) -> anyhow::Result<Connection> {
    let open = |sealed: Option<&String>, what: &str| {
        sealed
            .map(|sealed| house.cipher.open(&format!("connection/{}/{what}", record.conn_id), sealed))
            .transpose()
    };
    Ok(Connection {
        conn_type: record.conn_type.clone(),
        description: record.description.clone(),
        login: record.login.clone(),
        password: open(record.sealed_password.as_ref(), "password")?,
        host: record.host.clone(),
        port: record.port,
        schema: record.schema.clone(),
        extra: open(record.sealed_extra.as_ref(), "extra")?,
    })
}

fn shown(house: &House, record: &ConnectionRecord, in_clear: bool) -> anyhow::Result<Value> {
    let masked = |sealed: &Option<String>| sealed.as_ref().map(|_| "***".to_owned());
    let connection = if in_clear {
        opened(house, record)?
    } else {
        Connection {
            conn_type: record.conn_type.clone(),
            description: record.description.clone(),
            login: record.login.clone(),
            password: masked(&record.sealed_password),
            host: record.host.clone(),
            port: record.port,
            schema: record.schema.clone(),
            extra: masked(&record.sealed_extra),
        }
    };
    let mut value = serde_json::to_value(connection)?;
    value["conn_id"] = json!(record.conn_id);
    Ok(value)
}

/// What `gust connections set` is given.
fn given(args: SetArgs) -> anyhow::Result<Connection> {
    let mut connection = if let Some(text) = &args.conn_uri {
        uri::parse(text).map_err(|why| UsageError(format!("--conn-uri: {why}")))?
    } else if let Some(text) = &args.conn_json {
        let value =
            serde_json::from_str(text).map_err(|_| UsageError("--conn-json: it is not JSON".to_owned()))?;
        of_json(value).map_err(|why| UsageError(format!("--conn-json: {why}")))?
    } else {
        Connection { conn_type: args.conn_type.clone().unwrap_or_default(), ..Connection::default() }
    };
    let put = |place: &mut Option<String>, given: Option<String>| {
        if given.is_some() {
            *place = given;
        }
    };
    put(&mut connection.description, args.conn_description);
    put(&mut connection.host, args.conn_host);
    put(&mut connection.login, args.conn_login);
    put(&mut connection.password, args.conn_password);
    put(&mut connection.schema, args.conn_schema);
    put(&mut connection.extra, args.conn_extra);
    connection.port = args.conn_port.map(i32::from).or(connection.port);
    if let Some(extra) = &connection.extra
        && !serde_json::from_str::<Value>(extra).is_ok_and(|extra| extra.is_object())
    {
        return Err(UsageError("--conn-extra: expected a JSON object".to_owned()).into());
    }
    Ok(connection)
}

/// A Connection from JSON: a URI, or an object whose extra may be an object as well as text.
fn of_json(value: Value) -> Result<Connection, String> {
    let mut fields = match value {
        Value::String(text) => return uri::parse(&text),
        Value::Object(fields) => fields,
        _ => return Err("expected a URI or an object".to_owned()),
    };
    for extra in ["extra", "extra_dejson"] {
        if let Some(Value::Object(inner)) = fields.get(extra) {
            let text = Value::from(Value::Object(inner.clone()).to_string());
            fields.remove(extra);
            fields.insert("extra".to_owned(), text);
        }
    }
    if let Some(Value::String(port)) = fields.get("port") {
        let port = port.parse::<u16>().map_err(|_| "the port is no number up to 65535".to_owned())?;
        fields.insert("port".to_owned(), port.into());
    }
    // The parser's own words may quote a value; the names of fields are all that it may say.
    let known = ["conn_type", "description", "login", "password", "host", "port", "schema", "extra"];
    if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(format!("there is no field {unknown:?}; there are {}", known.join(", ")));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|_| "it needs a conn_type, texts, and a number as port".to_owned())
}

fn imported(file: &std::path::Path) -> anyhow::Result<Vec<(String, Connection)>> {
    let is_env = file.extension().is_some_and(|extension| extension == "env");
    let pairs: Vec<(String, Value)> = if is_env {
        let text = files::read(file)?;
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| {
                let (id, value) = line
                    .split_once('=')
                    .with_context(|| format!("{}:{at}: expected ID=URI or ID={{…}}", file.display()))?;
                let value = value.trim();
                let json = serde_json::from_str::<Value>(value).ok().filter(Value::is_object);
                Ok((id.trim().to_owned(), json.unwrap_or_else(|| Value::from(value))))
            })
            .collect::<anyhow::Result<_>>()?
    } else {
        files::read_object(file)?.into_iter().collect()
    };
    pairs
        .into_iter()
        .map(|(id, value)| match of_json(value) {
            Ok(connection) => Ok((id, connection)),
            Err(why) => anyhow::bail!("the Connection {id}: {why}; nothing was imported"),
        })
        .collect()
}

/// Sets Connections in one transaction, all or none, and says how many were set.
async fn put(
    house: &House,
    connections: Vec<(String, Connection)>,
    overwrite: bool,
) -> anyhow::Result<usize> {
    let mut sealed = Vec::with_capacity(connections.len());
    for (id, connection) in connections {
        let is_good = |c: char| c.is_alphanumeric() || "_-.#!:/()[]{}@ ".contains(c);
        anyhow::ensure!(
            !id.is_empty() && id.chars().count() <= 250 && id.chars().all(is_good),
            "{id:?} cannot be a Connection's id: 1 to 250 letters, digits and _-.#!:/()[]{{}}@"
        );
        anyhow::ensure!(!connection.conn_type.is_empty(), "the Connection {id} needs a type");
        let seal = |plain: Option<String>, what: &str| {
            plain.map(|plain| house.cipher.seal(&format!("connection/{id}/{what}"), &plain)).transpose()
        };
        sealed.push(ConnectionRecord {
            conn_id: ConnectionId::from(id.as_str()),
            conn_type: connection.conn_type,
            description: connection.description,
            host: connection.host,
            schema: connection.schema,
            login: connection.login,
            sealed_password: seal(connection.password, "password")?,
            port: connection.port,
            sealed_extra: seal(connection.extra, "extra")?,
        });
    }
    let count = transact(&*house.store, TxMode::Write, move |tx| {
        let sealed = sealed.clone();
        Box::pin(async move {
            let mut count = 0;
            for connection in sealed {
                if !overwrite && tx.connection(&connection.conn_id).await?.is_some() {
                    continue;
                }
                tx.put_connection(&connection).await?;
                count += 1;
            }
            Ok::<_, MetastoreError>(count)
        })
    })
    .await?;
    Ok(count)
}
