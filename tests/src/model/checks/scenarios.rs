//! The scenarios: the initial states, each with the faults that may happen from there on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::protocol::Protocol;
use crate::model::world::names::OLD;
use crate::model::world::{
    Agent, BackupNumber, Budget, Data, Lifecycle, Manifest, Node, Purpose, Run, TripAge, World,
};

/// An initial state with its name.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The protocol from the initial state on.
    pub protocol: Protocol,
}

/// Returns every scenario. Each larger size permits more faults in each.
pub fn all(size: u8) -> Vec<Scenario> {
    [
        replacements(size),
        crashes(size),
        damaged_backups(size),
        failures(size),
        mistakes(size),
        operators(size),
    ]
    .concat()
}

/// Returns the budget that most scenarios share.
fn one_launch(size: u8) -> Budget {
    Budget {
        launches: 1,
        commands: 2 + size,
        ..Budget::default()
    }
}

/// Returns how many invocations may run at once: this number has the largest effect on the number of states.
fn invocations(few: usize, size: u8) -> usize {
    few + usize::from(size.min(1))
}

/// Returns the scenarios in which nodes are launched and replaced.
fn replacements(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "a new application",
            invocations(1, size),
            new_group(Budget {
                launches: 2,
                ticks: 1,
                commands: 3 + size,
                crashes: 1,
                deaths: 1,
                ..one
            }),
        ),
        scenario(
            "a planned replacement",
            2,
            in_service(
                1,
                Budget {
                    ticks: 1,
                    terminations: 1,
                    commands: 4 + size,
                    crashes: 1,
                    ..one
                },
            ),
        ),
        scenario(
            "two planned replacements",
            2,
            in_service(
                1,
                Budget {
                    launches: 2,
                    terminations: 2,
                    commands: 4 + size,
                    ..one
                },
            ),
        ),
    ]
}

/// Returns the scenarios in which machines and agents die, or are slow.
fn crashes(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "a sudden death",
            1,
            in_service(
                1,
                Budget {
                    launches: 2,
                    ticks: 1,
                    deaths: 2,
                    commands: 3 + size,
                    crashes: size,
                    ..one
                },
            ),
        ),
        scenario(
            "a killed agent",
            invocations(1, size),
            in_service(
                1,
                Budget {
                    ticks: 1,
                    terminations: 1,
                    kills: 1,
                    redeliveries: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        scenario(
            "everything is slow",
            1,
            in_service(
                1,
                Budget {
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

/// Returns the scenarios with damaged backups, and with an outage of the functions.
fn damaged_backups(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "damaged backups",
            1,
            in_service(
                2,
                Budget {
                    launches: 2,
                    ticks: 1,
                    terminations: 1,
                    damages: 2,
                    commands: 4,
                    ..one
                },
            ),
        ),
        scenario(
            "nothing but damaged backups",
            invocations(1, size),
            in_service(
                2,
                Budget {
                    deaths: 1,
                    damages: 2,
                    ..one
                },
            ),
        ),
        scenario(
            "a hook that expires",
            2,
            in_service(
                1,
                Budget {
                    launches: 2,
                    terminations: 1,
                    delays: 1,
                    commands: 4 + size,
                    ..one
                },
            ),
        ),
    ]
}

/// Returns the scenarios in which commands and launches fail.
fn failures(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "a launch that fails again and again",
            invocations(1, size),
            in_service(
                1,
                Budget {
                    launches: 4 + size,
                    deaths: 1,
                    failures: 3 + size,
                    commands: 4 + size,
                    crashes: 1,
                    ..one
                },
            ),
        ),
        scenario(
            "commands that fail",
            1,
            in_service(
                1,
                Budget {
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

/// Returns the scenarios that follow from a wrong setting or a mistake.
fn mistakes(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "a group that launches early",
            1,
            in_service(
                1,
                Budget {
                    ticks: 1,
                    early_launches: 1,
                    terminations: 1,
                    unhealthy: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        scenario(
            "an emptied database",
            1,
            in_service(
                1,
                Budget {
                    ticks: 2,
                    emptied: 1,
                    acceptances: 1,
                    terminations: 1,
                    commands: 3 + size,
                    ..one
                },
            ),
        ),
        scenario(
            "old backups",
            1,
            in_service(
                OLD,
                Budget {
                    ticks: 1 + size,
                    terminations: 1,
                    damages: 1,
                    crashes: size,
                    commands: 2 + size,
                    ..one
                },
            ),
        ),
    ]
}

/// Returns the scenarios in which an operator acts.
fn operators(size: u8) -> Vec<Scenario> {
    let one = one_launch(size);
    vec![
        scenario(
            "an emptied bucket",
            2,
            emptied(Budget {
                launches: 4,
                crashes: 1,
                ..one
            }),
        ),
        scenario(
            "an adopted node",
            1,
            hand_made(Budget {
                ticks: 1,
                adoptions: 1,
                terminations: 1,
                commands: 4 + size,
                ..one
            }),
        ),
    ]
}

fn scenario(name: &'static str, max_invocations: usize, initial: World) -> Scenario {
    Scenario {
        name,
        protocol: Protocol {
            initial,
            max_invocations,
            defect: None,
            reached: Arc::default(),
        },
    }
}

/// Returns a group without launches, and an empty bucket.
fn new_group(budget: Budget) -> World {
    World {
        nodes: Vec::new(),
        commands: Vec::new(),
        runs: Vec::new(),
        manifests: BTreeMap::new(),
        quarantined: BTreeMap::new(),
        parameter: false,
        suspended: false,
        breaker: None,
        tripped: TripAge::Fresh,
        launches_in_row: 0,
        calls: Vec::new(),
        next_backup: OLD,
        tick: None,
        budget,
        broken: None,
    }
}

/// Returns a node in service, and this number of committed backups of it.
fn in_service(backups: BackupNumber, budget: Budget) -> World {
    let run = |backup| Run {
        backup,
        node: 0,
        purpose: Purpose::Scheduled,
        data: Data::FirstBoot,
        skipped: Vec::new(),
        emptied: false,
        complete: true,
        sound: true,
        recorded: true,
    };
    let manifest = |run| Manifest {
        run,
        readable: true,
    };
    World {
        nodes: vec![Node {
            lifecycle: Lifecycle::InService,
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
        ..new_group(budget)
    }
}

/// Returns a group without launches whose application's backups have disappeared from the bucket.
fn emptied(budget: Budget) -> World {
    World {
        parameter: true,
        next_backup: OLD,
        ..new_group(budget)
    }
}

/// Returns a node in service that an operator set up by hand.
fn hand_made(budget: Budget) -> World {
    let mut world = in_service(0, budget);
    world.nodes[0].data = Data::HandMade;
    world.nodes[0].marker = None;
    world.nodes[0].served = false;
    world
}
