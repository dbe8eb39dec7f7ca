//! `/events`: tells open pages that what they show may have changed, without saying what: they fetch it again.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures::{Stream, StreamExt as _, stream};
use gust_ports::{Clock, Wake, WakeStream};
use serde::Deserialize;

use crate::state::AppState;

/// The least time between two messages to one page.
const STEP: Duration = Duration::from_millis(250);
/// How often a connection on which nothing happens shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The stream of changes.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/events", get(changes))
}

/// Which changes a page wants to hear of.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Scope {
    dag_id: Option<String>,
    run_id: Option<String>,
}

impl Scope {
    fn covers(&self, wake: &Wake) -> bool {
        let is_dag = |dag_id: &str| self.dag_id.as_deref().is_none_or(|wanted| wanted == dag_id);
        match wake {
            Wake::Run { dag_id, run_id, .. } => {
                is_dag(dag_id.as_str())
                    && self.run_id.as_deref().is_none_or(|wanted| wanted == run_id.as_str())
            }
            Wake::Dag { dag_id } => is_dag(dag_id.as_str()),
            // Which run it is about is not said; rows moved, so everybody looks.
            Wake::Admission | Wake::Queued | Wake::Revoked { .. } => true,
            Wake::Trigger => false,
        }
    }
}

async fn changes(
    State(state): State<AppState>,
    Query(scope): Query<Scope>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // Browsers drop events without data.
    let changes = debounced(state.wakeups.listen(), scope, Arc::clone(&state.clock))
        .map(|()| Ok(Event::default().event("change").data("now")));
    Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// One item for all wake-ups in scope that come within a step, at its end; so the last change is never missed.
fn debounced(wakes: WakeStream, scope: Scope, clock: Arc<dyn Clock>) -> impl Stream<Item = ()> {
    stream::unfold(wakes, move |mut wakes| {
        let (scope, clock) = (scope.clone(), Arc::clone(&clock));
        async move {
            while !scope.covers(&wakes.next().await?) {}
            let end = clock.sleep(STEP);
            tokio::pin!(end);
            loop {
                tokio::select! {
                    () = &mut end => return Some(((), wakes)),
                    wake = wakes.next() => { wake?; }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use gust_ports::{
        Wakeups as _,
        memory::{ManualClock, MemoryWakeups},
    };
    use rstest::rstest;

    use super::*;

    fn run(dag_id: &str, run_id: &str) -> Wake {
        Wake::Run { dag_id: dag_id.into(), run_id: run_id.into(), plan: false }
    }

    fn scope(dag_id: Option<&str>, run_id: Option<&str>) -> Scope {
        Scope { dag_id: dag_id.map(str::to_owned), run_id: run_id.map(str::to_owned) }
    }

    #[rstest]
    #[case(scope(None, None), run("a", "r"), true)]
    #[case(scope(Some("a"), None), run("a", "r"), true)]
    #[case(scope(Some("b"), None), run("a", "r"), false)]
    #[case(scope(Some("a"), Some("r")), run("a", "other"), false)]
    #[case(scope(Some("a"), Some("r")), Wake::Dag { dag_id: "a".into() }, true)]
    #[case(scope(Some("a"), None), Wake::Trigger, false)]
    fn a_page_hears_of_what_it_shows(#[case] scope: Scope, #[case] wake: Wake, #[case] heard: bool) {
        assert_eq!(scope.covers(&wake), heard);
    }

    #[tokio::test]
    async fn many_changes_within_a_step_are_one_message() {
        let wakeups = MemoryWakeups::new(64);
        let clock = ManualClock::new(chrono::DateTime::UNIX_EPOCH);
        let stream = debounced(wakeups.listen(), Scope::default(), Arc::new(clock.clone()));
        tokio::pin!(stream);
        for _ in 0..10 {
            wakeups.wake(run("a", "r")).await;
        }
        assert!(futures::poll!(stream.next()).is_pending());
        clock.advance(STEP);
        assert!(futures::poll!(stream.next()).is_ready());
        assert!(futures::poll!(stream.next()).is_pending());
        clock.advance(STEP);
        assert!(futures::poll!(stream.next()).is_pending(), "nothing changed since");
    }
}
