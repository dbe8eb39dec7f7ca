//! A throw-away PostgreSQL server.

use std::{
    env,
    ffi::OsStr,
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{Options, SqlMetastore};

/// The database from which every test's own is copied.
const TEMPLATE: &str = "gust_template";

/// How long the server may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A running server. Its processes end, and its folder goes, with the test process.
#[derive(Debug)]
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    server: Child,
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The watcher below ends the server in any case; here it is only sooner.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

static SERVER: OnceCell<Option<PostgresServer>> = OnceCell::const_new();

/// The URL of a fresh, migrated, empty database on this process's server; `None`, after saying why, where PostgreSQL
/// is not installed.
///
/// # Panics
/// If the server does not start, or under `CI` if PostgreSQL is not installed, which fails the test.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
pub async fn postgres_url() -> Option<String> {
    let server = SERVER.get_or_init(PostgresServer::start).await.as_ref()?;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("the server answers");
    let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
    admin.execute(AssertSqlSafe(create)).await.expect("a database is made");
    Some(server.url(&name))
}

impl PostgresServer {
    /// The URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://gust@127.0.0.1:{}/{database}", self.port)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[expect(clippy::expect_used, clippy::print_stderr, reason = "a test helper speaks to whoever reads the test")]
    async fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let why = "PostgreSQL's initdb and postgres are neither on PATH nor in /usr/lib/postgresql/*/bin";
            assert!(env::var_os("CI").is_none(), "{why}, and CI is set");
            eprintln!("skipped: {why}");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("gust-postgres-").tempdir().expect("a folder for the server");
        let user = unprivileged_user(folder.path());
        let data = folder.path().join("data");
        let initdb = user
            .command(&programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=gust", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .stdin(Stdio::null())
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let (port, server) = start_server(&programs, &user, folder.path(), &data).await;
        let this = Self { folder, port, server };
        let mut admin = PgConnection::connect(&this.url("postgres")).await.expect("the server answers");
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"))).await.expect("a template is made");
        let store = SqlMetastore::connect(&this.url(TEMPLATE), Options::default()).await.expect("it answers");
        store.migrate().await.expect("the schema is made");
        store.close().await;
        Some(this)
    }
}

/// Starts the server on a port that was free a moment ago; should another process have taken it, on the next one.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
async fn start_server(programs: &Path, user: &User, folder: &Path, data: &Path) -> (u16, Child) {
    for _ in 0..5 {
        let port = free_port();
        // The shell waits for the end of its input, which comes when this process is gone, however it went; statics
        // are not dropped, and a server must not outlive its tests.
        let script = "\"$@\" >>\"$LOG\" 2>&1 & server=$!\n\
                      (while kill -0 $server 2>/dev/null; do sleep 1; done; kill -9 0) &\n\
                      read -r _; kill -QUIT $server; wait $server; rm -rf \"$FOLDER\"; kill -9 0";
        let mut command = user.command(OsStr::new("sh").as_ref());
        command
            .args(["-c", script, "gust-test-postgres"])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "autovacuum=off"])
            .env("FOLDER", folder)
            .env("LOG", folder.join("server.log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut server = command.spawn().expect("postgres starts");
        if is_answering(&mut server, port).await {
            return (port, server);
        }
        let _ = server.kill();
        let _ = server.wait();
    }
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    panic!("PostgreSQL did not start: {log}")
}

async fn is_answering(server: &mut Child, port: u16) -> bool {
    let url = format!("postgres://gust@127.0.0.1:{port}/postgres");
    let started = std::time::Instant::now();
    while started.elapsed() < START_TIMEOUT && matches!(server.try_wait(), Ok(None)) {
        if PgConnection::connect(&url).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The folder of the newest PostgreSQL's programs.
fn programs() -> Option<PathBuf> {
    let has_both = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let on_path = env::var_os("PATH").and_then(|path| env::split_paths(&path).find(has_both));
    on_path.or_else(|| {
        let installed = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut folders: Vec<PathBuf> = installed.flatten().map(|entry| entry.path().join("bin")).collect();
        folders.retain(has_both);
        folders.sort();
        folders.pop()
    })
}

/// As whom the server runs: PostgreSQL refuses root.
struct User(Option<(u32, u32)>);

impl User {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

/// Root gives the folder to the user `postgres`, or to `nobody`, and runs the server as that one.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
fn unprivileged_user(folder: &Path) -> User {
    if std::fs::metadata(folder).expect("the folder exists").uid() != 0 {
        return User(None);
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = |name: &str| {
        accounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [account, _, user, group, ..] = fields[..] else { return None };
            (account == name).then(|| Some((user.parse().ok()?, group.parse().ok()?)))?
        })
    };
    let (user, group) = account("postgres").or_else(|| account("nobody")).unwrap_or((65534, 65534));
    std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may give its folder away");
    User(Some((user, group)))
}
