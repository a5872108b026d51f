//! The list of faults. A full run injects each at least once.

use super::fault::{Action, EventFault, Fault, S3Answer, Scenario, Termination};
use super::points::{
    BACKUP_CALLS, BACKUP_CHILDREN, BACKUP_LINES, BACKUP_STORAGE, FINAL_CALLS, LARGE_STORAGE,
    LOSS_CALLS, Point, RESTORE_CALLS, RESTORE_CHILDREN, RESTORE_LINES, RESTORE_STORAGE, named,
    names_etag, point,
};
use crate::chaos::application::gates::Edge;
use crate::chaos::application::interceptor::Caller::{Agent, Backup, Restore};
use crate::standin::ssm::INVOCATION_CHANGE;

const ANSWERS: [(S3Answer, &str); 6] = [
    (S3Answer::Internal, "500"),
    (S3Answer::SlowDown, "503 SlowDown"),
    (S3Answer::OkWithError, "200 with an error"),
    (S3Answer::Stall, "a stall"),
    (S3Answer::Reset, "a connection reset"),
    (S3Answer::WrongETag, "a wrong ETag"),
];

const OBJECTS: [&str; 6] = [
    "dump 0",
    "dump 1",
    "globals",
    "configuration",
    "contents",
    "index",
];

/// The events with delivery faults, and the part of the scenario in which they occur.
const EVENTS: &[(&str, Scenario)] = &[
    (INVOCATION_CHANGE, Scenario::Backup),
    (INVOCATION_CHANGE, Scenario::Loss),
    ("EC2 Instance-launch Lifecycle Action", Scenario::Loss),
    ("EC2 Instance-terminate Lifecycle Action", Scenario::Planned),
];

const DUMP_READ: Point = point(Agent, "GetObject", "dump 1");
const PART_SENT: Point = point(Agent, "UploadPart", "dump 1");
const INDEX_PUT: Point = point(Agent, "PutObject", "index");

/// Returns every fault.
pub fn all() -> Vec<Fault> {
    let mut list = List(Vec::new());
    list.storage();
    list.calls();
    list.kill_points();
    list.programs();
    list.damage();
    list.environment();
    list.0
}

struct List(Vec<Fault>);

impl List {
    fn add(&mut self, section: &'static str, scenario: Scenario, name: &str, action: Action) {
        let large = match action {
            Action::Answer(point, _) | Action::Terminate(point, _) => {
                LARGE_STORAGE.contains(&point)
            }
            Action::Server(point) => point == PART_SENT,
            _ => false,
        };
        let name = format!("{}: {name}", part_name(scenario));
        self.0.push(Fault {
            name,
            section,
            scenario,
            large,
            action,
        });
    }

    fn storage(&mut self) {
        let section = "S3 answers";
        let scenarios = [
            (Scenario::Backup, BACKUP_STORAGE),
            (Scenario::Backup, LARGE_STORAGE),
            (Scenario::Loss, RESTORE_STORAGE),
        ];
        for (answer, text) in ANSWERS {
            for (scenario, points) in scenarios {
                for point in points {
                    if answer == S3Answer::WrongETag && !names_etag(point.operation) {
                        continue;
                    }
                    let name = format!("{text} to {}", named(point));
                    self.add(section, scenario, &name, Action::Answer(*point, answer));
                }
            }
        }
    }

    fn calls(&mut self) {
        let scenarios = [
            (Scenario::Backup, Backup, BACKUP_CALLS),
            (Scenario::Loss, Restore, RESTORE_CALLS),
            (Scenario::Loss, Backup, LOSS_CALLS),
            (Scenario::Planned, Backup, FINAL_CALLS),
        ];
        for (scenario, caller, calls) in scenarios {
            for call in calls {
                let point = point(caller, call, "");
                let name = format!("{} throttled", named(&point));
                self.add("APIs throttled", scenario, &name, Action::Throttle(point));
            }
            let storage: &[Point] = match scenario {
                Scenario::Backup => BACKUP_STORAGE,
                Scenario::Loss => RESTORE_STORAGE,
                Scenario::Planned => &[],
            };
            let own = storage.iter().filter(|one| one.caller == caller).copied();
            let calls = calls.iter().map(|call| point(caller, call, ""));
            for point in calls.chain(own) {
                for (end, text) in [
                    (Termination::Killed, "killed"),
                    (Termination::TimedOut, "timed out"),
                ] {
                    let name = format!("{text} at {}", named(&point));
                    let section = match end {
                        Termination::Killed => "functions killed",
                        Termination::TimedOut => "functions timed out",
                    };
                    self.add(section, scenario, &name, Action::Terminate(point, end));
                }
            }
        }
    }

