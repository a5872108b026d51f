//! What the shell scripts before Rekindle did wrong, and the rules by which it cannot happen again. Each rule is proved
//! on the shipped programs and real Postgres, by what AWS and Postgres show and not by what Rekindle says of itself.
//!
//! | what happened | the rule |
//! |---|---|
//! | A failed or empty restore went on, and within a quarter of an hour its empty database was the newest backup. | `restores::a_failed_or_empty_restore_never_enters_service_and_never_becomes_the_newest_backup` |
//! | What a failed dump had written until then was uploaded all the same. | `dumps::a_dump_or_an_upload_that_fails_leaves_no_backup`, `dumps::a_dump_that_ends_early_is_no_backup_even_if_pg_dump_calls_it_good` |
//! | Where there was no backup, the node started empty; the newest was whichever name sorted last. | `restores::a_application_without_a_backup_it_should_have_is_never_started_empty`, `restores::the_newest_backup_is_the_one_taken_last_whatever_was_uploaded_last` |
//! | The database's address was written down at boot, so that a restarted container ended all backups unnoticed. | `addresses::a_restarted_container_is_still_backed_up_and_a_lost_one_is_not_lost_in_silence` |
//! | A restore that failed half-way left a database that looked good. | `halves::a_half_restored_database_is_never_live`, `halves::clients_that_reconnect_without_a_pause_see_the_old_or_the_new_and_nothing_between` |
//! | Nobody waited for Postgres. | `patience::a_restore_waits_for_postgres` |
//! | A slow restore was taken for a sick instance, which was replaced, again and again. | `patience::a_slow_restore_is_not_relaunched` |
//! | The node could delete every backup. | `permissions::a_node_can_delete_nothing_and_overwrite_nothing` |
//! | The container's address came from a field that Docker has given up since. | `addresses::a_container_is_reached_by_its_name_and_never_by_an_address` |
//! | In a replacement the old node and the new one wrote to the same place. | `replacements::an_old_node_and_its_replacement_never_write_backups_at_the_same_time` |

mod addresses;
mod dumps;
mod halves;
mod patience;
mod permissions;
mod replacements;
mod restores;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use rekindle_tests::standin::template::Template;

/// Reads the template as it is deployed for an application.
fn template(application: &str, bucket: &str) -> Result<Template> {
    let parameters = [
        ("ApplicationName", application),
        ("BackupBucketName", bucket),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
    Template::load(&path, &BTreeMap::from(parameters))
}
