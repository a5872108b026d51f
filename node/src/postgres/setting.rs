//! Settings of roles and databases, as the catalog stores them and as a statement sets them.

use serde::{Deserialize, Serialize};
use shared::exit_code::ExitCode;

use crate::agent::failure::Result;
use crate::postgres::client::{ADMIN_DATABASE, Postgres};
use crate::postgres::quote::{identifier, literal};

/// A setting of a database, of a role in it, or of all roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The role to which it is limited, or `None` for all roles.
    pub(crate) role: Option<String>,
    /// `name=value`, as in the catalog.
    pub(crate) assignment: String,
}

impl Setting {
    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        let name = self.assignment.split_once('=').map(|(name, _)| name);
        name.unwrap_or(&self.assignment)
    }

    /// Returns the statement that sets it for `target`, such as `DATABASE app`.
    pub(crate) fn statement(&self, target: &str) -> String {
        format!("ALTER {target} SET {};\n", assignment(&self.assignment))
    }
}

const OF_ALL_ROLES: &str = "
SELECT coalesce(json_agg(json_build_object('assignment', assignment) ORDER BY position), '[]')
FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY AS c(assignment, position)
WHERE s.setdatabase = 0 AND s.setrole = 0";

/// Returns the settings of all roles in all databases (`ALTER ROLE ALL SET`), which `pg_dumpall` leaves out.
pub(crate) async fn of_all_roles(postgres: &Postgres) -> Result<Vec<Setting>> {
    postgres
        .query(ADMIN_DATABASE, OF_ALL_ROLES, ExitCode::Dump)
        .await
}

/// The settings with a list of names as their value. The catalog quotes each name, so the value must not be quoted
/// again as one text: the quotes would become part of a name. The server's own `pg_dump` has the same list.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Returns `name=value` as the part of a statement after SET.
fn assignment(text: &str) -> String {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let is_list = LISTS.iter().any(|list| list.eq_ignore_ascii_case(name));
    let value = match is_list.then(|| elements(value)).flatten() {
        Some(elements) if elements.is_empty() => "''".to_owned(),
        Some(elements) => {
            let quoted: Vec<String> = elements.iter().map(|element| literal(element)).collect();
            quoted.join(", ")
        }
        None => literal(value),
    };
    format!("{} TO {value}", identifier(name))
}

/// Splits a list at its commas. Elements can be in quotation marks, with `""` for one of them. Returns `None` if the
/// list is malformed.
fn elements(list: &str) -> Option<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = list.trim_start();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let mut element = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let end = rest.find('"')?;
                element.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(more) => {
                        element.push('"');
                        rest = more;
                    }
                    None => break,
                }
            }
        } else {
            let end = rest.find([',', ' ', '\t', '\n']).unwrap_or(rest.len());
            element.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        elements.push(element);
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(elements);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_a_list_is_quoted() {
        assert_eq!(
            assignment(r#"search_path="$user", "od""d, schema", public"#),
            r#""search_path" TO '$user', 'od"d, schema', 'public'"#
        );
        assert_eq!(assignment("search_path="), r#""search_path" TO ''"#);
        assert_eq!(assignment(r#"search_path="""#), r#""search_path" TO ''"#);
    }

    #[test]
    fn any_other_value_is_quoted_as_one_text() {
        assert_eq!(
            assignment(r"my.setting=it's a\b, c=d"),
            r#""my.setting" TO E'it''s a\\b, c=d'"#
        );
    }
}
