//! Decides what to try again for an entry of a dump that the server refused, and what an operator can run later.

use crate::postgres::archive::Entry;
use crate::postgres::quote::identifier;
use crate::postgres::statement::statements;

/// Kinds of entries with data, other than rows and large objects. Without them, the backup is not restored.
const DATA: [&str; 4] = ["TABLE", "TABLE ATTACH", "SEQUENCE", "SEQUENCE SET"];

/// Kinds of entries whose statements can contain passwords, in options and connection strings.
const WITH_PASSWORDS: [&str; 4] = [
    "FOREIGN DATA WRAPPER",
    "SERVER",
    "USER MAPPING",
    "SUBSCRIPTION",
];

/// One statement to try again, or several that only succeed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repair {
    /// The kind of object, such as `INDEX` or `INDEX OWNER`.
    pub(super) kind: String,
    /// The object's name.
    pub(super) object: String,
    /// The statements as `pg_restore` runs them.
    pub(super) statements: String,
    /// Milder statements, if the first ones are refused again. Each is tried alone, so that as many as possible succeed.
    pub(super) milder: Vec<Milder>,
    /// Whether it restores data.
    pub(super) is_data: bool,
    /// Whether it creates an object whose owner is set by a statement of its own. If the object exists already, only its
    /// owner was refused before.
    pub(super) has_owner: bool,
    /// The SQL that an operator runs after the cause is removed.
    pub(super) remedy: String,
}

/// A milder way to restore an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Milder {
    /// The statements.
    pub(super) statements: String,
    /// If the server accepts it: the SQL that completes the object after the cause is removed, or `None` if it is complete.
    pub(super) remedy: Option<String>,
    /// If the server refuses it: the SQL to run after the cause is removed.
    pub(super) remedy_if_refused: String,
}

impl Repair {
    /// Returns the repairs of an entry, in order. `keeps_tablespaces` is whether objects stay in their tablespaces.
    pub(super) fn all_of(entry: &Entry, keeps_tablespaces: bool) -> Vec<Self> {
        let mut repairs = Vec::new();
        let owner = owner_statement(entry);
        if !entry.definition.is_empty() {
            repairs.push(Self {
                has_owner: owner.is_some(),
                ..Self::of_definition(entry, keeps_tablespaces)
            });
        }
        if let Some(statement) = owner {
            repairs.push(Self {
                kind: format!("{} OWNER", entry.kind),
                object: entry.name(),
                remedy: statement.clone(),
                statements: statement,
                milder: Vec::new(),
                is_data: false,
                has_owner: false,
            });
        }
        repairs
    }

    fn of_definition(entry: &Entry, keeps_tablespaces: bool) -> Self {
        let tablespace = entry.tablespace.as_deref().filter(|_| keeps_tablespaces);
        let setting = tablespace.map_or_else(String::new, |tablespace| {
            format!("default_tablespace = {};\n", identifier(tablespace))
        });
        let set = |how: &str| match setting.as_str() {
            "" => String::new(),
            setting => format!("{how} {setting}"),
        };
        let definition = entry.definition.trim();
        let may_have_password = WITH_PASSWORDS.contains(&entry.kind.as_str());
        let remedy = |statements: &str| {
            if may_have_password {
                let kind = &entry.kind;
                return format!(
                    "-- The statement can contain a password, so it is not repeated here: create this {kind} again."
                );
            }
            format!("{}{statements}", set("SET"))
        };
        let alone = milder(&entry.kind, definition);
        let milder = alone.into_iter().map(|way| Milder {
            statements: format!("{}{}", set("SET LOCAL"), way.statements),
            remedy_if_refused: remedy(&way.remedy_if_refused),
            ..way
        });
        Self {
            kind: entry.kind.clone(),
            object: entry.name(),
            statements: format!("{}{definition}", set("SET LOCAL")),
            milder: milder.collect(),
            is_data: DATA.contains(&entry.kind.as_str()),
            has_owner: false,
            remedy: remedy(definition),
        }
    }
}

