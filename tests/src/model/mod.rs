//! A model of the protocol, small enough to check completely: every order of events, calls and failures that a bound
//! permits, with the promises checked in every state that can be reached.
//!
//! The decisions are the shipped ones: `decide` converts the model's facts into the types that the functions gather, and
//! calls the `decide` modules of both functions. Everything else follows the product's code by hand: what a function does
//! about a decision, what the agent does between two crashes, and what AWS does. In-place restores and `resume` are left
//! out on purpose: see [`decide::left_out`].
//!
//! This table names the product's functions that each function of the model follows. A test compares it with both sides:
//! if you rename one of them, rename it here, and check that the model still does the same.
//!
//! | model | package | product |
//! |---|---|---|
//! | `agent::start` | `node` | `settle`, `recall`, `lock` |
//! | `agent::advance` | `node` | `remember`, `adopt`, `mark`, `from_backup`, `first_boot` |
//! | `agent::fail` | `node` | `failed` |
//! | `agent::end_lock_wait` | `node` | `lock` |
//! | `agent::preempt` | `node` | `ask_for_way` |
//! | `functions::backup::start` | `functions/backup` | `on_tick`, `start` |
//! | `functions::backup::adopt` | `functions/backup` | `on_adopt`, `start` |
//! | `functions::backup::finish` | `functions/backup` | `settle`, `on_finished` |
//! | `functions::backup::handle_terminating` | `functions/backup` | `advance`, `gather`, `final_command` |
//! | `functions::backup::repair_parameter` | `functions/backup` | `look_after` |
//! | `functions::backup::send_backup` | `functions/backup` | `send` |
//! | `functions::backup::send_final` | `functions/backup` | `deliver`, `give_up` |
//! | `functions::backup::cancel_final` | `functions/backup` | `cancel` |
//! | `functions::backup::answer_terminate_hook` | `functions/backup` | `answer_hook`, `tell_no_final_backup` |
//! | `functions::commit::check_objects` | `functions/backup` | `commit`, `check_objects`, `doubt`, `successor`, `predecessor` |
//! | `functions::commit::put_manifest` | `functions/backup` | `put_manifest`, `settled` |
//! | `functions::commit::put_accepted` | `functions/backup` | `accept` |
//! | `functions::commit::write_parameter` | `functions/backup` | `ensure_state` |
//! | `functions::commit::start_retention` | `functions/backup` | `after` |
//! | `functions::commit::fail` | `functions/backup` | `act` |
//! | `functions::retention::expired` | `functions/backup` | `expired`, `newest_good` |
//! | `functions::retention::list` | `functions/backup` | `pass` |
//! | `functions::retention::delete_manifests` | `functions/backup` | `retire` |
//! | `functions::retention::delete_objects` | `functions/backup` | `retire` |
//! | `functions::restore::handle_launching` | `functions/restore` | `launch`, `advance`, `facts`, `predecessor` |
//! | `functions::restore::choose_backup` | `functions/restore` | `choose_backup`, `stock`, `source` |
//! | `functions::restore::check_admission` | `functions/restore` | `admit`, `overtaken` |
//! | `functions::restore::send_restore` | `functions/restore` | `send`, `agent_silent` |
//! | `functions::restore::admit` | `functions/restore` | `admit`, `answer` |
//! | `functions::restore::report_gaps` | `functions/restore` | `tell_concessions`, `tell_skipped` |
//! | `functions::restore::abandon` | `functions/restore` | `abandon`, `give_up` |
//! | `functions::breaker::before_abandoning` | `functions/restore` | `before_abandoning`, `on_failure` |
//! | `functions::breaker::before_admitting` | `functions/restore` | `before_continuing`, `on_success` |
//! | `functions::breaker::sweep` | `functions/restore` | `watch`, `on_sweep` |
//! | `functions::breaker::trip` | `functions/restore` | `try_to_trip` |
//! | `functions::breaker::suspend` | `functions/restore` | `try_to_trip` |
//! | `functions::breaker::resume` | `functions/restore` | `watch`, `try_to_close` |
//! | `functions::breaker::record` | `functions/restore` | `record` |
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
