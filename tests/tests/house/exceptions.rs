//! The exceptions of the house rules.

/// A house rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    File,
    Function,
    Folder,
    Decision,
    Circle,
}

/// Exceptions that stay, as the rule, the name and the reason: mainly tables, in which nearly each line is one arm. A
/// function is named `path:function`.
pub(crate) const EXCEPTIONS: &[(Rule, &str, &str)] = &[];

/// Violations that existed when the rules were written. Remove each one when it is fixed; the list must become empty.
pub(crate) const TO_BE_FIXED: &[(Rule, &str)] = &[
    (Rule::File, "functions/restore/src/handle/tests/given.rs"),
    (Rule::File, "node/src/postgres/database/mod.rs"),
    (Rule::File, "node/src/restore/globals.rs"),
    (Rule::File, "node/src/restore/placement.rs"),
    (Rule::File, "node/src/restore/swap.rs"),
    (Rule::File, "node/src/s3/upload.rs"),
    (Rule::File, "shared/src/aws/autoscaling.rs"),
    (Rule::File, "shared/src/command.rs"),
    (Rule::Folder, "functions/backup/src"),
    (Rule::Folder, "tests/src/chaos"),
    (Rule::Folder, "tests/src/model"),
    (Rule::Function, "functions/backup/src/settle.rs:act"),
    (Rule::Function, "functions/backup/src/terminate.rs:advance"),
    (
        Rule::Function,
        "functions/restore/src/handle/tests/given.rs:autoscaling",
    ),
    (
        Rule::Function,
        "functions/restore/src/handle/tests/given.rs:ssm",
    ),
    (Rule::Function, "node/src/backup/mod.rs:all"),
    (
        Rule::Function,
        "node/src/backup/tree/tests.rs:every_kind_of_file_is_archived_and_gnu_tar_brings_it_back",
    ),
    (Rule::Function, "node/src/restore/unpack/mod.rs:entry"),
    (Rule::Function, "node/src/settings/read.rs:settings"),
    (Rule::Function, "tests/src/bench/databases.rs:restores"),
    (Rule::Function, "tests/src/bench/failover.rs:rows"),
    (Rule::Function, "tests/src/bench/scale.rs:tick"),
    (Rule::Function, "tests/src/chaos/table.rs:fmt"),
    (Rule::Function, "tests/src/chaos/wire.rs:arm"),
    (Rule::Function, "tests/src/fuzz/agent.rs:settings"),
    (
        Rule::Function,
        "tests/src/model/configurations.rs:of_failures",
    ),
    (
        Rule::Function,
        "tests/src/model/configurations.rs:of_mistakes",
    ),
    (Rule::Function, "tests/src/model/configurations.rs:of_nodes"),
    (Rule::Function, "tests/src/model/take.rs:make"),
    (Rule::Function, "tests/src/model/take.rs:take"),
    (
        Rule::Function,
        "tests/src/standin/assembly/builder.rs:start",
    ),
    (Rule::Function, "tests/src/standin/ssm/send.rs:command"),
    (Rule::Function, "tests/src/standin/template/resolve.rs:call"),
    (
        Rule::Function,
        "tests/tests/chaos/plants.rs:what_is_wrong_with_launches_is_found",
    ),
    (Rule::Circle, "functions/restore/src: handle sweep"),
    (
        Rule::Circle,
        "tests/src: chaos::arm chaos::harm chaos::lane chaos::promises chaos::wire",
    ),
    (
        Rule::Circle,
        "tests/src: model::backup_function model::commit",
    ),
    (
        Rule::Circle,
        "tests/src: model::calls model::promises model::world",
    ),
    (
        Rule::Circle,
        "tests/src: standin::autoscaling::actions standin::autoscaling::describe",
    ),
    (
        Rule::Circle,
        "tests/src: standin::autoscaling::capacity standin::autoscaling::lifecycle",
    ),
    (
        Rule::Circle,
        "tests/src: standin::s3::listing standin::s3::store",
    ),
    (
        Rule::Circle,
        "tests/src: standin::ssm::command standin::ssm::document",
    ),
];