/// Returns the milder ways for the statements of an entry: a constraint that new rows must satisfy, or each statement
/// alone.
fn milder(kind: &str, definition: &str) -> Vec<Milder> {
    let Ok(statements) = statements(definition) else {
        return Vec::new();
    };
    if let [statement] = &statements[..] {
        let checks_rows = matches!(kind, "FK CONSTRAINT" | "CHECK CONSTRAINT");
        let text = statement.text;
        if checks_rows && !text.ends_with("NOT VALID") {
            return vec![Milder {
                statements: format!("{text} NOT VALID;"),
                remedy: validation(text),
                remedy_if_refused: definition.to_owned(),
            }];
        }
        return Vec::new();
    }
    let mut alone: Vec<String> = Vec::new();
    let mut is_open = false;
    for statement in &statements {
        let text = format!("{};", statement.text);
        // Grants by another grantor stay between the statements that change the session's role.
        match alone.last_mut() {
            Some(group) if is_open => {
                group.push('\n');
                group.push_str(&text);
            }
            _ => alone.push(text),
        }
        is_open |= statement.begins_with(&["SET", "SESSION", "AUTHORIZATION"]);
        is_open &= !statement.begins_with(&["RESET", "SESSION", "AUTHORIZATION"]);
    }
    let ways = alone.into_iter().map(|text| Milder {
        statements: text.clone(),
        remedy: None,
        remedy_if_refused: text,
    });
    ways.collect()
}

/// Returns the statement that validates a constraint, for `ALTER TABLE … ADD CONSTRAINT name …`.
fn validation(text: &str) -> Option<String> {
    let (table, constraint) = text.split_once("ADD CONSTRAINT ")?;
    let name_end = match constraint.strip_prefix('"') {
        // A quotation mark within a name is doubled.
        Some(quoted) => {
            let mut end = 0;
            loop {
                end += quoted[end..].find('"')? + 1;
                if !quoted[end..].starts_with('"') {
                    break end + 1;
                }
                end += 1;
            }
        }
        None => constraint.find(char::is_whitespace)?,
    };
    let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(format!(
        "{table} VALIDATE CONSTRAINT {};",
        &constraint[..name_end]
    ))
}

