//! Incidents with the shell scripts that Rekindle replaces, and the rules that prevent them. Each rule is tested with the
//! shipped programs and real Postgres. The tests check what AWS and Postgres show, not what Rekindle reports.
//!
//! | incident | rule |
//! |---|---|
//! | A node with a failed or empty restore was put into service, and within 15 minutes its empty database was the newest backup. | `restores::a_failed_or_empty_restore_never_enters_service_and_never_becomes_the_newest_backup` |
//! | The truncated output of a failed dump was uploaded as a backup. | `dumps::a_dump_or_an_upload_that_fails_leaves_no_backup`, `dumps::a_truncated_dump_is_no_backup_even_if_pg_dump_exits_with_0` |
//! | If no backup was found, the node started empty. The "newest" backup was the one whose name sorted last. | `restores::an_application_whose_backups_are_gone_is_never_started_empty`, `restores::the_newest_backup_is_the_one_taken_last_not_the_one_uploaded_last` |
//! | The address of the database was recorded at boot. After a restart of the container, backups stopped without an alarm. | `addresses::a_restarted_container_is_still_backed_up_and_a_missing_one_raises_an_alarm` |
//! | A restore that failed halfway left a database that looked complete. | `swap::a_half_restored_database_is_never_live`, `swap::clients_that_reconnect_during_a_restore_see_the_old_or_the_new_database` |
//! | The restore did not wait for Postgres to start. | `slowness::a_restore_waits_for_postgres` |
//! | An instance with a slow restore was considered unhealthy and replaced, again and again. | `slowness::a_slow_restore_is_not_relaunched` |
//! | The node could delete every backup. | `permissions::a_node_can_delete_nothing_and_overwrite_nothing` |
//! | The address of the container was read from a field that Docker has since removed. | `addresses::a_container_is_reached_by_its_name_and_never_by_an_address` |
//! | During a replacement, the old and the new node wrote to the same place. | `replacements::an_old_node_and_its_replacement_never_write_backups_at_the_same_time` |

mod addresses;
mod dumps;
mod permissions;
mod replacements;
mod restores;
mod slowness;
mod swap;

use std::collections::BTreeMap;

use anyhow::Result;
use rekindle_tests::repository::project;
use rekindle_tests::standin::template::Template;

/// Reads the template as deployed for an application.
fn template(application: &str, bucket: &str) -> Result<Template> {
    let parameters = [
        ("ApplicationName", application),
        ("BackupBucketName", bucket),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = project().join("template.yaml");
    Template::load(&path, &BTreeMap::from(parameters))
}
