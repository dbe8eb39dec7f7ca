//! A small client of the REST API.

use std::{collections::BTreeMap, time::Duration};

use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::waiting::eventually;

/// Airflow's largest page.
const PAGE: usize = 100;

/// Speaks to one server with one token.
#[derive(Debug, Clone)]
pub struct Rest {
    /// The server's address, without a slash at its end.
    pub base: String,
    /// The token that is shown.
    pub token: String,
    http: Client,
}

/// An answer that is not a success, or none at all.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// The body, or what went wrong.
    pub text: String,
}

/// A token signed with a server's secret, as an administrator of that server makes it.
pub fn mint_token(secret: &[u8]) -> String {
    let now = Utc::now().timestamp();
    let claims = json!({"sub": "test", "role": "admin", "iat": now, "exp": now + 3600});
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .expect("a token is signed")
}

impl Rest {
    /// Takes a token from a server that gives one to everybody.
    pub async fn open(base: &str) -> Self {
        let anonymous = Self::with_token(base, "");
        let answer = anonymous.get("/auth/token").await;
        Self::with_token(base, answer["access_token"].as_str().expect("a token"))
    }

    /// Shows this token.
    pub fn with_token(base: &str, token: &str) -> Self {
        let http =
            Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().expect("an HTTP client");
        Self { base: base.trim_end_matches('/').to_owned(), token: token.to_owned(), http }
    }

    /// Sends a request and returns status and body, without looking at either.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(u16, String), Refused> {
        let failed = |error: reqwest::Error| Refused { status: None, text: format!("{error:?}") };
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(failed)?))
    }

    /// Sends a request that must succeed.
    ///
    /// # Errors
    /// [`Refused`] otherwise.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let (status, text) = self.send(method, path, &[], body).await?;
        if !(200..300).contains(&status) {
            return Err(Refused { status: Some(status), text });
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| Refused { status: Some(status), text: format!("{error}: {text}") })
    }

    /// Gets something that must be there.
    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.unwrap_or_else(|refused| panic!("GET {path}: {refused:?}"))
    }

    /// Posts something that must be taken.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, path, Some(body))
            .await
            .unwrap_or_else(|refused| panic!("POST {path} {body}: {refused:?}"))
    }

    /// All items of a list, page by page.
    pub async fn all(&self, path: &str, field: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(&format!("{path}{separator}limit={PAGE}&offset={}", items.len())).await;
            let more = page[field].as_array().unwrap_or_else(|| panic!("{path} has no {field}: {page}"));
            items.extend(more.iter().cloned());
            let total = page["total_entries"].as_u64().expect("a list has its total");
            if more.is_empty() || items.len() as u64 >= total {
                return items;
            }
        }
    }

    /// Waits until these DAGs have been parsed.
    pub async fn await_dags(&self, dag_ids: &[&str], limit: Duration) {
        eventually("every DAG is parsed", limit, async || {
            let known = self.all("/api/v2/dags", "dags").await;
            dag_ids.iter().all(|id| known.iter().any(|dag| dag["dag_id"] == **id)).then_some(())
        })
        .await;
    }

    /// Lets a DAG's runs begin.
    pub async fn unpause(&self, dag_id: &str) {
        let path = format!("/api/v2/dags/{dag_id}");
        self.call(Method::PATCH, &path, Some(&json!({"is_paused": false})))
            .await
            .unwrap_or_else(|refused| panic!("PATCH {path}: {refused:?}"));
    }

    /// Triggers a run without a logical date, and returns its id.
    ///
    /// # Errors
    /// [`Refused`] if it was not triggered, or nobody knows.
    pub async fn trigger(&self, dag_id: &str, run_id: &str, conf: Option<&Value>) -> Result<(), Refused> {
        let mut body = json!({"logical_date": null, "dag_run_id": run_id});
        if let Some(conf) = conf {
            body["conf"] = conf.clone();
        }
        let path = format!("/api/v2/dags/{dag_id}/dagRuns");
        self.call(Method::POST, &path, Some(&body)).await.map(|_| ())
    }

    /// The state of a run.
    pub async fn run_state(&self, dag_id: &str, run_id: &str) -> String {
        let run = self.get(&format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}")).await;
        run["state"].as_str().expect("a run has a state").to_owned()
    }

    /// Waits for a run's end, and returns its state.
    pub async fn await_run(&self, dag_id: &str, run_id: &str, limit: Duration) -> String {
        eventually(&format!("{dag_id} {run_id} ends"), limit, async || {
            let state = self.run_state(dag_id, run_id).await;
            matches!(state.as_str(), "success" | "failed").then_some(state)
        })
        .await
    }

    /// The task instances of a run.
    pub async fn task_instances(&self, dag_id: &str, run_id: &str) -> Vec<Value> {
        self.all(&format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"), "task_instances").await
    }

    /// The states of a run's task instances, by `task` or `task[map_index]`.
    pub async fn task_states(&self, dag_id: &str, run_id: &str) -> BTreeMap<String, Option<String>> {
        let state = |instance: &Value| instance["state"].as_str().map(str::to_owned);
        self.task_instances(dag_id, run_id).await.iter().map(|one| (instance_key(one), state(one))).collect()
    }

    /// The lines of a try's log, joined.
    pub async fn log(&self, dag_id: &str, run_id: &str, task_id: &str, try_number: u32) -> String {
        let path =
            format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}");
        let answer = self.get(&path).await;
        let lines = answer["content"].as_array().expect("a log has content");
        let event = |line: &Value| line["event"].as_str().or(line.as_str()).unwrap_or_default().to_owned();
        lines.iter().map(event).collect::<Vec<_>>().join("\n")
    }
}

fn instance_key(instance: &Value) -> String {
    let task = instance["task_id"].as_str().expect("a task instance has a task");
    match instance["map_index"].as_i64() {
        Some(index) if index >= 0 => format!("{task}[{index}]"),
        _ => task.to_owned(),
    }
}
