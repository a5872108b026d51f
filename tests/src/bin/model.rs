//! `make model`: checks the promises in every reachable state of a model of the protocol, and prints the findings.

use std::process::ExitCode;

use clap::Parser;
use rekindle_tests::model::checks::checker::{Findings, check};
use rekindle_tests::model::checks::scenarios;
use rekindle_tests::model::protocol::situations::Situation;
use rekindle_tests::model::world::Promise;

/// Checks the promises in every reachable state of a model of the protocol.
#[derive(Debug, Parser)]
struct CommandLine {
    /// The bound on faults. The tests use 0; 2 takes hours.
    #[arg(long, default_value_t = 1)]
    size: u8,
    /// Only the initial states whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// The number of threads. With one thread, every counterexample is a shortest one.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[expect(clippy::print_stdout, reason = "this program prints a table")]
fn main() -> ExitCode {
    let line = CommandLine::parse();
    println!(
        "{:<30}{:>12}{:>14}{:>7}{:>9}",
        "initial state", "states", "transitions", "depth", "seconds"
    );
    let mut all = Vec::new();
    for configuration in scenarios::all(line.size) {
        if configuration.name.contains(&line.only) {
            let findings = check(&configuration, line.threads, None);
            println!("{}", row(&findings));
            all.push(findings);
        }
    }
    println!(
        "{:<30}{:>12}",
        "total",
        all.iter().map(|one| one.states).sum::<usize>()
    );
    println!("\npromises");
    let mut held = true;
    for promise in Promise::ALL {
        let breaks =
            |findings: &&Findings| findings.broken.iter().any(|(broken, _)| broken == promise);
        let breaking: Vec<&Findings> = all.iter().filter(breaks).collect();
        println!(
            "  {:<8}{}",
            if breaking.is_empty() {
                "held"
            } else {
                "BROKEN"
            },
            promise.name()
        );
        for findings in breaking {
            held = false;
            let steps = findings.broken.iter().find(|(broken, _)| broken == promise);
            for (number, step) in (1..).zip(steps.iter().flat_map(|(_, steps)| steps)) {
                println!(
                    "      {:<24}{number:>4} {step}",
                    if number == 1 { findings.name } else { "" }
                );
            }
        }
    }
    println!("\nsituations");
    for situation in Situation::ALL {
        let met = all
            .iter()
            .any(|findings| findings.situations.contains(situation));
        println!(
            "  {:<8}{}",
            if met { "met" } else { "not met" },
            situation.name()
        );
    }
    if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn row(findings: &Findings) -> String {
    format!(
        "{:<30}{:>12}{:>14}{:>7}{:>9.1}",
        findings.name,
        findings.states,
        findings.generated,
        findings.depth,
        findings.duration.as_secs_f64()
    )
}
