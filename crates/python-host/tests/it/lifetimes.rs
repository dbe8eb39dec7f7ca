//! Who lives how long: zygotes, children, and what is left when the owner is killed.

use std::process::Stdio;
use std::time::Duration;

use gust_python_host::messages::{FromTask, Reply};
use gust_python_host::{Child, Event, Exit, Host, HostConfig, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Lab, gone, serve, spawn};

/// A task that ignores every signal and has a process in another session; it prints both ids.
const STUBBORN: &str = "@task
def work():
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    below = subprocess.Popen(['sleep', '1000'], start_new_session=True)
    os.write(1, f'{os.getpid()} {os.getppid()} {below.pid}\\n'.encode())
    time.sleep(1000)
work()";

/// Serves a child until it prints a line.
async fn first_line(child: &mut Child) -> String {
    loop {
        match child.next_event().await.unwrap() {
            Event::Request(request) => child.reply(request.id, Reply::Empty).await.unwrap(),
            Event::Stdout(bytes) => return String::from_utf8(bytes.to_vec()).unwrap(),
            Event::Exited(exited) => panic!("{exited:?}"),
            _ => {}
        }
    }
}

fn ids(line: &str) -> Vec<u32> {
    line.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[tokio::test]
async fn dropping_the_host_leaves_nobody_alive() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("stubborn", "import signal, subprocess, time, os", STUBBORN);
    let mut child = lab.task("stubborn", "work").await;
    let ids = ids(&first_line(&mut child).await);
    drop(child);
    drop(lab);
    for id in ids {
        gone(id).await;
    }
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "started by killing_the_owner_leaves_nobody_alive"]
async fn owner_to_be_killed() {
    let dags = std::path::PathBuf::from(std::env::var("LAB_DAGS").unwrap());
    let Some(environment) = gust_python_host::testing::environment().await else { return };
    let host = Host::new(HostConfig::new(environment, dags.join("home"))).unwrap();
    let mut child = host.spawn_task(spawn(&dags, "stubborn", "work")).await.unwrap();
    let line = first_line(&mut child).await;
    // The harness writes to the same stdout.
    println!("\nIDS {line}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killing_the_owner_leaves_nobody_alive() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("stubborn", "import signal, subprocess, time, os", STUBBORN);
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetimes::owner_to_be_killed", "--ignored", "--nocapture"])
        .env("LAB_DAGS", lab.dags.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let ids = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(told) = line.strip_prefix("IDS ") {
            break ids(told);
        }
    };
    // SIGKILL: no code of ours runs in the owner any more.
    owner.kill().await.unwrap();
    tokio::time::timeout(Duration::from_secs(2), async {
        for id in ids {
            gone(id).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_killed_zygote_takes_its_tasks_along_and_is_replaced() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("stubborn", "import signal, subprocess, time, os", STUBBORN);
    lab.dag("plain", "", "@task\ndef work():\n    return 1\nwork()");
    let mut child = lab.task("stubborn", "work").await;
    let ids = ids(&first_line(&mut child).await);
    let zygote = nix::unistd::Pid::from_raw(i32::try_from(ids[1]).unwrap());
    nix::sys::signal::kill(zygote, Signal::SIGKILL).unwrap();
    let story = serve(child).await;
    assert_eq!(story.exited.exit, Exit::Lost);
    gone(ids[0]).await;
    assert_eq!(serve(lab.task("plain", "work").await).await.kinds().last(), Some(&"SucceedTask"));
}

#[tokio::test]
async fn a_file_zygote_is_replaced_after_so_many_tasks() {
    let Some(lab) = Lab::with(|config| config.file_zygote_max_forks = 2).await else { return };
    lab.dag(
        "once",
        "import os\nIMPORTED_BY = os.getpid()",
        "@task\ndef who():\n    return IMPORTED_BY\nwho()",
    );
    let mut importers = Vec::new();
    for _ in 0..4 {
        let story = serve(lab.task("once", "who").await).await;
        importers.push(story.requests.iter().find_map(|request| match request {
            FromTask::SetXCom(xcom) => xcom.value.as_i64(),
            _ => None,
        }));
    }
    assert_eq!(importers[0], importers[1]);
    assert_ne!(importers[1], importers[2]);
    assert_eq!(importers[2], importers[3]);
}

#[tokio::test]
async fn a_file_zygote_without_work_ends() {
    let Some(lab) = Lab::with(|config| config.file_zygote_idle = Duration::from_millis(200)).await else {
        return;
    };
    lab.dag("who", "import os", "@task\ndef who():\n    return os.getppid()\nwho()");
    let story = serve(lab.task("who", "who").await).await;
    let FromTask::SetXCom(xcom) = &story.requests[1] else { panic!("{story:#?}") };
    gone(u32::try_from(xcom.value.as_i64().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn an_import_that_hangs_does_not_hold_up_other_files() {
    let Some(lab) = Lab::with(|config| config.preparse_limit = Duration::from_secs(1)).await else { return };
    // SIGALRM's handler does not get through to this one.
    lab.dag("hangs", "import ctypes\nctypes.CDLL(None).sleep(1000)", "pass");
    lab.dag("plain", "", "@task\ndef work():\n    return 1\nwork()");
    let (host, dags) = (lab.host.clone(), lab.dags.path().to_owned());
    let hanging = tokio::spawn(async move { host.spawn_task(spawn(&dags, "hangs", "work")).await });
    assert_eq!(serve(lab.task("plain", "work").await).await.kinds().last(), Some(&"SucceedTask"));
    // The task that imports for itself hangs in turn; that is for the worker to end.
    drop(hanging.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_child_may_ask_for_its_log_channel_again() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag(
        "relog",
        "import logging",
        "@task\ndef work():\n    from airflow.sdk.execution_time import task_runner\n    \
         task_runner.reinit_supervisor_comms()\n    logging.getLogger('airflow.task').warning('through the new one')\nwork()",
    );
    let story = serve(lab.task("relog", "work").await).await;
    assert!(story.log.contains("through the new one"), "{story:#?}");
    assert_eq!(story.kinds().last(), Some(&"SucceedTask"));
}

#[tokio::test]
async fn with_all_places_taken_further_files_still_run() {
    let Some(lab) = Lab::with(|config| config.file_zygotes_max = 1).await else { return };
    for name in ["one", "two", "three"] {
        lab.dag(name, "", "@task\ndef work():\n    return 1\nwork()");
        assert_eq!(serve(lab.task(name, "work").await).await.kinds().last(), Some(&"SucceedTask"));
    }
}
