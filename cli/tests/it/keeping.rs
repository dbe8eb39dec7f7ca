//! Pools, Variables, Connections, bundles and the metastore itself.

use std::fs;

use insta::assert_snapshot;

use crate::house::Home;

#[test]
fn a_metastore_is_made_once_and_checked() {
    let home = Home::empty();
    let early = home.gust(&["dags", "list"]);
    assert_eq!((early.code, early.err.contains("gust db migrate")), (1, true), "{early:?}");
    assert_eq!(home.gust(&["db", "check"]).code, 1);
    home.gust(&["db", "migrate"]).ok();
    assert!(home.gust(&["db", "migrate"]).ok().contains("was up to date"));
    assert_eq!(home.gust(&["db", "check", "-o", "json"]).json()["is_current"], true);
}

#[tokio::test]
async fn an_airflows_own_database_is_refused() {
    use sqlx::Connection as _;
    let home = Home::empty();
    let path = home.path().join("airflow.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("CREATE TABLE alembic_version (version_num TEXT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let url = format!("sqlite://{}", path.display());
    for command in ["migrate", "check"] {
        let ran = home.gust(&["db", command, "--metastore", &url]);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("is an Airflow's own"), "{}", ran.err);
    }
}

#[test]
fn pools_are_made_changed_and_removed() {
    let home = Home::migrated();
    home.gust(&["pools", "set", "db", "4", "the warehouse"]).ok();
    home.gust(&["pools", "set", "db", "-1", "--include-deferred"]).ok();
    assert_snapshot!(home.gust(&["pools", "list"]).ok());
    assert_eq!(home.gust(&["pools", "get", "db", "-o", "json"]).json()[0]["slots"], -1);
    let file = home.path().join("pools.json");
    home.gust(&["pools", "export", file.to_str().unwrap()]).ok();
    home.gust(&["pools", "delete", "db"]).ok();
    let gone = home.gust(&["pools", "get", "db"]);
    assert_eq!(gone.code, 1);
    home.gust(&["pools", "import", file.to_str().unwrap()]).ok();
    assert!(home.gust(&["pools", "list"]).ok().contains("db"));
    assert_eq!(home.gust(&["pools", "delete", "default_pool"]).code, 1);
    assert_eq!(home.gust(&["pools", "set", "db", "-2"]).code, 2);
}

#[test]
fn variables_are_sealed_at_rest_and_read_back() {
    let home = Home::migrated();
    home.gust(&["variables", "set", "token", "s3cr3t-value", "--description", "of the API"]).ok();
    assert_eq!(home.gust(&["variables", "get", "token"]).ok(), "s3cr3t-value\n");
    assert!(!home.gust(&["variables", "list"]).ok().contains("s3cr3t"));
    for entry in fs::read_dir(home.path()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
    {
        let content = fs::read(entry.path()).unwrap();
        assert!(!content.windows(6).any(|bytes| bytes == b"s3cr3t"), "{:?}", entry.path());
    }
    let missing = home.gust(&["variables", "get", "tokn"]);
    assert_eq!((missing.code, missing.err.as_str()), (1, "error: no Variable tokn; did you mean token?\n"));
    assert_eq!(home.gust(&["variables", "get", "tokn", "--default", "x"]).ok(), "x\n");
    assert_eq!(home.gust(&["variables", "set", "limits", "{", "--json"]).code, 1);
}

#[test]
fn variables_travel_through_a_file() {
    let home = Home::migrated();
    let file = home.path().join("in.json");
    fs::write(&file, r#"{"a": "x", "b": {"rows": 1}, "c": {"value": "y", "description": "why"}}"#).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(home.gust(&["variables", "import", path]).ok(), "3 Variables were imported\n");
    assert_eq!(home.gust(&["variables", "import", path, "-a", "fail"]).code, 1);
    assert_eq!(home.gust(&["variables", "import", path, "-a", "skip"]).ok(), "0 Variables were imported\n");
    let exported = home.gust(&["variables", "export", "-"]).json();
    let original: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(exported, original);
}

#[test]
fn connections_are_masked_unless_asked_for() {
    let home = Home::migrated();
    home.gust(&[
        "connections",
        "add",
        "warehouse",
        "--conn-uri",
        "postgresql://me:s3cr3t@db:5432/sales?ssl=1",
    ])
    .ok();
    let listed = home.gust(&["connections", "list"]).ok();
    assert!(!listed.contains("s3cr3t") && listed.contains("***"), "{listed}");
    assert_snapshot!(home.gust(&["connections", "get", "warehouse", "--show-values"]).ok());
    let exported = home.gust(&["connections", "export", "-"]).ok();
    home.gust(&["connections", "delete", "warehouse"]).ok();
    let file = home.path().join("connections.json");
    fs::write(&file, exported).unwrap();
    home.gust(&["connections", "import", file.to_str().unwrap()]).ok();
    let back = home.gust(&["connections", "get", "warehouse", "--show-values", "-o", "json"]).json();
    assert_eq!((&back["password"], &back["port"]), (&"s3cr3t".into(), &5432.into()));
    let wrong = home.gust(&["connections", "set", "x", "--conn-uri", "x://me:s3@cr3t:port"]);
    assert_eq!((wrong.code, wrong.err.contains("cr3t")), (2, false), "{wrong:?}");
}

#[test]
fn an_env_file_of_connections_is_imported() {
    let home = Home::migrated();
    let file = home.path().join("all.env");
    fs::write(&file, "# ours\na=http://h:80\nb={\"conn_type\": \"aws\", \"extra\": {\"region\": \"eu\"}}\n")
        .unwrap();
    home.gust(&["connections", "import", file.to_str().unwrap()]).ok();
    let b = home.gust(&["connections", "get", "b", "--show-values", "-o", "json"]).json();
    assert_eq!(b["extra"], "{\"region\":\"eu\"}");
}

#[test]
fn a_folder_is_pushed_as_a_version_and_the_same_folder_is_the_same_version() {
    let home = Home::migrated();
    let dags = home.path().join("somewhere");
    fs::create_dir(&dags).unwrap();
    fs::write(dags.join("a.py"), "print(1)").unwrap();
    let push = ["bundle", "push", dags.to_str().unwrap(), "-o", "json"];
    let first = home.gust(&push).json();
    assert_eq!((&first["name"], &first["is_new"]), (&"dags-folder".into(), &true.into()));
    let again = home.gust(&push).json();
    assert_eq!((&again["version"], &again["is_new"]), (&first["version"], &false.into()));
    fs::write(dags.join("a.py"), "print(2)").unwrap();
    assert_ne!(home.gust(&push).json()["version"], first["version"]);
    let shown = home.gust(&["bundle", "show", "dags-folder", "-o", "json"]).json();
    assert_eq!(shown["versions"].as_array().unwrap().len(), 2);
    assert!(home.gust(&["bundle", "list"]).ok().contains("dags-folder"));
    let stray = home.gust(&["bundle", "push", dags.to_str().unwrap(), "--name", "other"]);
    assert!(stray.err.contains("no bundle other is configured"), "{stray:?}");
    assert_eq!(home.gust(&["bundle", "show", "dag-folder"]).code, 1);
}
