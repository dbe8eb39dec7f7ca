//! Tasks from start to end.

use gust_python_host::messages::{FromTask, Reply, ToTask, VariableResponse};
use gust_python_host::{Event, Exit, Signal};

use crate::support::{Lab, serve, serve_with};

#[tokio::test]
async fn a_task_reports_its_value_and_its_success() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("plain", "", "@task\ndef work():\n    print('hello')\n    return {'answer': 42}\nwork()");
    let story = serve(lab.task("plain", "work").await).await;
    assert_eq!(story.exited.exit, Exit::Code(0), "{story:#?}");
    assert_eq!(story.kinds(), ["SetRenderedFields", "SetXCom", "SucceedTask"]);
    let FromTask::SetXCom(xcom) = &story.requests[1] else { panic!("{story:#?}") };
    assert_eq!(xcom.value, serde_json::json!({"answer": 42}));
    assert!(story.log.contains("hello") || story.stdout.contains("hello"), "{story:#?}");
    assert!(story.exited.usage.user_s > 0.0);
}

#[tokio::test]
async fn a_file_is_imported_once_for_all_its_tasks() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag(
        "once",
        "import os\nIMPORTED_BY = os.getpid()",
        "@task\ndef who():\n    return IMPORTED_BY\nwho()",
    );
    let mut importers = Vec::new();
    for _ in 0..3 {
        let story = serve(lab.task("once", "who").await).await;
        let FromTask::SetXCom(xcom) = &story.requests[1] else { panic!("{story:#?}") };
        importers.push(xcom.value.clone());
    }
    importers.dedup();
    assert_eq!(importers.len(), 1);
}

#[tokio::test]
async fn a_file_that_asks_for_a_variable_at_import_is_imported_by_each_task() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("asks", "VALUE = Variable.get('name')", "@task\ndef tell():\n    return VALUE\ntell()");
    for told in ["first", "second"] {
        let story = serve_with(lab.task("asks", "tell").await, |request| {
            let FromTask::GetVariable(asked) = request else { return None };
            let value = VariableResponse { key: asked.key.clone(), value: Some(told.into()) };
            Some(ToTask::VariableResult(value).into())
        })
        .await;
        let value = story.requests.iter().find_map(|request| match request {
            FromTask::SetXCom(xcom) => xcom.value.as_str(),
            _ => None,
        });
        assert_eq!(value, Some(told), "{story:#?}");
    }
}

#[tokio::test]
async fn a_file_that_starts_a_thread_at_import_still_runs() {
    let Some(lab) = Lab::new().await else { return };
    let top = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()";
    lab.dag("threads", top, "@task\ndef work():\n    return 1\nwork()");
    let story = serve(lab.task("threads", "work").await).await;
    assert_eq!(story.kinds().last(), Some(&"SucceedTask"), "{story:#?}");
}

#[tokio::test]
async fn a_broken_file_spoils_only_its_own_tasks() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("broken", "raise RuntimeError('no good')", "pass");
    lab.dag("segfault", "import ctypes\nctypes.string_at(0)", "pass");
    lab.dag("fine", "", "@task\ndef work():\n    return 1\nwork()");
    let broken = serve(lab.task("broken", "work").await).await;
    // The SDK takes a file that does not import for one that has not arrived yet, and asks to come back.
    assert_eq!(broken.kinds(), ["RescheduleTask"], "{broken:#?}");
    assert!(broken.log.contains("no good"), "{broken:#?}");
    let segfault = serve(lab.task("segfault", "work").await).await;
    assert_eq!(segfault.exited.exit, Exit::Signal(Signal::SIGSEGV as i32), "{segfault:#?}");
    let fine = serve(lab.task("fine", "work").await).await;
    assert_eq!(fine.kinds().last(), Some(&"SucceedTask"), "{fine:#?}");
}

#[tokio::test]
async fn exits_are_told_as_code_or_signal() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag(
        "ends",
        "import ctypes, os, signal",
        "@task\ndef code():\n    os._exit(7)\n@task\ndef segv():\n    ctypes.string_at(0)\n\
         @task\ndef kill():\n    os.kill(os.getpid(), signal.SIGKILL)\ncode(); segv(); kill()",
    );
    for (task, exit) in [("code", Exit::Code(7)), ("segv", Exit::Signal(11)), ("kill", Exit::Signal(9))] {
        assert_eq!(serve(lab.task("ends", task).await).await.exited.exit, exit, "{task}");
    }
}

#[tokio::test]
async fn output_of_the_task_and_of_its_processes_arrives() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag(
        "noisy",
        "import os, sys",
        "@task\ndef work():\n    os.write(1, b'o' * 300_000)\n    os.system('echo below >&2')\nwork()",
    );
    let story = serve(lab.task("noisy", "work").await).await;
    assert_eq!(story.stdout.len(), 300_000);
    assert!(story.stderr.contains("below"), "{story:#?}");
}

#[tokio::test]
async fn a_grandchild_that_holds_the_streams_delays_the_end_but_does_not_prevent_it() {
    let Some(lab) = Lab::with(|config| config.drain_limit = std::time::Duration::from_millis(300)).await
    else {
        return;
    };
    lab.dag(
        "leaves",
        "import subprocess",
        "@task\ndef work():\n    subprocess.Popen(['sleep', '1000'], start_new_session=True)\nwork()",
    );
    let story = serve(lab.task("leaves", "work").await).await;
    assert_eq!(story.kinds().last(), Some(&"SucceedTask"));
    assert_eq!(story.exited.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_kill_reaches_descendants_in_other_sessions() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag(
        "deep",
        "import subprocess, os, signal, time",
        "@task\ndef work():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
         below = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n    \
         os.write(1, f'{below.pid}\\n'.encode())\n    below.wait()\nwork()",
    );
    let mut child = lab.task("deep", "work").await;
    let mut below = String::new();
    let exited = loop {
        match child.next_event().await.unwrap() {
            Event::Request(request) => child.reply(request.id, Reply::Empty).await.unwrap(),
            Event::Stdout(bytes) => {
                below.push_str(std::str::from_utf8(&bytes).unwrap());
                if below.ends_with('\n') {
                    child.kill(Signal::SIGKILL);
                }
            }
            Event::Exited(exited) => break exited,
            _ => {}
        }
    };
    assert_eq!(exited.exit, Exit::Signal(9));
    crate::support::gone(below.trim().parse().unwrap()).await;
}

#[tokio::test]
async fn dropping_a_child_kills_it() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("sleeps", "import time", "@task\ndef work():\n    time.sleep(1000)\nwork()");
    let mut child = lab.task("sleeps", "work").await;
    let Some(Event::Log(_) | Event::Request(_)) = child.next_event().await else { panic!("no sign of life") };
    let pid = child.pid();
    drop(child);
    crate::support::gone(pid).await;
}

#[tokio::test]
async fn many_tasks_run_at_once() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("wide", "", "@task\ndef work():\n    return 1\nwork()");
    let mut running = Vec::new();
    for _ in 0..20 {
        running.push(tokio::spawn(serve(lab.task("wide", "work").await)));
    }
    for story in running {
        assert_eq!(story.await.unwrap().kinds().last(), Some(&"SucceedTask"));
    }
}
