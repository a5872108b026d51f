//! Everything that a full run does to the system, each at least once.

use super::gates::Edge;
use super::points::{
    BACKUP_CALLS, BACKUP_CHILDREN, BACKUP_LINES, BACKUP_STORAGE, FINAL_CALLS, LARGE_STORAGE,
    LOSS_CALLS, Point, RESTORE_CALLS, RESTORE_CHILDREN, RESTORE_LINES, RESTORE_STORAGE, named,
    names_etag, point,
};
use super::tap::Caller::{Agent, Backup, Restore};

/// The part of the story in which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A tick, a backup, and its commit.
    Backup,
    /// The node's loss without warning, and its replacement's restore.
    Loss,
    /// A planned replacement, with the node's final backup.
    Planned,
}

/// What S3 answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 500 `InternalError`.
    Internal,
    /// 503 `SlowDown`.
    SlowDown,
    /// 200, with an error in the body.
    OkWithError,
    /// Nothing, for a while.
    Stall,
    /// The connection ends.
    Reset,
    /// What was asked for, under another `ETag`.
    WrongETag,
}

/// How a function ends in the middle of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its process is killed.
    Killed,
    /// Lambda's time for it is over.
    TimedOut,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// S3 answers so.
    Answer(Point, Answer),
    /// The service refuses the call as one too many.
    Throttle(Point),
    /// Whoever makes the request ends with it.
    End(Point, End),
    /// The agent is killed at the nth start or exit of a program.
    Child(&'static str, Edge, u32),
    /// The agent is killed behind a log line with these words.
    Line(&'static str),
    /// A program of this name is killed.
    Program(&'static str),
    /// Postgres is killed when this request is made.
    Server(Point),
    /// The node's power goes when this request is made.
    Power(Point),
    /// An object of the newest backup is cut off at some percent, at rest.
    Truncate(&'static str),
    /// One bit of an object of the newest backup is turned, at rest.
    Flip(&'static str),
    /// An object of the newest backup changes places with that of an older one.
    Swap(&'static str),
    /// An object is cut off between its upload and its commit.
    CutBeforeCommit(&'static str),
    /// Events of this kind are lost, doubled, late or reordered.
    Event(&'static str, Mishap),
    /// The agent's clock is wrong by so many minutes.
    Skew(i64),
    /// The agent's disk is full when this request is made.
    DiskOfAgent(Point),
    /// The disk of Postgres is full when this request is made.
    DiskOfPostgres(Point),
    /// A session holds a table's lock.
    Locked,
    /// Sessions hold on to the databases that a restore puts in place, and come back.
    Sessions,
    /// The backup's globals lack a role that owns a database.
    Role,
    /// The new node has no directory for a tablespace.
    Tablespace,
    /// The new node lacks an extension.
    Extension,
    /// The SSM agent registers late.
    AgentLate,
    /// It never does.
    AgentNever,
    /// The hook's time is over when this request is made.
    HookExpired(Point),
}

/// What happens to events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The next one is lost.
    Lost,
    /// Each comes twice.
    Doubled,
    /// Each comes late.
    Late,
    /// They come in the reverse order.
    Reordered,
}

/// One thing that goes wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What it is called in the table, and by `--only`.
    pub name: String,
    /// The heading that it stands under.
    pub section: &'static str,
    /// When it strikes.
    pub story: Story,
    /// Whether the dump has to be uploaded in parts for it.
    pub large: bool,
    /// What is done.
    pub deed: Deed,
}

const ANSWERS: [(Answer, &str); 6] = [
    (Answer::Internal, "500"),
    (Answer::SlowDown, "503 SlowDown"),
    (Answer::OkWithError, "200 with an error"),
    (Answer::Stall, "a stall"),
    (Answer::Reset, "a reset"),
    (Answer::WrongETag, "a wrong ETag"),
];

const OBJECTS: [&str; 6] = [
    "dump 0",
    "dump 1",
    "globals",
    "configuration",
    "contents",
    "index",
];

/// What SSM tells when the state of a command on an instance changes.
pub(super) const INVOCATION_CHANGE: &str = "EC2 Command Invocation Status-change Notification";

/// Events whose delivery may fail, and when they come.
const EVENTS: &[(&str, Story)] = &[
    (INVOCATION_CHANGE, Story::Backup),
    (INVOCATION_CHANGE, Story::Loss),
    ("EC2 Instance-launch Lifecycle Action", Story::Loss),
    ("EC2 Instance-terminate Lifecycle Action", Story::Planned),
];

const DUMP_READ: Point = point(Agent, "GetObject", "dump 1");
const PART_SENT: Point = point(Agent, "UploadPart", "dump 1");
const INDEX_PUT: Point = point(Agent, "PutObject", "index");

/// Returns the whole list.
pub fn all() -> Vec<Fault> {
    let mut list = List(Vec::new());
    list.storage();
    list.calls();
    list.kill_points();
    list.damage();
    list.surroundings();
    list.0
}

struct List(Vec<Fault>);

impl List {
    fn add(&mut self, section: &'static str, story: Story, name: &str, deed: Deed) {
        let large = match deed {
            Deed::Answer(point, _) | Deed::End(point, _) => LARGE_STORAGE.contains(&point),
            Deed::Server(point) => point == PART_SENT,
            _ => false,
        };
        let name = format!("{}: {name}", word(story));
        self.0.push(Fault {
            name,
            section,
            story,
            large,
            deed,
        });
    }

    fn storage(&mut self) {
        let section = "S3 answers";
        let stories = [
            (Story::Backup, BACKUP_STORAGE),
            (Story::Backup, LARGE_STORAGE),
            (Story::Loss, RESTORE_STORAGE),
        ];
        for (answer, words) in ANSWERS {
            for (story, points) in stories {
                for point in points {
                    if answer == Answer::WrongETag && !names_etag(point.operation) {
                        continue;
                    }
                    let name = format!("{words} to {}", named(point));
                    self.add(section, story, &name, Deed::Answer(*point, answer));
                }
            }
        }
    }

    fn calls(&mut self) {
        let stories = [
            (Story::Backup, Backup, BACKUP_CALLS),
            (Story::Loss, Restore, RESTORE_CALLS),
            (Story::Loss, Backup, LOSS_CALLS),
            (Story::Planned, Backup, FINAL_CALLS),
        ];
        for (story, caller, calls) in stories {
            for call in calls {
                let point = point(caller, call, "");
                let name = format!("{} throttled", named(&point));
                self.add("APIs throttled", story, &name, Deed::Throttle(point));
            }
            let storage: &[Point] = match story {
                Story::Backup => BACKUP_STORAGE,
                Story::Loss => RESTORE_STORAGE,
                Story::Planned => &[],
            };
            let own = storage.iter().filter(|one| one.caller == caller).copied();
            let calls = calls.iter().map(|call| point(caller, call, ""));
            for point in calls.chain(own) {
                for (end, words) in [(End::Killed, "killed"), (End::TimedOut, "timed out")] {
                    let name = format!("{words} at {}", named(&point));
                    let section = match end {
                        End::Killed => "functions killed",
                        End::TimedOut => "functions timed out",
                    };
                    self.add(section, story, &name, Deed::End(point, end));
                }
            }
        }
    }

    fn kill_points(&mut self) {
        let stories = [
            (Story::Backup, BACKUP_STORAGE, BACKUP_CHILDREN, BACKUP_LINES),
            (
                Story::Loss,
                RESTORE_STORAGE,
                RESTORE_CHILDREN,
                RESTORE_LINES,
            ),
            (Story::Backup, LARGE_STORAGE, &[], &[]),
        ];
        for (story, points, children, lines) in stories {
            let own = |point: &&Point| {
                point.caller == Agent
                    && point.object != "agent"
                    && point.operation != "AbortMultipartUpload"
            };
            for point in points.iter().filter(own) {
                let name = format!("agent killed at {}", named(point));
                self.add("agent killed", story, &name, Deed::End(*point, End::Killed));
            }
            for (program, count) in children {
                for nth in 1..=*count {
                    for edge in [Edge::Start, Edge::Exit] {
                        let name = format!("agent killed at {} {nth} of {program}", edge.word());
                        self.add(
                            "agent killed",
                            story,
                            &name,
                            Deed::Child(program, edge, nth),
                        );
                    }
                }
            }
            for words in lines {
                let plain = words.replace('"', "");
                let name = format!("agent killed at the line {plain}");
                self.add("agent killed", story, &name, Deed::Line(words));
            }
        }
        let section = "programs killed";
        for (program, story) in [
            ("pg_dump", Story::Backup),
            ("pg_dumpall", Story::Backup),
            ("pg_restore", Story::Backup),
            ("pg_restore", Story::Loss),
            ("psql", Story::Loss),
        ] {
            self.add(
                section,
                story,
                &format!("{program} killed"),
                Deed::Program(program),
            );
        }
        for (story, point) in [(Story::Backup, PART_SENT), (Story::Loss, DUMP_READ)] {
            let name = format!("Postgres killed at {}", named(&point));
            self.add(section, story, &name, Deed::Server(point));
        }
        for (story, point) in [
            (Story::Loss, DUMP_READ),
            (Story::Planned, point(Agent, "PutObject", "globals")),
        ] {
            let name = format!("power lost at {}", named(&point));
            self.add(section, story, &name, Deed::Power(point));
        }
    }

    fn damage(&mut self) {
        let section = "objects damaged";
        for object in OBJECTS {
            let name = format!("{object} truncated");
            self.add(section, Story::Loss, &name, Deed::Truncate(object));
            let name = format!("a bit of {object} flipped");
            self.add(section, Story::Loss, &name, Deed::Flip(object));
            let name = format!("{object} swapped with another backup's");
            self.add(section, Story::Loss, &name, Deed::Swap(object));
            let name = format!("{object} truncated before its commit");
            self.add(section, Story::Backup, &name, Deed::CutBeforeCommit(object));
        }
        let name = "manifest truncated";
        self.add(section, Story::Loss, name, Deed::Truncate("manifest"));
    }

    fn surroundings(&mut self) {
        for (event, story) in EVENTS {
            for (mishap, word) in [
                (Mishap::Lost, "lost"),
                (Mishap::Doubled, "doubled"),
                (Mishap::Late, "late"),
                (Mishap::Reordered, "reordered"),
            ] {
                let name = format!("{event} {word}");
                self.add("events", *story, &name, Deed::Event(event, mishap));
            }
        }
        let section = "surroundings";
        for story in [Story::Backup, Story::Loss] {
            for (minutes, words) in [
                (-300, "5 hours behind"),
                (300, "5 hours ahead"),
                (-10, "10 minutes behind"),
                (10, "10 minutes ahead"),
            ] {
                let name = format!("the agent's clock {words}");
                self.add(section, story, &name, Deed::Skew(minutes));
            }
        }
        let loss: [(&str, Deed); 9] = [
            ("the disk of Postgres full", Deed::DiskOfPostgres(DUMP_READ)),
            ("the agent's disk full", Deed::DiskOfAgent(DUMP_READ)),
            ("live sessions during the swap", Deed::Sessions),
            ("a role missing", Deed::Role),
            ("a tablespace missing", Deed::Tablespace),
            ("an extension missing", Deed::Extension),
            ("the SSM agent late", Deed::AgentLate),
            ("the SSM agent never there", Deed::AgentNever),
            ("the launch hook expired", Deed::HookExpired(DUMP_READ)),
        ];
        for (name, deed) in loss {
            self.add(section, Story::Loss, name, deed);
        }
        for (name, deed) in [
            ("a table locked", Deed::Locked),
            ("the agent's disk full", Deed::DiskOfAgent(INDEX_PUT)),
        ] {
            self.add(section, Story::Backup, name, deed);
        }
        let expired = Deed::HookExpired(INDEX_PUT);
        self.add(
            section,
            Story::Planned,
            "the terminate hook expired",
            expired,
        );
    }
}

fn word(story: Story) -> &'static str {
    match story {
        Story::Backup => "backup",
        Story::Loss => "restore",
        Story::Planned => "replacement",
    }
}
