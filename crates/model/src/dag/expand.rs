//! What a mapped task or task group is mapped over (`airflow/models/expandinput.py`,
//! `airflow/serialization/definitions/xcom_arg.py`).

use serde_json::Value;

use super::{
    TaskIndex,
    reader::{kind_of, untyped},
};

/// A value that is known once its tasks have run.
#[derive(Debug, Clone, PartialEq)]
pub enum XComArg {
    /// What a task left under a key.
    Plain {
        /// The task.
        task: TaskIndex,
        /// The key.
        key: String,
    },
    /// Another one, each item put through functions.
    Map(Box<Self>),
    /// Others, item by item.
    Zip {
        /// The others.
        args: Vec<Self>,
        /// Whether shorter ones are filled up, so that the longest counts rather than the shortest.
        is_filled: bool,
    },
    /// Others, one after the other.
    Concat(Vec<Self>),
}

impl XComArg {
    /// Calls `visit` for each task whose value this needs, in order, repeated as written.
    pub fn visit_tasks(&self, visit: &mut impl FnMut(TaskIndex)) {
        match self {
            Self::Plain { task, .. } => visit(*task),
            Self::Map(arg) => arg.visit_tasks(visit),
            Self::Zip { args, .. } | Self::Concat(args) => {
                for arg in args {
                    arg.visit_tasks(visit);
                }
            }
        }
    }

    /// How many items it has, when `length_of` says how many each task's value has; `None` if one is not known.
    pub fn length<E>(
        &self,
        length_of: &mut impl FnMut(TaskIndex) -> Result<Option<u64>, E>,
    ) -> Result<Option<u64>, E> {
        match self {
            Self::Plain { task, .. } => length_of(*task),
            Self::Map(arg) => arg.length(length_of),
            Self::Zip { args, is_filled } => {
                let lengths = lengths(args, length_of)?;
                Ok(lengths
                    .and_then(|all| if *is_filled { all.into_iter().max() } else { all.into_iter().min() }))
            }
            Self::Concat(args) => {
                Ok(lengths(args, length_of)?.map(|all| all.into_iter().fold(0, u64::saturating_add)))
            }
        }
    }
}

/// The lengths of all, or `None` if one is not known. All are asked, so that one round of questions tells all.
fn lengths<E>(
    args: &[XComArg],
    length_of: &mut impl FnMut(TaskIndex) -> Result<Option<u64>, E>,
) -> Result<Option<Vec<u64>>, E> {
    let answers: Vec<_> = args.iter().map(|arg| arg.length(length_of)).collect();
    answers.into_iter().collect()
}

/// One argument of `expand`.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpandArgument {
    /// A list or dict in the file, with its length.
    Literal(u64),
    /// The value of other tasks.
    XCom(XComArg),
}

/// What `expand` or `expand_kwargs` was given.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpandInput {
    /// `expand(name=…)`: every combination.
    DictOfLists(Vec<(String, ExpandArgument)>),
    /// `expand_kwargs(…)`: one item each.
    ListOfDicts(ExpandArgument),
}

