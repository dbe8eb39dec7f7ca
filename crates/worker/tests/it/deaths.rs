//! How tries end that do not say how.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gust_model::{TaskInstanceState as S, record::CallbackState};
use gust_ports::{
    Wake,
    memory::{Fault, FaultHook, FaultPoint, NoFaults},
    metastore::{Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite},
};
use gust_worker::Limits;

use crate::house::House;

#[tokio::test]
async fn a_process_that_dies_fails_its_try_and_its_callback_is_run_by_another() {
    let Some(house) = House::open().await else { return };
    let body = "def told(context):\n    print('told of', context['ti'].task_id)\n\
                @task(on_failure_callback=told)\ndef leave():\n    os._exit(3)\n\
                @task(retries=1)\ndef crash():\n    os.kill(os.getpid(), signal.SIGSEGV)\n\
                @task\ndef oom():\n    os.kill(os.getpid(), signal.SIGKILL)\n\
                @task\ndef quiet():\n    os._exit(0)\n\
                leave(); crash(); oom(); quiet()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "leave").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("\"exit_code\":3"));

    let queued = house.write().await.callbacks_to_run(10).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].request["task_callback_type"], "failed");
    let message = gust_model::message::WorkMessage {
        kind: gust_model::message::WorkKind::Callback,
        id: queued[0].id.0,
        epoch: queued[0].epoch,
    };
    assert!(house.worker.run(message, &Limits::default()).await.unwrap());
    let done = house.write().await.callback(queued[0].id).await.unwrap().unwrap();
    assert_eq!((done.state, done.error), (CallbackState::Success, None));
    let log = house.log(&row).await;
    assert!(log.contains("told of leave"), "{log}");
    assert!(!house.worker.run(message, &Limits::default()).await.unwrap());

    // A scheduler that reaps a try leaves the context to be read by the worker, and a run that follows its DAG's
    // newest code names no version.
    let mut reaped = queued[0].clone();
    reaped.id = gust_model::CallbackId(house.services.ids.fresh());
    reaped.bundle_version = None;
    reaped.request.as_object_mut().unwrap().remove("context_from_server");
    let mut tx = house.write().await;
    tx.insert_callback(&reaped).await.unwrap();
    tx.commit().await.unwrap();
    let message = gust_model::message::WorkMessage { id: reaped.id.0, ..message };
    assert!(house.worker.run(message, &Limits::default()).await.unwrap());
    let done = house.write().await.callback(reaped.id).await.unwrap().unwrap();
    assert_eq!((done.state, done.error), (CallbackState::Success, None));

    let row = house.run(&hand, "crash").await;
    assert_eq!(row.state, S::UpForRetry);
    assert!(house.log(&row).await.contains("SIGSEGV"));
    let row = house.run(&hand, "oom").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("out of memory"));
    let row = house.run(&hand, "quiet").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("without reporting a state"));
}

