use std::fmt;

/// Which part of a DAG an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DagPlace {
    /// The DAG's own attributes.
    Dag,
    /// A task, by id (or by position, `#3`, while its id is not known).
    Task(Box<str>),
    /// A task group, by id.
    TaskGroup(Box<str>),
}

impl fmt::Display for DagPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dag => f.write_str("the DAG"),
            Self::Task(id) => write!(f, "task {id:?}"),
            Self::TaskGroup(id) => write!(f, "task group {id:?}"),
        }
    }
}

/// Why a serialized DAG cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// A value is missing, or is not what the format has there.
    #[error("DAG {dag:?}: {place}: field {field:?}: expected {expected}, found {found}")]
    Malformed {
        /// The DAG, as far as it is known.
        dag: Box<str>,
        /// Where.
        place: DagPlace,
        /// The field.
        field: Box<str>,
        /// What would be right.
        expected: Box<str>,
        /// What is there.
        found: Box<str>,
    },
    /// The serialization's version is not one that this version reads.
    #[error(
        "serialized DAG has format version {found}; this version reads {readable}, as made by Airflow 3.3"
    )]
    Version {
        /// What it has.
        found: Box<str>,
        /// What is read.
        readable: i64,
    },
    /// Two tasks have one id.
    #[error("DAG {dag:?}: two tasks have the id {task:?}")]
    DuplicateTask {
        /// The DAG.
        dag: Box<str>,
        /// The id.
        task: Box<str>,
    },
    /// Something names a task that the DAG does not have.
    #[error("DAG {dag:?}: {place}: field {field:?} names task {missing:?}, which the DAG does not have")]
    UnknownTask {
        /// The DAG.
        dag: Box<str>,
        /// Who names it.
        place: DagPlace,
        /// In which field.
        field: Box<str>,
        /// The name.
        missing: Box<str>,
    },
    /// Tasks wait for each other in a circle.
    #[error("DAG {dag:?}: its tasks form a cycle: {}", tasks.join(" -> "))]
    Cycle {
        /// The DAG.
        dag: Box<str>,
        /// A circle, its first task repeated at its end.
        tasks: Vec<String>,
    },
}
