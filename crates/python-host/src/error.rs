//! What can go wrong between Rust and its Python children.

use std::path::PathBuf;

/// Errors of this crate. Each says what was tried and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation of the operating system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path or process where there is one.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A frame announced more bytes than may be taken.
    #[error("a frame of {size} bytes is over the limit of {limit} bytes")]
    FrameTooLarge {
        /// Announced size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes of a frame are not what the protocol says.
    #[error("malformed frame: {0}")]
    MalformedFrame(String),
    /// The zygote did not come up; holds the end of its stderr.
    #[error("the Python zygote ({python}) did not start: {reason}")]
    ZygoteStart {
        /// The interpreter.
        python: PathBuf,
        /// Its last words, or what was waited for.
        reason: String,
    },
    /// The zygote could not fork a child.
    #[error("the Python zygote could not start a child: {0}")]
    Fork(String),
    /// The zygote ended while it was asked for something. The next request starts a new one.
    #[error("the Python zygote ended")]
    ZygoteGone,
    /// The child has ended and takes no replies any more.
    #[error("the child has ended")]
    ChildGone,
    /// The interpreter lacks the pinned Airflow packages or has others.
    #[error(
        "{python} cannot run tasks: {found}. Needed are apache-airflow-task-sdk=={sdk} and \
         apache-airflow-core=={core}; install them there with `pip install --require-hashes -r {lock}`, or leave \
         the interpreter's choice to Gust"
    )]
    WrongEnvironment {
        /// The interpreter.
        python: PathBuf,
        /// What is there instead.
        found: String,
        /// Needed version of the task SDK.
        sdk: &'static str,
        /// Needed version of Airflow's core.
        core: &'static str,
        /// The lock file that installs them.
        lock: PathBuf,
    },
    /// No interpreter was found from which an environment could be made.
    #[error("no Python {0} was found on PATH; install one, or name an interpreter with --python PATH")]
    NoPython(&'static str),
    /// Making the environment failed; holds the end of pip's output.
    #[error("installing the Python environment failed at `{step}`:\n{output}")]
    Install {
        /// The command.
        step: String,
        /// The end of its output.
        output: String,
    },
    /// A child that answers questions (parser, triggerer) broke off.
    #[error("the Python child ended early: {0}")]
    ChildFailed(String),
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