#[tokio::test]
async fn a_task_past_its_execution_timeout_ends_whether_it_listens_or_not() {
    let Some(house) =
        House::with(|config| config.execution_timeout_grace = Duration::from_millis(500), Arc::new(NoFaults))
            .await
    else {
        return;
    };
    let body = "@task(execution_timeout=datetime.timedelta(seconds=1))\ndef sleeps():\n    time.sleep(600)\n\
                @task(execution_timeout=datetime.timedelta(seconds=1))\ndef deaf():\n\
                \x20   signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                \x20   signal.setitimer(signal.ITIMER_REAL, 0)\n    time.sleep(600)\n\
                sleeps(); deaf()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "sleeps").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("AirflowTaskTimeout"));
    let row = house.run(&hand, "deaf").await;
    assert_eq!(row.state, S::Failed);
    let log = house.log(&row).await;
    assert!(log.contains("past its execution timeout") && log.contains("is killed"), "{log}");
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_does_not_hold_the_try() {
    let Some(house) = House::open().await else { return };
    let body = "@task\ndef t():\n    import subprocess\n    subprocess.Popen(['sleep', '600'], start_new_session=True)\n    print('left it behind')\nt()";
    let hand = house.dag("d", "", body).await;
    let ended = tokio::time::timeout(Duration::from_mins(1), house.run(&hand, "t")).await;
    let row = ended.expect("the try ends though its pipe is held");
    assert_eq!(row.state, S::Success);
    assert!(house.log(&row).await.contains("left it behind"));
}

#[tokio::test]
async fn a_try_taken_from_its_worker_is_ended_at_once_and_writes_nothing_more() {
    let Some(house) = House::open().await else { return };
    let body = "@task\ndef t(**context):\n    context['ti'].xcom_push('begun', 1)\n    time.sleep(600)\nt()";
    let hand = house.dag("d", "", body).await;
    let message = house.queue(&hand, "t", -1).await;
    let house = Arc::new(house);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let looped = tokio::spawn(Arc::clone(&house.worker).run_loop(shutdown.clone()));
    let addressed = gust_model::message::Addressed { queue: "default".into(), message };
    assert!(house.services.queue.send(&[addressed]).await.unwrap().is_empty());
    while house.xcom(&hand, "t", -1, "begun").await.is_none() {
        tokio::task::yield_now().await;
    }
    let row = house.row(&hand, "t", -1).await;
    assert_eq!(row.state, S::Running);
    let patch = TaskInstancePatch {
        state: Some(S::None),
        next_epoch: true,
        lease: LeasePatch::End,
        ..TaskInstancePatch::default()
    };
    let mut tx = house.write().await;
    tx.update_task_instances(&[TaskInstanceWrite { id: row.id, guard: Guard::Any, patch }]).await.unwrap();
    tx.commit().await.unwrap();
    house.services.wakeups.wake(Wake::Revoked { task_instance_id: row.id }).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_mins(1), looped).await.expect("it drains").unwrap().unwrap();
    let row = house.row(&hand, "t", -1).await;
    assert_eq!(row.state, S::None);
    assert!(house.log(&row).await.contains("taken from its worker"));
}

/// The answer to the first commit of each transaction that made a given statement is lost.
struct LoseAnswerAfter {
    statement: &'static str,
    seen: Mutex<Option<u64>>,
    lost: AtomicBool,
}

impl FaultHook for LoseAnswerAfter {
    fn at(&self, point: FaultPoint) -> Fault {
        match point {
            FaultPoint::Statement { transaction, name } if name == self.statement => {
                *self.seen.lock().unwrap() = Some(transaction);
                Fault::None
            }
            FaultPoint::Commit { transaction } => {
                let is_it = *self.seen.lock().unwrap() == Some(transaction);
                if is_it && !self.lost.swap(true, Ordering::SeqCst) { Fault::AnswerLost } else { Fault::None }
            }
            _ => Fault::None,
        }
    }
}

#[rstest::rstest]
#[case("claim_task_instance")]
#[case("put_rendered_fields")]
#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_read_back(#[case] statement: &'static str) {
    let faults = Arc::new(LoseAnswerAfter { statement, seen: Mutex::default(), lost: AtomicBool::default() });
    let Some(house) = House::with(|_| {}, Arc::clone(&faults) as Arc<dyn FaultHook>).await else { return };
    let hand = house.dag("d", "", "@task\ndef t():\n    return 'once'\nt()").await;
    let row = house.run(&hand, "t").await;
    assert!(faults.lost.load(Ordering::SeqCst), "the fault did not happen");
    assert_eq!(row.state, S::Success);
    assert_eq!(house.returned(&hand, "t", -1).await, "once");
}

#[tokio::test]
async fn a_worker_that_shuts_down_gives_back_what_runs_for_too_long() {
    let Some(house) =
        House::with(|config| config.drain_limit = Duration::from_millis(200), Arc::new(NoFaults)).await
    else {
        return;
    };
    let body = "@task\ndef t(**context):\n    context['ti'].xcom_push('begun', 1)\n    time.sleep(600)\nt()";
    let hand = house.dag("d", "", body).await;
    let message = house.queue(&hand, "t", -1).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let looped = tokio::spawn(Arc::clone(&house.worker).run_loop(shutdown.clone()));
    let addressed = gust_model::message::Addressed { queue: "default".into(), message };
    house.services.queue.send(&[addressed]).await.unwrap();
    while house.xcom(&hand, "t", -1, "begun").await.is_none() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    tokio::time::timeout(Duration::from_mins(1), looped).await.expect("it drains").unwrap().unwrap();
    let row = house.row(&hand, "t", -1).await;
    assert_eq!((row.state, row.epoch), (S::Queued, message.epoch.next()));
    assert!(row.resend_at.is_some() && row.lease.is_none());
    let alive = house.write().await.components().await.unwrap();
    assert_eq!(alive.len(), 1);
}
