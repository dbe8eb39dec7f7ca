use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use gust_model::{TaskInstanceState, record::TaskInstance};
use gust_ports::{MetastoreError, Tx, metastore::TxMode, metastore::transact};
use gust_task_log::{LogLine, LogPosition, TryLog, read_log};

use super::{Place, locate, log_lines};
use crate::{commands::find::NotPlannedYet, house::House, output::Out};

/// `gust tasks logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    place: Place,
    /// The log of this try [default: the current or last one]
    #[arg(long = "try", visible_alias = "try-number", value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    try_number: Option<i32>,
    /// Go on printing while the task runs, until the try is over
    #[arg(short, long)]
    follow: bool,
}

/// How often a followed log is looked at. Workers store a followed log every second.
const LOOK: Duration = Duration::from_millis(250);
/// How many looks lie between two words to the worker that somebody follows.
const LOOKS_PER_WORD: u32 = 20;
/// For how long the worker believes it: several words, so that a slow one does not end it.
const FOLLOWED_FOR: TimeDelta = TimeDelta::seconds(15);
/// How many lines are read before they are printed.
const LINES: usize = 5_000;
/// How many looks an ended try's log may lag behind: its last part is stored before its end, but a try that was
/// reaped has its log closed a little later.
const LOOKS_AFTER_END: u32 = 8;

/// `gust tasks logs`.
pub async fn run(house: &House, args: LogsArgs, out: &mut Out) -> anyhow::Result<()> {
    let instance = loop {
        match locate(house, &args.place).await {
            Err(error) if args.follow && error.is::<NotPlannedYet>() => house.clock.sleep(LOOK).await,
            located => break located?,
        }
    };
    let try_number = args.try_number.unwrap_or(instance.try_number.max(1));
    let waits = args.follow && (!is_over(&instance, try_number) || instance.try_number < try_number);
    if instance.try_number < try_number && !waits {
        if instance.try_number == 0 {
            anyhow::bail!("the task {} has not run yet: it is {}", instance.task_id, instance.state);
        }
        anyhow::bail!(
            "the task {} has no try {try_number}; its last is {}",
            instance.task_id,
            instance.try_number
        );
    }
    let log = TryLog { try_number, ..TryLog::of(&instance) };
    let mut position = None;
    let mut was_any = print(house, &log, &mut position, out).await?;
    if waits {
        was_any |= follow(house, &instance, &log, &mut position, out).await?;
    }
    if !was_any {
        eprintln!("the log of try {try_number} is empty; the task is {}", instance.state);
    }
    Ok(())
}

/// Prints all that was logged of a try.
///
/// # Errors
/// When the log cannot be read, or nothing can be printed.
pub async fn print_log(
    house: &House,
    instance: &TaskInstance,
    try_number: i32,
    out: &mut Out,
) -> anyhow::Result<()> {
    let log = TryLog { try_number, ..TryLog::of(instance) };
    print(house, &log, &mut None, out).await?;
    Ok(())
}

async fn follow(
    house: &House,
    instance: &TaskInstance,
    log: &TryLog,
    position: &mut Option<LogPosition>,
    out: &mut Out,
) -> anyhow::Result<bool> {
    let (mut looks, mut looks_after_end, mut was_any) = (0_u32, 0, false);
    loop {
        // Read before the state is, so that what was stored before the end is not missed.
        let state = current(house, instance).await?;
        if looks.is_multiple_of(LOOKS_PER_WORD) {
            say_followed(house, instance).await?;
        }
        looks = looks.wrapping_add(1);
        was_any |= print(house, log, position, out).await?;
        let Some(now) = state else {
            eprintln!("the task instance is gone");
            return Ok(was_any);
        };
        if is_over(&now, log.try_number) {
            let is_closed = position.is_some_and(|position| position.is_end);
            if is_closed || looks_after_end == LOOKS_AFTER_END {
                return Ok(was_any);
            }
            looks_after_end += 1;
        }
        house.clock.sleep(LOOK).await;
    }
}

/// Prints what was written behind the position, and says whether there was anything.
async fn print(
    house: &House,
    log: &TryLog,
    position: &mut Option<LogPosition>,
    out: &mut Out,
) -> anyhow::Result<bool> {
    let mut was_any = false;
    loop {
        let page = read_log(&*house.objects, log, *position, LINES).await?;
        *position = page.position;
        was_any |= !page.lines.is_empty();
        let text: String = page.lines.iter().map(|line| shown(line, out)).collect();
        if !text.is_empty() {
            out.raw(&text)?;
        }
        if !page.has_more {
            return Ok(was_any);
        }
    }
}

fn shown(line: &LogLine, out: &Out) -> String {
    if out.is_structured() {
        format!("{line}\n")
    } else {
        format!("{}\n", log_lines::text(line, out.is_coloured()))
    }
}

async fn current(house: &House, instance: &TaskInstance) -> Result<Option<TaskInstance>, MetastoreError> {
    house.store.begin(TxMode::Read).await?.task_instance(instance.id).await
}

/// Whether nothing more will be written for this try.
fn is_over(instance: &TaskInstance, try_number: i32) -> bool {
    use TaskInstanceState as S;
    if instance.try_number != try_number {
        return instance.try_number > try_number;
    }
    // An ended try rests in its number until the next one is claimed; a deferred or rescheduled one goes on.
    instance.state.is_finished() || matches!(instance.state, S::UpForRetry | S::None)
}

async fn say_followed(house: &House, instance: &TaskInstance) -> Result<(), MetastoreError> {
    let id = instance.id;
    transact(&*house.store, TxMode::Write, move |tx: &mut dyn Tx| {
        Box::pin(async move {
            let until = tx.now().await? + FOLLOWED_FOR;
            tx.follow_log(id, until).await
        })
    })
    .await
}
