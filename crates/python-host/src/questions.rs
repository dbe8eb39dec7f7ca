//! Questions that only user code can answer: custom timetables and priority strategies.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::debug;

use crate::control::Kind;
use crate::messages::{FromTask, Reply};
use crate::{Answers, Error, Event, Host, NoAnswers};

/// A question to a class that a plugin of the bundle registers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// When does the DAG run next (`Timetable.next_dagrun_info_v2`)?
    NextRun {
        /// The serialized timetable, `{"__type": …, "__var": …}`.
        timetable: Value,
        /// The last scheduled run.
        last: Option<RunInfo>,
        /// The DAG's start.
        earliest: Option<DateTime<Utc>>,
        /// The DAG's end.
        latest: Option<DateTime<Utc>>,
        /// Whether missed runs are made up for.
        catchup: bool,
    },
    /// What does a run triggered by hand cover (`Timetable.infer_manual_data_interval`)?
    ManualInterval {
        /// The serialized timetable.
        timetable: Value,
        /// When the run may begin.
        run_after: DateTime<Utc>,
    },
    /// Which priority has a task instance (`PriorityWeightStrategy.get_weight`)?
    Weight {
        /// Dotted path of the strategy, as it stands in `weight_rule`.
        strategy: String,
        /// The serialized DAG, from which the strategy sees the task.
        dag: Value,
        /// Attributes that the strategy may read: `task_id`, `try_number`, `max_tries`, `map_index`, …
        ti: Value,
    },
}

/// A data interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Its start.
    pub start: DateTime<Utc>,
    /// Its end.
    pub end: DateTime<Utc>,
}

/// When a run may begin, and what it covers (`airflow/timetables/base.py: DagRunInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The earliest time of the run.
    pub run_after: DateTime<Utc>,
    /// The data interval; none for partitioned runs.
    pub data_interval: Option<Interval>,
    /// The partition.
    #[serde(default)]
    pub partition_key: Option<String>,
    /// The partition's date.
    #[serde(default)]
    pub partition_date: Option<DateTime<Utc>>,
}

/// A run that a timetable proposes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NextRun {
    /// When and what.
    #[serde(flatten)]
    pub info: RunInfo,
    /// The id that the timetable gives to a scheduled run (`Timetable.generate_run_id`).
    pub run_id: String,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Question::NextRun`]; `None` for no further run now.
    NextRun(Option<NextRun>),
    /// To [`Question::ManualInterval`].
    Interval(Option<Interval>),
    /// To [`Question::Weight`].
    Weight(i64),
    /// User code raised, or no plugin registers the class: a traceback.
    Failed(String),
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    told: Value,
    error: Option<String>,
}

impl Host {
    /// Asks user code, in a child that has loaded the bundle's plugins. The answers are in the questions' order.
    ///
    /// # Errors
    /// As [`Host::spawn_task`], and [`Error::ChildFailed`] where the child ended without answers or exceeded the limit.
    pub async fn ask(
        &self,
        bundle_path: &Path,
        bundle_name: &str,
        questions: &[Question],
        limit: Duration,
    ) -> Result<Vec<Answer>, Error> {
        let order = json!({"type": "GustAsk", "questions": questions});
        let env = std::collections::BTreeMap::new();
        let mut child = self.spawn(Kind::Questions, bundle_path, bundle_name, "", env, Some(&order)).await?;
        let answers = async {
            while let Some(event) = child.next_event().await {
                match event {
                    Event::Request(request) => {
                        if let FromTask::Unknown { kind, raw, .. } = &request.body
                            && kind == "GustAnswers"
                        {
                            let answers = read(questions, raw);
                            drop(child.reply(request.id, Reply::Empty).await);
                            return answers;
                        }
                        let reply = NoAnswers.answer(&request.body).await;
                        drop(child.reply(request.id, reply).await);
                    }
                    Event::Log(line) => NoAnswers.log(&line),
                    Event::Stdout(bytes) | Event::Stderr(bytes) => {
                        debug!(target: "gust_python_host::child", "{}", String::from_utf8_lossy(&bytes));
                    }
                    Event::Broken(problem) => return Err(problem),
                    Event::Exited(ended) => {
                        return Err(Error::ChildFailed(format!(
                            "it ended without answers: {:?}",
                            ended.exit
                        )));
                    }
                }
            }
            Err(Error::ChildFailed("it ended without answers".into()))
        };
        tokio::time::timeout(limit, answers).await.unwrap_or_else(|_| {
            Err(Error::ChildFailed(format!("no answers within {} s", limit.as_secs_f64())))
        })
    }
}

fn read(questions: &[Question], raw: &Value) -> Result<Vec<Answer>, Error> {
    let malformed = |problem: serde_json::Error| Error::MalformedFrame(problem.to_string());
    let told: Vec<Told> = Vec::deserialize(&raw["answers"]).map_err(malformed)?;
    if told.len() != questions.len() {
        return Err(Error::MalformedFrame(format!(
            "{} answers to {} questions",
            told.len(),
            questions.len()
        )));
    }
    questions
        .iter()
        .zip(told)
        .map(|(question, Told { told, error })| {
            if let Some(error) = error {
                return Ok(Answer::Failed(error));
            }
            Ok(match question {
                Question::NextRun { .. } => Answer::NextRun(serde_json::from_value(told).map_err(malformed)?),
                Question::ManualInterval { .. } => {
                    Answer::Interval(serde_json::from_value(told).map_err(malformed)?)
                }
                Question::Weight { .. } => Answer::Weight(serde_json::from_value(told).map_err(malformed)?),
            })
        })
        .collect()
}
