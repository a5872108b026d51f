//! A model of the protocol, small enough to check completely: every order of events, calls and failures that a bound
//! permits, with the promises checked in every state that can be reached.
//!
//! The decisions are the shipped ones: `decide` converts the model's facts into the types that the functions gather, and
//! calls the `decide` modules of both functions. Everything else follows the product's code by hand: how a function
//! executes a decision, the agent's steps between two crashes, and AWS. In-place restores and `resume` are left
//! out on purpose: see [`decide::left_out`].
//!
//! This table names the product's functions that each function of the model follows. A test compares it with both sides:
//! if you rename one of them, rename it here, and check that the model still does the same.
//!
//! | model | package | product |
//! |---|---|---|
//! | `agent::start` | `node` | `run_once`, `recorded`, `acquire` |
//! | `agent::advance` | `node` | `record`, `adopt`, `write_marker`, `from_newest_usable`, `first_boot` |
//! | `agent::fail` | `node` | `failed` |
//! | `agent::end_lock_wait` | `node` | `acquire` |
//! | `agent::preempt` | `node` | `preempt` |
//! | `functions::backup::start` | `functions/backup` | `on_tick`, `on_start`, `to_all` |
//! | `functions::backup::adopt` | `functions/backup` | `on_adopt`, `to_one` |
//! | `functions::backup::finish` | `functions/backup` | `finish`, `on_finished` |
//! | `functions::backup::handle_terminating` | `functions/backup` | `advance`, `gather`, `final_command`, `on_terminating` |
//! | `functions::backup::repair_parameter` | `functions/backup` | `measure`, `repair_state` |
//! | `functions::backup::send_backup` | `functions/backup` | `send` |
//! | `functions::backup::send_final` | `functions/backup` | `deliver`, `give_up` |
//! | `functions::backup::cancel_final` | `functions/backup` | `cancel` |
//! | `functions::backup::answer_terminate_hook` | `functions/backup` | `answer`, `record_no_final_backup` |
//! | `functions::commit::check_objects` | `functions/backup` | `commit`, `check`, `reason`, `successor`, `newest_older` |
//! | `functions::commit::put_manifest` | `functions/backup` | `write_manifest`, `earlier_commit` |
//! | `functions::commit::put_accepted` | `functions/backup` | `accept` |
//! | `functions::commit::write_parameter` | `functions/backup` | `write_state_and_marker`, `write_state` |
//! | `functions::commit::start_retention` | `functions/backup` | `after_commit` |
//! | `functions::commit::fail` | `functions/backup` | `act` |
//! | `functions::retention::expired` | `functions/backup` | `expired`, `newest_readable` |
//! | `functions::retention::list` | `functions/backup` | `run` |
//! | `functions::retention::delete_manifests` | `functions/backup` | `delete_manifests` |
//! | `functions::retention::delete_objects` | `functions/backup` | `delete_expired` |
//! | `functions::restore::handle_launching` | `functions/restore` | `advance_until`, `advance`, `gather`, `predecessor` |
//! | `functions::restore::choose_backup` | `functions/restore` | `choose_backup`, `sources`, `choose` |
//! | `functions::restore::check_admission` | `functions/restore` | `admit`, `newer_backup` |
//! | `functions::restore::send_restore` | `functions/restore` | `send`, `agent_silent` |
//! | `functions::restore::admit` | `functions/restore` | `admit`, `answer` |
//! | `functions::restore::report_gaps` | `functions/restore` | `record_unreadable`, `record_broken_fence`, `record_skipped` |
//! | `functions::restore::abandon` | `functions/restore` | `abandon` |
//! | `functions::breaker::before_abandoning` | `functions/restore` | `before_abandoning`, `on_failure` |
//! | `functions::breaker::before_admitting` | `functions/restore` | `before_admitting`, `on_success` |
//! | `functions::breaker::sweep` | `functions/restore` | `watch`, `on_sweep` |
//! | `functions::breaker::trip` | `functions/restore` | `trip` |
//! | `functions::breaker::suspend` | `functions/restore` | `trip`, `resume_if_closed_meanwhile` |
//! | `functions::breaker::resume` | `functions/restore` | `watch`, `close` |
//! | `functions::breaker::record` | `functions/restore` | `write_not_open` |
//! | `functions::breaker::age` | `functions/restore` | `wait` |

mod agent;
mod apply;
mod aws;
pub mod checks;
pub mod decide;
mod functions;
pub mod protocol;
pub mod steps;
pub mod world;

#[cfg(test)]
mod tests;
