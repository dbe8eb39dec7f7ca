use std::time::Duration;

/// Where the in-memory metastore asks what should go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// A transaction is about to begin.
    Begin,
    /// A statement is about to run.
    Statement {
        /// The transaction's number; they grow in the order of their beginnings.
        transaction: u64,
        /// The method of the port.
        name: &'static str,
    },
    /// A transaction is about to commit.
    Commit {
        /// The transaction's number.
        transaction: u64,
    },
}

/// What goes wrong at a [`FaultPoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The caller gives way once, so that others run first; then all is well.
    Yield,
    /// The answer takes so long on the clock; then all is well.
    Delay(Duration),
    /// The transaction loses against another one and is rolled back.
    Conflict,
    /// The connection breaks; the transaction is rolled back.
    Unavailable,
    /// A commit succeeds, but the connection breaks before the caller hears of it. Elsewhere the same as
    /// [`Fault::Unavailable`].
    AnswerLost,
}

/// Decides what goes wrong. Consulted before each beginning, statement and commit.
pub trait FaultHook: Send + Sync {
    /// What happens at `point`.
    fn at(&self, point: FaultPoint) -> Fault;
}

/// Nothing goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultHook for NoFaults {
    fn at(&self, _point: FaultPoint) -> Fault {
        Fault::None
    }
}
