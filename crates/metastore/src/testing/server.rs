//! A throw-away PostgreSQL server.

use std::{
    env,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

use crate::{Options, SqlMetastore};

/// The database from which every test's own is copied.
const TEMPLATE: &str = "gust_template";

/// How long the server may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A running server. It ends, and its folder goes, when the process that it serves is gone, however that went: the
/// test process or, where every test is a process of its own, nextest's run.
#[derive(Debug)]
struct Server {
    port: u16,
}

static SERVER: OnceCell<Option<Server>> = OnceCell::const_new();

/// The URL of a fresh, migrated, empty database on this process's server; `None`, after saying why, where PostgreSQL
/// is not installed.
///
/// # Panics
/// If the server does not start, or under `CI` if PostgreSQL is not installed, which fails the test.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
pub async fn postgres_url() -> Option<String> {
    let server = SERVER.get_or_init(Server::find_or_start).await.as_ref()?;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("the server answers");
    let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
    admin.execute(AssertSqlSafe(create)).await.expect("a database is made");
    Some(server.url(&name))
}

/// Removes a database that [`postgres_url`] made, connections to it or not.
pub(super) async fn drop_database(url: &str) -> Result<(), sqlx::Error> {
    let Some((server, name)) = url.rsplit_once('/') else { return Ok(()) };
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await?;
    Ok(())
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://gust@127.0.0.1:{}/{database}", self.port)
    }

    /// The server of this nextest run, started by whoever comes first, or one of this process's own.
    #[expect(
        clippy::expect_used,
        clippy::print_stderr,
        reason = "a test helper speaks to whoever reads the test"
    )]
    async fn find_or_start() -> Option<Self> {
        let Some(programs) = programs() else {
            let why = "PostgreSQL's initdb and postgres are neither on PATH nor in /usr/lib/postgresql/*/bin";
            assert!(env::var_os("CI").is_none(), "{why}, and CI is set");
            eprintln!("skipped: {why}");
            return None;
        };
        let (run, watched) = match env::var("NEXTEST_RUN_ID") {
            Ok(run) => (run, std::os::unix::process::parent_id()),
            Err(_) => (uuid::Uuid::new_v4().to_string(), std::process::id()),
        };
        let folder = env::temp_dir().join(format!("gust-postgres-{run}"));
        let user = unprivileged_user();
        let lock = tokio::task::spawn_blocking({
            let lock = folder.with_extension("lock");
            move || {
                let file = File::create(&lock)?;
                file.lock()?;
                Ok::<_, std::io::Error>((file, lock))
            }
        });
        let (lock, lock_path) =
            lock.await.expect("locking does not panic").expect("the server's lock is taken");
        // Whoever removes the folder removes the lock too.
        user.own(&lock_path);
        let port_file = folder.join("port");
        let started = std::fs::read_to_string(&port_file).ok().and_then(|port| port.parse().ok());
        let server = if let Some(port) = started {
            Self { port }
        } else {
            let server = Self::start(&programs, &user, &folder, watched).await;
            std::fs::write(&port_file, server.port.to_string()).expect("the port is noted");
            server
        };
        drop(lock);
        Some(server)
    }

    #[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
    async fn start(programs: &Path, user: &User, folder: &Path, watched: u32) -> Self {
        // What a process that was killed on the way left behind.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir(folder).expect("a folder for the server");
        user.own(folder);
        let data = folder.join("data");
        let initdb = user
            .command(&programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=gust", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .stdin(Stdio::null())
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let port = start_server(programs, user, folder, watched).await;
        let server = Self { port };
        let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("the server answers");
        admin
            .execute(AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}")))
            .await
            .expect("a template is made");
        let store =
            SqlMetastore::connect(&server.url(TEMPLATE), Options::default()).await.expect("it answers");
        store.migrate().await.expect("the schema is made");
        store.close().await;
        server
    }
}

/// Runs the server and waits beside it: when the process that it serves is gone, or the server is, it ends the other
/// and removes the folder.
const WATCH: &str = r#"
"$@" >>"$FOLDER/server.log" 2>&1 & server=$!
lives() { [ -d "/proc/$1" ] || ps -p "$1" >/dev/null 2>&1; }
while lives "$WATCHED" && lives "$server"; do sleep 0.5; done
if ! lives "$WATCHED"; then kill -QUIT "$server"; wait "$server"; rm -rf "$FOLDER" "$FOLDER.lock"; fi
"#;

/// Starts the server on a port that was free a moment ago; should another process have taken it, on the next one.
#[expect(clippy::expect_used, clippy::panic, reason = "a test that cannot set itself up has failed")]
async fn start_server(programs: &Path, user: &User, folder: &Path, watched: u32) -> u16 {
    for _ in 0..5 {
        let port = free_port();
        let mut command = user.command(Path::new("sh"));
        command
            .args(["-c", WATCH, "gust-test-postgres"])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .args(["-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "autovacuum=off"])
            .env("FOLDER", folder)
            .env("WATCHED", watched.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut shell = command.spawn().expect("postgres starts");
        if is_answering(&mut shell, port).await {
            return port;
        }
        let _ = shell.kill();
        let _ = shell.wait();
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
    /// Gives a folder to it.
    #[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
    fn own(&self, folder: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may give its folder away");
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

/// PostgreSQL refuses root, who therefore runs the server as the user `postgres`, or as `nobody`.
fn unprivileged_user() -> User {
    if !nix::unistd::geteuid().is_root() {
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
    User(Some(account("postgres").or_else(|| account("nobody")).unwrap_or((65534, 65534))))
}
