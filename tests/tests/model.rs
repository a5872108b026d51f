//! The promises hold in every state that the model's scenarios reach, and each promise's check can fail.

use rekindle_tests::model::checks::checker::check;
use rekindle_tests::model::checks::scenarios;
use rekindle_tests::model::protocol::defects::Defect;
use rekindle_tests::model::protocol::situations::Situation;

/// The size of the scenarios. `make model` checks larger ones.
const SIZE: u8 = 0;

#[test]
fn every_promise_holds_in_every_state_and_every_situation_is_reached() {
    let (mut states, mut reached, mut broken) = (0, Vec::new(), Vec::new());
    for scenario in scenarios::all(SIZE) {
        let findings = check(&scenario, 1, None);
        states += findings.states;
        reached.extend(findings.situations);
        for (promise, steps) in findings.broken {
            broken.push(format!(
                "{}: {promise:?} by {}",
                findings.name,
                steps.join(", ")
            ));
        }
    }
    println!("{states} states");
    assert!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
    let missed: Vec<&str> = Situation::ALL
        .iter()
        .filter(|situation| !reached.contains(situation))
        .map(|situation| situation.name())
        .collect();
    assert!(missed.is_empty(), "situations not reached: {missed:#?}");
}

/// The length of a shortest counterexample shows how deep in the protocol a defect is hidden.
#[test]
fn every_injected_defect_breaks_its_promise() {
    for defect in Defect::ALL {
        let mut shortest: Option<(usize, &str)> = None;
        for mut scenario in scenarios::all(SIZE) {
            if scenario.name != defect.scenario() {
                continue;
            }
            scenario.protocol.defect = Some(*defect);
            let findings = check(&scenario, 1, Some(defect.breaks()));
            let found = findings
                .broken
                .iter()
                .find(|(promise, _)| *promise == defect.breaks());
            shortest = found.map(|(_, steps)| (steps.len(), findings.name));
        }
        let Some((length, name)) = shortest else {
            panic!("{defect:?} does not break {:?}", defect.breaks());
        };
        println!(
            "{defect:?} breaks {:?} after {length} steps of {name:?}",
            defect.breaks()
        );
    }
}
