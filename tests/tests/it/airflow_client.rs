//! Airflow's own Python client against Gust.

use std::time::Duration;

use gust_tests::{Gust, House, Options, client_python, python};
use tokio::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/use_client.py");

const SHOWN: &str = r#"
from airflow.sdk import Variable, dag, task


@dag(schedule=None, description="Adds two numbers", tags=["shown"])
def adding():
    @task
    def add(dag_run=None):
        return dag_run.conf["a"] + dag_run.conf["b"]

    @task
    def show(total):
        print(f"the sum is {total}")
        return [1, 2, 3]

    @task
    def times(n):
        return n * int(Variable.get("factor"))

    times.expand(n=show(add()))


adding()
"#;

const OTHER: &str = r"
from airflow.sdk import dag, task


@dag(schedule=None)
def other():
    @task
    def nothing():
        pass

    nothing()


other()
";

#[tokio::test]
async fn airflows_python_client_lists_triggers_waits_and_reads() {
    let Some(python) = python().await else { return };
    let Some(client) = client_python(&python) else { return };
    let house = House::new().with_dag("adding.py", SHOWN).with_dag("other.py", OTHER);
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["adding", "other"], Duration::from_mins(1)).await;
    let output = Command::new(client)
        .args([SCRIPT, &gust.rest.base, &gust.rest.token, "adding"])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "the client is not content:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
