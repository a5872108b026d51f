//! A fault: when it is injected, and its effect.

use super::points::Point;
use crate::chaos::application::gates::Edge;

/// The part of the scenario in which a fault is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A tick, a backup, and its commit.
    Backup,
    /// The node's loss without warning, and its replacement's restore.
    Loss,
    /// A planned replacement, with the node's final backup.
    Planned,
}

/// A fault in an answer of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Answer {
    /// 500 `InternalError`.
    Internal,
    /// 503 `SlowDown`.
    SlowDown,
    /// 200, with an error in the body.
    OkWithError,
    /// No byte, for a while.
    Stall,
    /// The connection is reset.
    Reset,
    /// The right answer with another `ETag`.
    WrongETag,
}

/// How a function ends during an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// Its process is killed.
    Killed,
    /// Its Lambda timeout passes.
    TimedOut,
}

/// A fault's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// S3's answer is faulty.
    Answer(Point, S3Answer),
    /// The service throttles the call.
    Throttle(Point),
    /// The caller ends at the request.
    Terminate(Point, Termination),
    /// The agent is killed at the nth start or exit of a program.
    Child(&'static str, Edge, u32),
    /// The agent is killed after a log line that contains this text.
    Line(&'static str),
    /// A program of this name is killed.
    Program(&'static str),
    /// Postgres is killed when this request is made.
    Server(Point),
    /// The node loses its power when this request is made.
    Power(Point),
    /// An object of the newest backup is truncated at some percent, at rest.
    Truncate(&'static str),
    /// One bit of an object of the newest backup is flipped, at rest.
    Flip(&'static str),
    /// An object of the newest backup is swapped with that of an older backup.
    Swap(&'static str),
    /// An object is truncated between its upload and its commit.
    TruncateBeforeCommit(&'static str),
    /// Events of this kind are lost, doubled, late or reordered.
    Event(&'static str, EventFault),
    /// The agent's clock is wrong by this number of minutes.
    Skew(i64),
    /// The agent's disk is full when this request is made.
    DiskOfAgent(Point),
    /// The disk of Postgres is full when this request is made.
    DiskOfPostgres(Point),
    /// A session holds a table's lock.
    Locked,
    /// Sessions keep connecting to the databases that a restore swaps.
    Sessions,
    /// The backup's globals lack a role that owns a database.
    Role,
    /// The new node has no directory for a tablespace.
    Tablespace,
    /// The new node lacks an extension.
    Extension,
    /// The SSM agent registers late.
    AgentLate,
    /// The SSM agent never registers.
    AgentNever,
    /// The hook expires when this request is made.
    HookExpired(Point),
}

/// A fault in the delivery of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFault {
    /// The next one is lost.
    Lost,
    /// Each is delivered twice.
    Doubled,
    /// Each is delivered late.
    Late,
    /// They are delivered in reverse order.
    Reordered,
}

/// One fault of the list.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its name in the report and for `--only`.
    pub name: String,
    /// Its heading in the report.
    pub section: &'static str,
    /// The part of the scenario.
    pub scenario: Scenario,
    /// Whether it needs a dump that is uploaded in parts.
    pub large: bool,
    /// A fault's effect.
    pub action: Action,
}
