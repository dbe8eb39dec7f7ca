//! The log of a try as a stream of events, from a position on, until the try is over.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use chrono::TimeDelta;
use futures::{Stream, StreamExt as _, stream};
use gust_model::{DagId, MapIndex, RunId, TaskId, TaskInstanceId, TaskInstanceState, record::TaskInstance};
use gust_ports::{MetastoreError, Wake, WakeStream, metastore::TxMode};
use gust_task_log::{LogPosition, TryLog, read_log};
use serde::Deserialize;

use super::error::PageError;
use crate::state::AppState;

/// How often new parts are looked for while the try runs.
const LOOK: Duration = Duration::from_millis(250);
/// How many lines one event carries, roughly: parts are not cut.
const LINES: usize = 1000;
/// After how many looks the worker is told again that somebody follows, and for how long that then holds.
const LOOKS_PER_FOLLOW: u32 = 40;
const FOLLOW_S: i64 = 30;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    map_index: Option<i32>,
    #[serde(rename = "try")]
    try_number: i32,
    after: Option<String>,
}

/// Where a stream stands.
struct Following {
    state: AppState,
    wakes: WakeStream,
    id: TaskInstanceId,
    log: TryLog,
    position: Option<LogPosition>,
    looks: u32,
    has_said_idle: bool,
    is_over: bool,
}

/// `GET …/log-events?try=N[&after=position][&map_index=N]`: events `lines` (a JSON list), `idle`, `end`.
pub(super) async fn events(
    State(state): State<AppState>,
    Path((dag_id, run_id, task_id)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let run = tx
        .dag_run(&DagId::from(dag_id.as_str()), &RunId::from(run_id.as_str()))
        .await?
        .ok_or_else(|| PageError::no_run(&dag_id, &run_id))?;
    let index = MapIndex(asked.map_index.unwrap_or(-1));
    let row =
        tx.task_instance_at(run.id, &TaskId::from(task_id.as_str()), index).await?.ok_or_else(|| {
            PageError::NotFound(format!("Run {run_id:?} has no task instance {task_id:?} at {index}."))
        })?;
    drop(tx);
    // A browser that reconnects says what it had.
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let position = match known.or(asked.after).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            Some(text.parse::<LogPosition>().map_err(|error| PageError::BadAddress(error.to_string()))?)
        }
    };
    let log = TryLog { try_number: asked.try_number, ..TryLog::of(&row) };
    let wakes = state.wakeups.listen();
    let following =
        Following { state, wakes, id: row.id, log, position, looks: 0, has_said_idle: false, is_over: false };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Whether more may be written to the log of this try.
fn is_open(row: &TaskInstance, try_number: i32) -> bool {
    use TaskInstanceState as S;
    let is_current = row.try_number == try_number;
    // Deferred and rescheduled tries go on under the same number.
    is_current
        && matches!(
            row.state,
            S::Scheduled
                | S::Queued
                | S::Running
                | S::Restarting
                | S::Deferred
                | S::AwaitingInput
                | S::UpForReschedule
        )
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        loop {
            if self.looks > 0 {
                self.wait().await;
            }
            let is_open = match self.look_at_row().await {
                Ok(is_open) => is_open,
                Err(error) => {
                    tracing::warn!(%error, "a log is followed without knowing whether its try runs");
                    true
                }
            };
            self.looks += 1;
            // The row was read first: a try ends only after its last part is written.
            let page = match read_log(&*self.state.store, &self.log, self.position, LINES).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "a log cannot be read now");
                    if is_open {
                        continue;
                    }
                    return Some(self.end());
                }
            };
            self.position = page.position;
            if page.has_more {
                // The next look must not wait.
                self.looks = 0;
            }
            if !page.lines.is_empty() {
                let data = serde_json::to_string(&page.lines).unwrap_or_else(|_| "[]".to_owned());
                let id = self.position.map(|position| position.to_string()).unwrap_or_default();
                return Some(Event::default().event("lines").id(id).data(data));
            }
            if !is_open && !page.has_more {
                return Some(self.end());
            }
            if !self.has_said_idle {
                self.has_said_idle = true;
                return Some(Event::default().event("idle").data("now"));
            }
        }
    }

    fn end(&mut self) -> Event {
        self.is_over = true;
        Event::default().event("end").data("now")
    }

    /// Until the next look is due or the run moved.
    async fn wait(&mut self) {
        let sleep = self.state.clock.sleep(LOOK);
        tokio::pin!(sleep);
        let mut is_listening = true;
        loop {
            tokio::select! {
                () = &mut sleep => return,
                wake = self.wakes.next(), if is_listening => match wake {
                    Some(Wake::Run { dag_id, run_id, .. })
                        if dag_id == self.log.dag_id && run_id == self.log.run_id => return,
                    Some(_) => {}
                    None => is_listening = false,
                },
            }
        }
    }

    /// Whether the try runs; and, now and then, the word to the worker that somebody follows.
    async fn look_at_row(&mut self) -> Result<bool, MetastoreError> {
        let mut tx = self.state.metastore.begin(TxMode::Read).await?;
        let row = tx.task_instance(self.id).await?;
        let now = tx.now().await?;
        drop(tx);
        let is_open = row.is_some_and(|row| is_open(&row, self.log.try_number));
        if is_open && self.looks.is_multiple_of(LOOKS_PER_FOLLOW) {
            let mut tx = self.state.metastore.begin(TxMode::Write).await?;
            tx.follow_log(self.id, now + TimeDelta::seconds(FOLLOW_S)).await?;
            tx.commit().await?;
        }
        Ok(is_open)
    }
}