impl ExpandInput {
    /// The tasks whose values it needs, sorted, each once.
    #[must_use]
    pub fn dependencies(&self) -> Vec<TaskIndex> {
        let mut tasks = Vec::new();
        let mut visit = |argument: &ExpandArgument| {
            if let ExpandArgument::XCom(arg) = argument {
                arg.visit_tasks(&mut |task| tasks.push(task));
            }
        };
        match self {
            Self::DictOfLists(arguments) => arguments.iter().for_each(|(_, argument)| visit(argument)),
            Self::ListOfDicts(argument) => visit(argument),
        }
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// How many instances it makes, when `length_of` says how many items each task's value has; `None` while one of
    /// them is not known.
    pub fn length<E>(
        &self,
        length_of: &mut impl FnMut(TaskIndex) -> Result<Option<u64>, E>,
    ) -> Result<Option<u64>, E> {
        let mut one = |argument: &ExpandArgument| match argument {
            ExpandArgument::Literal(length) => Ok(Some(*length)),
            ExpandArgument::XCom(arg) => arg.length(length_of),
        };
        match self {
            Self::DictOfLists(arguments) if arguments.is_empty() => Ok(Some(0)),
            Self::DictOfLists(arguments) => {
                let answers: Vec<_> = arguments.iter().map(|(_, argument)| one(argument)).collect();
                let lengths: Option<Vec<u64>> = answers.into_iter().collect::<Result<_, E>>()?;
                Ok(lengths.map(|all| all.into_iter().fold(1, u64::saturating_mul)))
            }
            Self::ListOfDicts(argument) => one(argument),
        }
    }

    /// Reads the serialized form; `task_of` finds a task by id. The error says what was expected.
    pub(super) fn read(
        value: &Value,
        task_of: &impl Fn(&str) -> Option<TaskIndex>,
    ) -> Result<Self, ExpandError> {
        let inner = value.get("value").ok_or(ExpandError::Expected("an object with type and value"))?;
        match value.get("type").and_then(Value::as_str) {
            Some("dict-of-lists") => {
                let object = untyped(inner, "dict")
                    .as_object()
                    .ok_or(ExpandError::Expected("an object of arguments"))?;
                let mut arguments = Vec::with_capacity(object.len());
                for (name, argument) in object {
                    arguments.push((name.clone(), read_argument(argument, task_of)?));
                }
                Ok(Self::DictOfLists(arguments))
            }
            Some("list-of-dicts") => Ok(Self::ListOfDicts(read_argument(inner, task_of)?)),
            _ => Err(ExpandError::Expected("type dict-of-lists or list-of-dicts")),
        }
    }
}

/// Why an expand input cannot be read.
pub(super) enum ExpandError {
    Expected(&'static str),
    UnknownTask(String),
}

fn read_argument(
    value: &Value,
    task_of: &impl Fn(&str) -> Option<TaskIndex>,
) -> Result<ExpandArgument, ExpandError> {
    const EXPECTED: ExpandError =
        ExpandError::Expected("a list, a dict, or a reference to other tasks' values");
    let inner = value.get("__var");
    match (kind_of(value), inner) {
        (Some("xcomref"), Some(inner)) => read_xcom_arg(inner, task_of).map(ExpandArgument::XCom),
        (Some("dict"), Some(Value::Object(items))) => Ok(ExpandArgument::Literal(items.len() as u64)),
        (Some("tuple" | "set" | "frozenset"), Some(Value::Array(items))) => {
            Ok(ExpandArgument::Literal(items.len() as u64))
        }
        (None, _) => match value {
            Value::Array(items) => Ok(ExpandArgument::Literal(items.len() as u64)),
            Value::Object(items) => Ok(ExpandArgument::Literal(items.len() as u64)),
            _ => Err(EXPECTED),
        },
        _ => Err(EXPECTED),
    }
}

fn read_xcom_arg(
    value: &Value,
    task_of: &impl Fn(&str) -> Option<TaskIndex>,
) -> Result<XComArg, ExpandError> {
    let read_all = || -> Result<Vec<XComArg>, ExpandError> {
        value
            .get("args")
            .and_then(Value::as_array)
            .ok_or(ExpandError::Expected("args with a list of references"))?
            .iter()
            .map(|arg| read_xcom_arg(arg, task_of))
            .collect()
    };
    match value.get("type").and_then(Value::as_str).unwrap_or("") {
        "" => {
            let task_id =
                value.get("task_id").and_then(Value::as_str).ok_or(ExpandError::Expected("a task_id"))?;
            let task = task_of(task_id).ok_or_else(|| ExpandError::UnknownTask(task_id.to_owned()))?;
            let key = value.get("key").and_then(Value::as_str).unwrap_or("return_value").to_owned();
            Ok(XComArg::Plain { task, key })
        }
        "map" => {
            let arg = value.get("arg").ok_or(ExpandError::Expected("arg of a map"))?;
            Ok(XComArg::Map(Box::new(read_xcom_arg(arg, task_of)?)))
        }
        "zip" => Ok(XComArg::Zip {
            args: read_all()?,
            is_filled: value.get("fillvalue").is_some_and(|fill| kind_of(fill) != Some("arg_not_set")),
        }),
        "concat" => Ok(XComArg::Concat(read_all()?)),
        _ => Err(ExpandError::Expected("a reference of type map, zip or concat, or a plain one")),
    }
}
