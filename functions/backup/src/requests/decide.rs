//! The rule for requests to adopt a running node.

use shared::id::BackupId;

/// Decides whether an operator may adopt a running node.
///
/// # Errors
/// The reason for a refusal.
pub fn on_adopt(newest: Option<&BackupId>, over_existing_backups: bool) -> Result<(), String> {
    match newest {
        Some(backup) if !over_existing_backups => Err(format!(
            "the application already has backups, the newest is {backup}: adopting makes this node's data the newest; \
             to confirm, repeat the request with \"over_existing_backups\": true"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adopting_over_existing_backups_has_to_be_confirmed() {
        let newest: BackupId = "20261123T021500.000Z".parse().unwrap();
        assert_eq!(on_adopt(None, false), Ok(()));
        assert_eq!(on_adopt(Some(&newest), true), Ok(()));
        let refusal = on_adopt(Some(&newest), false).unwrap_err();
        assert!(refusal.contains(newest.as_str()) && refusal.contains("over_existing_backups"));
    }
}
