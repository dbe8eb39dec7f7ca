//! Variables and Connections.

use gust_model::record::{ConnectionRecord, VariableRecord};

use crate::{backend::Backend, behaviours};

behaviours! { everywhere:
    variable_is_stored_whole_overwritten_and_removed
    variables_by_prefix_in_pages
    connection_is_stored_whole_overwritten_and_removed
    connections_by_text_in_pages
}

fn variable(key: &str) -> VariableRecord {
    VariableRecord { key: key.into(), sealed_value: format!("sealed {key} ü"), description: None }
}

fn connection(conn_id: &str) -> ConnectionRecord {
    ConnectionRecord {
        conn_id: conn_id.into(),
        conn_type: "postgres".to_owned(),
        description: Some("d".to_owned()),
        host: Some("h".to_owned()),
        schema: Some("s".to_owned()),
        login: Some("l".to_owned()),
        sealed_password: Some("sealed".to_owned()),
        port: Some(65_535),
        sealed_extra: Some("sealed too".to_owned()),
    }
}

async fn variable_is_stored_whole_overwritten_and_removed(backend: &Backend) {
    let first = VariableRecord { description: Some("wofür".to_owned()), ..variable("k") };
    let second = VariableRecord { sealed_value: String::new(), ..variable("k") };
    let mut tx = backend.write().await;
    assert_eq!(tx.variable(&"k".into()).await.unwrap(), None);
    for record in [first, second] {
        tx.put_variable(&record).await.unwrap();
        assert_eq!(tx.variable(&"k".into()).await.unwrap(), Some(record));
    }
    assert!(tx.delete_variable(&"k".into()).await.unwrap());
    assert!(!tx.delete_variable(&"k".into()).await.unwrap());
    assert_eq!(tx.variable(&"k".into()).await.unwrap(), None);
}

async fn variables_by_prefix_in_pages(backend: &Backend) {
    let mut tx = backend.write().await;
    for key in ["a_b", "axb", "a%b", "A_b", "b", "ba_"] {
        tx.put_variable(&variable(key)).await.unwrap();
    }
    for (prefix, expected) in [
        ("", vec!["A_b", "a%b", "a_b", "axb", "b", "ba_"]),
        ("a", vec!["a%b", "a_b", "axb"]),
        ("a_", vec!["a_b"]),
        ("a%", vec!["a%b"]),
        ("ba_x", vec![]),
    ] {
        let listing = tx.variables(prefix, 10, 0).await.unwrap();
        let keys: Vec<&str> = listing.items.iter().map(|variable| variable.key.as_str()).collect();
        assert_eq!(keys, expected, "{prefix:?}");
        assert_eq!(listing.total, expected.len() as u64);
    }
    let page = tx.variables("", 2, 3).await.unwrap();
    assert_eq!(page.items, [variable("axb"), variable("b")]);
    assert_eq!(page.total, 6);
}

async fn connection_is_stored_whole_overwritten_and_removed(backend: &Backend) {
    let bare = ConnectionRecord {
        conn_id: "c".into(),
        conn_type: String::new(),
        description: None,
        host: None,
        schema: None,
        login: None,
        sealed_password: None,
        port: None,
        sealed_extra: None,
    };
    let mut tx = backend.write().await;
    assert_eq!(tx.connection(&"c".into()).await.unwrap(), None);
    for record in [connection("c"), bare] {
        tx.put_connection(&record).await.unwrap();
        assert_eq!(tx.connection(&"c".into()).await.unwrap(), Some(record));
    }
    assert!(tx.delete_connection(&"c".into()).await.unwrap());
    assert!(!tx.delete_connection(&"c".into()).await.unwrap());
    assert_eq!(tx.connection(&"c".into()).await.unwrap(), None);
}

async fn connections_by_text_in_pages(backend: &Backend) {
    let mut tx = backend.write().await;
    for conn_id in ["my_db", "mydb", "db%1", "other"] {
        tx.put_connection(&connection(conn_id)).await.unwrap();
    }
    for (contains, expected) in [
        ("", vec!["db%1", "my_db", "mydb", "other"]),
        ("db", vec!["db%1", "my_db", "mydb"]),
        ("y_d", vec!["my_db"]),
        ("%", vec!["db%1"]),
    ] {
        let listing = tx.connections(contains, 10, 0).await.unwrap();
        let ids: Vec<&str> = listing.items.iter().map(|connection| connection.conn_id.as_str()).collect();
        assert_eq!(ids, expected, "{contains:?}");
        assert_eq!(listing.total, expected.len() as u64);
    }
    let page = tx.connections("", 1, 1).await.unwrap();
    assert_eq!((page.items, page.total), (vec![connection("my_db")], 4));
}
