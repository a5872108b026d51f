//! The promises hold in every state of the model that the bounded beginnings reach, and each check can fail.

use rekindle_tests::model::check::check;
use rekindle_tests::model::configurations;
use rekindle_tests::model::plants::Plant;
use rekindle_tests::model::situations::Situation;

/// The bounded beginnings; `make model` looks at larger ones.
const SIZE: u8 = 0;

#[test]
fn every_promise_holds_in_every_state_and_every_situation_is_met() {
    let (mut states, mut met, mut broken) = (0, Vec::new(), Vec::new());
    for configuration in configurations::all(SIZE) {
        let findings = check(&configuration, 1, None);
        states += findings.states;
        met.extend(findings.situations);
        for (promise, steps) in findings.broken {
            broken.push(format!(
                "{}: {promise:?} by {}",
                findings.name,
                steps.join(", ")
            ));
        }
    }
    println!("{states} states");
    assert!(broken.is_empty(), "broken:\n{}", broken.join("\n"));
    let missed: Vec<&str> = Situation::ALL
        .iter()
        .filter(|situation| !met.contains(situation))
        .map(|situation| situation.name())
        .collect();
    assert!(missed.is_empty(), "never met: {missed:#?}");
}

/// The length of a shortest counterexample says how much of the protocol it takes to come to a defect.
#[test]
fn every_planted_defect_is_found_and_breaks_its_promise() {
    for plant in Plant::ALL {
        let mut shortest: Option<(usize, &str)> = None;
        for mut configuration in configurations::all(SIZE) {
            if configuration.name != plant.shows_in() {
                continue;
            }
            configuration.protocol.plant = Some(*plant);
            let findings = check(&configuration, 1, Some(plant.breaks()));
            let found = findings
                .broken
                .iter()
                .find(|(promise, _)| *promise == plant.breaks());
            shortest = found.map(|(_, steps)| (steps.len(), findings.name));
        }
        let Some((length, name)) = shortest else {
            panic!("{plant:?} does not break {:?}", plant.breaks());
        };
        println!(
            "{plant:?} breaks {:?} after {length} steps of {name:?}",
            plant.breaks()
        );
    }
}
