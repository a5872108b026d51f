//! What the model begins with, and how much may go wrong from there: each a question of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Protocol;
use super::names::OLD;
use super::world::{
    Agent, BackupNumber, Data, Left, Manifest, Node, Purpose, Run, Standing, Tripped, World,
};

/// A beginning with its name.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// What it is about.
    pub name: &'static str,
    /// The protocol from there on.
    pub protocol: Protocol,
}

/// Returns the beginnings. With each further size more may go wrong in each.
pub fn all(size: u8) -> Vec<Configuration> {
    let mut all = of_nodes(size);
    all.extend(of_failures(size));
    all.extend(of_mistakes(size));
    all
}

/// Returns those in which nodes come and go.
fn of_nodes(size: u8) -> Vec<Configuration> {
    let one = Left {
        launches: 1,
        commands: 2 + size,
        ..Left::default()
    };
    // How many invocations are under way at once is what costs most.
    let calls = |few: usize| few + usize::from(size.min(1));
    vec![
        configuration(
            "a new application",
            calls(1),
            nothing(Left {
                launches: 2,
                ticks: 1,
                commands: 3 + size,
                crashes: 1,
                deaths: 1,
                ..one
            }),
        ),
        configuration(
            "a planned replacement",
            2,
            serving(
                1,
                Left {
                    ticks: 1,
                    terminations: 1,
                    commands: 4 + size,
                    crashes: 1,
                    ..one
                },
            ),
        ),
        configuration(
            "two planned replacements",
            2,
            serving(
                1,
                Left {
                    launches: 2,
                    terminations: 2,
                    commands: 4 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "a sudden death",
            1,
            serving(
                1,
                Left {
                    launches: 2,
                    ticks: 1,
                    deaths: 2,
                    commands: 3 + size,
                    crashes: size,
                    ..one
                },
            ),
        ),
        configuration(
            "a killed agent",
            calls(1),
            serving(
                1,
                Left {
                    ticks: 1,
                    terminations: 1,
                    kills: 1,
                    redeliveries: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "everything is slow",
            1,
            serving(
                1,
                Left {
                    ticks: 1,
                    terminations: 1,
                    delays: 1 + size,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
    ]
}

/// Returns those in which backups, restores and launches fail.
fn of_failures(size: u8) -> Vec<Configuration> {
    let one = Left {
        launches: 1,
        commands: 2 + size,
        ..Left::default()
    };
    // How many invocations are under way at once is what costs most.
    let calls = |few: usize| few + usize::from(size.min(1));
    vec![
        configuration(
            "damaged backups",
            1,
            serving(
                2,
                Left {
                    launches: 2,
                    ticks: 1,
                    terminations: 1,
                    damages: 2,
                    commands: 4,
                    ..one
                },
            ),
        ),
        configuration(
            "nothing but damaged backups",
            calls(1),
            serving(
                2,
                Left {
                    deaths: 1,
                    damages: 2,
                    ..one
                },
            ),
        ),
        configuration(
            "a hook that expires",
            2,
            serving(
                1,
                Left {
                    launches: 2,
                    terminations: 1,
                    delays: 1,
                    commands: 4 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "a launch that fails again and again",
            calls(1),
            serving(
                1,
                Left {
                    launches: 4 + size,
                    deaths: 1,
                    failures: 3 + size,
                    commands: 4 + size,
                    crashes: 1,
                    ..one
                },
            ),
        ),
        configuration(
            "commands that fail",
            1,
            serving(
                1,
                Left {
                    launches: 2,
                    ticks: 1,
                    terminations: 1,
                    failures: 2,
                    commands: 4 + size,
                    ..one
                },
            ),
        ),
    ]
}

/// Returns those that somebody has brought about.
fn of_mistakes(size: u8) -> Vec<Configuration> {
    let one = Left {
        launches: 1,
        commands: 2 + size,
        ..Left::default()
    };
    vec![
        configuration(
            "a group that launches early",
            1,
            serving(
                1,
                Left {
                    ticks: 1,
                    early_launches: 1,
                    terminations: 1,
                    sicknesses: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "an emptied database",
            1,
            serving(
                1,
                Left {
                    ticks: 2,
                    emptyings: 1,
                    acceptances: 1,
                    terminations: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "old backups",
            1,
            serving(
                OLD,
                Left {
                    ticks: 1 + size,
                    terminations: 1,
                    damages: 1,
                    crashes: size,
                    commands: 2 + size,
                    ..one
                },
            ),
        ),
        configuration(
            "an emptied bucket",
            2,
            emptied(Left {
                launches: 4,
                crashes: 1,
                ..one
            }),
        ),
        configuration(
            "an adopted node",
            1,
            hand_made(Left {
                ticks: 1,
                adoptions: 1,
                terminations: 1,
                commands: 4 + size,
                ..one
            }),
        ),
    ]
}

fn configuration(name: &'static str, most_calls: usize, beginning: World) -> Configuration {
    Configuration {
        name,
        protocol: Protocol {
            beginning,
            most_calls,
            plant: None,
            reached: Arc::default(),
        },
    }
}

/// A group that has not launched anything, and an empty bucket.
fn nothing(left: Left) -> World {
    World {
        nodes: Vec::new(),
        commands: Vec::new(),
        runs: Vec::new(),
        manifests: BTreeMap::new(),
        aside: BTreeMap::new(),
        parameter: false,
        suspended: false,
        breaker: None,
        tripped: Tripped::JustNow,
        launches_in_row: 0,
        calls: Vec::new(),
        next_backup: OLD,
        tick: None,
        left,
        broken: None,
    }
}

/// A node that serves, and so many committed backups of it.
fn serving(backups: BackupNumber, left: Left) -> World {
    let run = |backup| Run {
        backup,
        node: 0,
        purpose: Purpose::Scheduled,
        data: Data::FirstBoot,
        skipped: Vec::new(),
        emptied: false,
        complete: true,
        sound: true,
        remembered: true,
    };
    let manifest = |run| Manifest {
        run,
        readable: true,
    };
    World {
        nodes: vec![Node {
            standing: Standing::Serving,
            agent: Agent::Online,
            data: Data::FirstBoot,
            marker: Some(Data::FirstBoot),
            admitted: true,
            served: true,
            ..Node::launched()
        }],
        runs: (0..backups).map(run).collect(),
        manifests: (0..backups)
            .map(|backup| (backup, manifest(backup)))
            .collect(),
        parameter: backups > 0,
        next_backup: backups.max(OLD),
        ..nothing(left)
    }
}

/// A group that launches for an application whose backups are gone from the bucket.
fn emptied(left: Left) -> World {
    World {
        parameter: true,
        next_backup: OLD,
        ..nothing(left)
    }
}

/// A node that somebody made by hand, and that serves.
fn hand_made(left: Left) -> World {
    let mut world = serving(0, left);
    world.nodes[0].data = Data::HandMade;
    world.nodes[0].marker = None;
    world.nodes[0].served = false;
    world
}