    fn kill_points(&mut self) {
        let scenarios = [
            (
                Scenario::Backup,
                BACKUP_STORAGE,
                BACKUP_CHILDREN,
                BACKUP_LINES,
            ),
            (
                Scenario::Loss,
                RESTORE_STORAGE,
                RESTORE_CHILDREN,
                RESTORE_LINES,
            ),
            (Scenario::Backup, LARGE_STORAGE, &[], &[]),
        ];
        for (scenario, points, children, lines) in scenarios {
            let own = |point: &&Point| {
                point.caller == Agent
                    && point.object != "agent"
                    && point.operation != "AbortMultipartUpload"
            };
            for point in points.iter().filter(own) {
                let name = format!("agent killed at {}", named(point));
                self.add(
                    "agent killed",
                    scenario,
                    &name,
                    Action::Terminate(*point, Termination::Killed),
                );
            }
            for (program, count) in children {
                for nth in 1..=*count {
                    for edge in [Edge::Start, Edge::Exit] {
                        let name = format!("agent killed at {} {nth} of {program}", edge.name());
                        self.add(
                            "agent killed",
                            scenario,
                            &name,
                            Action::Child(program, edge, nth),
                        );
                    }
                }
            }
            for text in lines {
                let plain = text.replace('"', "");
                let name = format!("agent killed at the line {plain}");
                self.add("agent killed", scenario, &name, Action::Line(text));
            }
        }
    }

    fn programs(&mut self) {
        let section = "programs killed";
        for (program, scenario) in [
            ("pg_dump", Scenario::Backup),
            ("pg_dumpall", Scenario::Backup),
            ("pg_restore", Scenario::Backup),
            ("pg_restore", Scenario::Loss),
            ("psql", Scenario::Loss),
        ] {
            self.add(
                section,
                scenario,
                &format!("{program} killed"),
                Action::Program(program),
            );
        }
        for (scenario, point) in [(Scenario::Backup, PART_SENT), (Scenario::Loss, DUMP_READ)] {
            let name = format!("Postgres killed at {}", named(&point));
            self.add(section, scenario, &name, Action::Server(point));
        }
        for (scenario, point) in [
            (Scenario::Loss, DUMP_READ),
            (Scenario::Planned, point(Agent, "PutObject", "globals")),
        ] {
            let name = format!("power lost at {}", named(&point));
            self.add(section, scenario, &name, Action::Power(point));
        }
    }

    fn damage(&mut self) {
        let section = "objects damaged";
        for object in OBJECTS {
            let name = format!("{object} truncated");
            self.add(section, Scenario::Loss, &name, Action::Truncate(object));
            let name = format!("a bit of {object} flipped");
            self.add(section, Scenario::Loss, &name, Action::Flip(object));
            let name = format!("{object} swapped with another backup's");
            self.add(section, Scenario::Loss, &name, Action::Swap(object));
            let name = format!("{object} truncated before its commit");
            self.add(
                section,
                Scenario::Backup,
                &name,
                Action::TruncateBeforeCommit(object),
            );
        }
        let name = "manifest truncated";
        self.add(section, Scenario::Loss, name, Action::Truncate("manifest"));
    }

    fn environment(&mut self) {
        for (event, scenario) in EVENTS {
            for (fault, word) in [
                (EventFault::Lost, "lost"),
                (EventFault::Doubled, "doubled"),
                (EventFault::Late, "late"),
                (EventFault::Reordered, "reordered"),
            ] {
                let name = format!("{event} {word}");
                self.add("events", *scenario, &name, Action::Event(event, fault));
            }
        }
        let section = "environment";
        for scenario in [Scenario::Backup, Scenario::Loss] {
            for (minutes, text) in [
                (-300, "5 hours behind"),
                (300, "5 hours ahead"),
                (-10, "10 minutes behind"),
                (10, "10 minutes ahead"),
            ] {
                let name = format!("the agent's clock {text}");
                self.add(section, scenario, &name, Action::Skew(minutes));
            }
        }
        let loss: [(&str, Action); 9] = [
            (
                "the disk of Postgres full",
                Action::DiskOfPostgres(DUMP_READ),
            ),
            ("the agent's disk full", Action::DiskOfAgent(DUMP_READ)),
            ("live sessions during the swap", Action::Sessions),
            ("a role missing", Action::Role),
            ("a tablespace missing", Action::Tablespace),
            ("an extension missing", Action::Extension),
            ("the SSM agent late", Action::AgentLate),
            ("the SSM agent never there", Action::AgentNever),
            ("the launch hook expired", Action::HookExpired(DUMP_READ)),
        ];
        for (name, action) in loss {
            self.add(section, Scenario::Loss, name, action);
        }
        for (name, action) in [
            ("a table locked", Action::Locked),
            ("the agent's disk full", Action::DiskOfAgent(INDEX_PUT)),
        ] {
            self.add(section, Scenario::Backup, name, action);
        }
        let expired = Action::HookExpired(INDEX_PUT);
        self.add(
            section,
            Scenario::Planned,
            "the terminate hook expired",
            expired,
        );
    }
}

fn part_name(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Backup => "backup",
        Scenario::Loss => "restore",
        Scenario::Planned => "replacement",
    }
}