/// Returns the statement that gives an object its owner, as `pg_restore` derives it, or `None` if the object has no owner
/// of its own.
fn owner_statement(entry: &Entry) -> Option<String> {
    /// Kinds that have a statement to drop them, and no owner.
    const WITHOUT_OWNER: [&str; 12] = [
        "CAST",
        "CHECK CONSTRAINT",
        "CONSTRAINT",
        "DEFAULT",
        "FK CONSTRAINT",
        "INDEX",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "TRIGGER",
        "USER MAPPING",
        "EXTENSION",
    ];
    let owner = entry.owner.as_deref()?;
    if WITHOUT_OWNER.contains(&entry.kind.as_str()) {
        return None;
    }
    let object = entry
        .drop
        .trim()
        .trim_end_matches(';')
        .strip_prefix("DROP ")?;
    Some(format!("ALTER {object} OWNER TO {};", identifier(owner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, definition: &str, drop: &str) -> Entry {
        Entry {
            kind: kind.to_owned(),
            schema: Some("public".to_owned()),
            tag: "thing".to_owned(),
            owner: Some("o\"wner".to_owned()),
            tablespace: Some("fast".to_owned()),
            definition: definition.to_owned(),
            drop: drop.to_owned(),
        }
    }

    #[test]
    fn a_foreign_key_is_added_without_a_check_of_the_rows() {
        let definition = "ALTER TABLE ONLY public.\"a b\"\n    ADD CONSTRAINT \"k\"\"; e y\" FOREIGN KEY (x) REFERENCES public.t(id) DEFERRABLE;\n";
        let drop = "ALTER TABLE ONLY public.\"a b\" DROP CONSTRAINT \"k\"\"; e y\";\n";
        let repairs = Repair::all_of(&entry("FK CONSTRAINT", definition, drop), false);
        let [repair] = &repairs[..] else {
            panic!("{repairs:?}");
        };
        assert!(!repair.is_data);
        let milder = Milder {
            statements: "ALTER TABLE ONLY public.\"a b\"\n    ADD CONSTRAINT \"k\"\"; e y\" FOREIGN KEY (x) REFERENCES public.t(id) DEFERRABLE NOT VALID;".to_owned(),
            remedy: Some("ALTER TABLE ONLY public.\"a b\" VALIDATE CONSTRAINT \"k\"\"; e y\";".to_owned()),
            remedy_if_refused: definition.trim().to_owned(),
        };
        assert_eq!(repair.milder, [milder]);
    }

    #[test]
    fn an_object_and_its_owner_are_two_repairs() {
        let definition = "CREATE EVENT TRIGGER watch ON ddl_command_end\n   EXECUTE FUNCTION public.f();\n\n\nALTER EVENT TRIGGER watch DISABLE;\n";
        let repairs = Repair::all_of(
            &entry("EVENT TRIGGER", definition, "DROP EVENT TRIGGER watch;\n"),
            true,
        );
        let statements: Vec<&str> = repairs.iter().map(|one| one.statements.as_str()).collect();
        assert_eq!(
            statements,
            [
                format!(
                    "SET LOCAL default_tablespace = \"fast\";\n{}",
                    definition.trim()
                )
                .as_str(),
                "ALTER EVENT TRIGGER watch OWNER TO \"o\"\"wner\";"
            ]
        );
        assert_eq!(repairs[0].milder.len(), 2);
        assert_eq!(repairs[1].kind, "EVENT TRIGGER OWNER");
    }

    #[test]
    fn each_grant_can_succeed_alone() {
        let definition = "REVOKE ALL ON FUNCTION public.f() FROM \"16390\";\n\
            SET SESSION AUTHORIZATION clerk;\nGRANT ALL ON FUNCTION public.f() TO other;\n\
            RESET SESSION AUTHORIZATION;\nGRANT ALL ON FUNCTION public.f() TO reader;\n";
        let repairs = Repair::all_of(&entry("ACL", definition, ""), false);
        assert_eq!(repairs.len(), 1);
        let milder: Vec<&str> = repairs[0]
            .milder
            .iter()
            .map(|one| one.statements.as_str())
            .collect();
        assert_eq!(
            milder,
            [
                "REVOKE ALL ON FUNCTION public.f() FROM \"16390\";",
                "SET SESSION AUTHORIZATION clerk;\nGRANT ALL ON FUNCTION public.f() TO other;\n\
                 RESET SESSION AUTHORIZATION;",
                "GRANT ALL ON FUNCTION public.f() TO reader;"
            ]
        );
    }

    #[test]
    fn rows_are_data_and_passwords_stay_out_of_the_remedy() {
        let repairs = Repair::all_of(&entry("TABLE DATA", "", ""), false);
        assert_eq!(repairs, []);
        let set = "SELECT pg_catalog.setval('public.s', 7, true);\n";
        assert!(Repair::all_of(&entry("SEQUENCE SET", set, ""), false)[0].is_data);
        let mapping = "CREATE USER MAPPING FOR a SERVER s OPTIONS (\n    password 'marker'\n);\n";
        let repairs = Repair::all_of(
            &entry(
                "USER MAPPING",
                mapping,
                "DROP USER MAPPING FOR a SERVER s;\n",
            ),
            false,
        );
        assert_eq!(repairs.len(), 1);
        assert!(
            !repairs[0].remedy.contains("marker"),
            "{}",
            repairs[0].remedy
        );
    }
}
