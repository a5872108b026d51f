//! Distinguishes a server that nobody reaches from one that answers and refuses. Each has its own remedy.

use shared::exit_code::ExitCode;

use crate::agent::failure::Failure;

/// A refusal of the server, and what an operator does about it.
struct Refusal {
    /// One of these texts is in the error.
    texts: &'static [&'static str],
    remedy: &'static str,
}

/// Refusals of a new session. The same session would be refused again, whatever it is for.
const OF_SESSIONS: [Refusal; 4] = [
    Refusal {
        texts: &["password authentication failed", "no password supplied"],
        remedy: "give the agent this role's password: PGPASSWORD or PGPASSFILE on the node, or POSTGRES_PASSWORD of the container",
    },
    Refusal {
        texts: &[
            "no pg_hba.conf entry",
            "pg_hba.conf rejects",
            "authentication failed",
            "requires a valid client certificate",
            "authentication method",
        ],
        remedy: "allow this role's local sessions in pg_hba.conf, or correct [postgres] user in the settings",
    },
    Refusal {
        texts: &["FATAL:  role \"", "is not permitted to log in"],
        remedy: "correct [postgres] user in the settings: it must be a superuser that may log in",
    },
    Refusal {
        texts: &[
            "certificate verify failed",
            "does not match host name",
            "does not support SSL",
            "root certificate file",
        ],
        remedy: "correct PGSSLMODE and PGSSLROOTCERT on the node, or the server's certificate",
    },
];

/// Refusals of the agent's sessions with the administrative database, which need a superuser.
const OF_ADMINISTRATION: [Refusal; 3] = [
    Refusal {
        texts: &[
            "FATAL:  database \"",
            "is not currently accepting connections",
        ],
        remedy: "create this database again, or allow connections to it: the agent's sessions need it",
    },
    Refusal {
        texts: &[
            "permission denied",
            "must be superuser",
            "must be owner",
            "Only roles with",
        ],
        remedy: "correct [postgres] user in the settings: it must be a superuser, and no setting of this role or of the database may set `role`",
    },
    Refusal {
        texts: &[
            "unrecognized configuration parameter",
            "invalid value for parameter",
        ],
        remedy: "remove this setting from the role and the database, or start a supported version of Postgres",
    },
];

/// Parts of an error that only a server that answers can cause.
const ANSWERS: [&str; 5] = [
    "FATAL:",
    "ERROR:",
    "PANIC:",
    "server closed the connection",
    "connection to server was lost",
];

/// Returns the failure of a program of Postgres with this error. `code` is the caller's exit code, which stays if the
/// server did not refuse the session.
pub(super) fn failure(code: ExitCode, error: &str, message: String) -> Failure {
    let finds = |refusals: &'static [Refusal]| {
        refusals
            .iter()
            .find(|refusal| refusal.texts.iter().any(|text| error.contains(text)))
    };
    // An error of a statement can quote the refusal of another server.
    let of_session = finds(&OF_SESSIONS).filter(|_| !error.contains("ERROR:"));
    let of_administration =
        || finds(&OF_ADMINISTRATION).filter(|_| code == ExitCode::PostgresUnreachable);
    if let Some(refusal) = of_session.or_else(of_administration) {
        let message = format!("{message}; {}", refusal.remedy);
        return Failure::new(ExitCode::PostgresRefused, message);
    }
    let answers = ANSWERS.iter().any(|answer| error.contains(answer));
    match code {
        ExitCode::PostgresUnreachable if answers => {
            Failure::new(ExitCode::PostgresNotReady, message)
        }
        code => Failure::new(code, message),
    }
}

#[cfg(test)]
mod tests {
    use ExitCode::{Dump, PostgresNotReady, PostgresRefused, PostgresUnreachable, Restore};

    use super::*;

    /// The caller's exit code, an error, and the exit code of the failure.
    const CASES: &[(ExitCode, &str, ExitCode)] = &[
        (
            PostgresUnreachable,
            "failed: Connection refused",
            PostgresUnreachable,
        ),
        (
            PostgresUnreachable,
            "failed: No such file or directory",
            PostgresUnreachable,
        ),
        (
            PostgresUnreachable,
            "failed: timeout expired",
            PostgresUnreachable,
        ),
        (
            PostgresUnreachable,
            "failed: FATAL:  the database system is starting up",
            PostgresNotReady,
        ),
        (
            PostgresUnreachable,
            "psql: FATAL:  sorry, too many clients already",
            PostgresNotReady,
        ),
        (
            PostgresUnreachable,
            "ERROR:  out of memory",
            PostgresNotReady,
        ),
        (
            PostgresUnreachable,
            "failed: server closed the connection unexpectedly",
            PostgresNotReady,
        ),
        (
            PostgresUnreachable,
            "FATAL:  database \"template1\" does not exist",
            PostgresRefused,
        ),
        (
            PostgresUnreachable,
            "ERROR:  permission denied for function f",
            PostgresRefused,
        ),
        (
            PostgresUnreachable,
            "ERROR:  must be superuser to do it",
            PostgresRefused,
        ),
        (
            PostgresUnreachable,
            "failed: fe_sendauth: no password supplied",
            PostgresRefused,
        ),
        (
            Restore,
            "FATAL:  password authentication failed for user \"x\"",
            PostgresRefused,
        ),
        (Dump, "FATAL:  role \"x\" does not exist", PostgresRefused),
        (
            Dump,
            "FATAL:  no pg_hba.conf entry for host \"1.2.3.4\"",
            PostgresRefused,
        ),
        // Such a database was dropped after it was listed.
        (Dump, "FATAL:  database \"x\" does not exist", Dump),
        (Restore, "ERROR:  permission denied for function f", Restore),
        // The session of a foreign server.
        (
            Restore,
            "ERROR:  failed: FATAL:  password authentication failed for user \"x\"",
            Restore,
        ),
    ];

    #[test]
    fn only_a_server_that_nobody_reaches_must_be_started() {
        for &(code, error, expected) in CASES {
            assert_eq!(
                failure(code, error, String::new()).code,
                expected,
                "{error}"
            );
        }
    }
}
