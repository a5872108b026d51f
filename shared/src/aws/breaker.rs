//! The records of the circuit breakers of an application's groups, in one SSM parameter: which launches Rekindle
//! suspended.
//!
//! Auto Scaling does not return who suspended a process. A suspension is Rekindle's own only if this record is open.
//! The record has its own parameter, so that the restore function needs no permission to write an application's state.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ssm::Client;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::parameter;
use crate::error::Result;
use crate::id::{ApplicationName, InstanceId};
use crate::layout;

/// The schema version that this version of Rekindle writes, and the newest that it reads.
const SCHEMA_VERSION: u32 = 1;
/// The time for which Auto Scaling lists launches. The record of a breaker that was closed earlier has no effect any
/// more.
const ACTIVITIES_KEPT: Duration = Duration::from_hours(6 * 7 * 24);

/// The record of one group's breaker. A breaker that never tripped has no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Breaker {
    /// Rekindle suspended the group's launches, or is about to.
    Open {
        /// The number of trips in a row, without a successful launch in between.
        trips: u32,
        /// When the breaker tripped.
        #[serde(with = "time::serde::rfc3339")]
        tripped_at: OffsetDateTime,
        /// The failed instance that tripped the breaker.
        instance_id: InstanceId,
    },
    /// The launches were resumed to try one.
    HalfOpen {
        /// The number of trips in a row before.
        trips: u32,
        /// When the breaker tripped last.
        #[serde(with = "time::serde::rfc3339")]
        tripped_at: OffsetDateTime,
    },
    /// A launch succeeded, or an operator closed the breaker. Earlier failures do not count any more.
    Closed {
        /// When the breaker was closed.
        #[serde(with = "time::serde::rfc3339")]
        closed_at: OffsetDateTime,
    },
}

/// The breakers of an application's groups. An application has more than one group only by mistake; then each group has
/// its own breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakers {
    /// The writer's schema version.
    pub schema_version: u32,
    /// The breakers by their group's name.
    pub groups: BTreeMap<String, Breaker>,
}

/// Returns the breaker of a group, or `None` if it never tripped.
///
/// # Errors
/// [`crate::Error::Contract`] if the parameter cannot be parsed or has a newer schema, [`crate::Error::Aws`] if SSM
/// fails.
pub async fn read(
    client: &Client,
    application: &ApplicationName,
    group: &str,
) -> Result<Option<Breaker>> {
    let mut breakers = of_application(client, application).await?;
    Ok(breakers.groups.remove(group))
}

/// Writes the breaker of a group, and keeps those of the application's other groups. `now` is the current time.
///
/// # Errors
/// Those of [`read`], and [`crate::Error::Aws`] if the parameter cannot be written.
pub async fn write(
    client: &Client,
    application: &ApplicationName,
    group: &str,
    breaker: &Breaker,
    now: OffsetDateTime,
) -> Result<()> {
    let mut breakers = of_application(client, application).await?;
    breakers.set(group, breaker.clone(), now);
    parameter::put(
        client,
        &layout::breaker_parameter(application),
        &breakers,
        true,
    )
    .await
}

async fn of_application(client: &Client, application: &ApplicationName) -> Result<Breakers> {
    let name = layout::breaker_parameter(application);
    let breakers = parameter::read(client, &name, SCHEMA_VERSION).await?;
    Ok(breakers.unwrap_or(Breakers {
        schema_version: SCHEMA_VERSION,
        groups: BTreeMap::new(),
    }))
}

impl Breakers {
    /// Sets a breaker, and removes records without effect: a parameter holds at most 4 KiB.
    fn set(&mut self, group: &str, breaker: Breaker, now: OffsetDateTime) {
        self.groups.retain(|_, known| match known {
            Breaker::Closed { closed_at } => now - *closed_at <= ACTIVITIES_KEPT,
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => true,
        });
        self.groups.insert(group.to_owned(), breaker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    #[test]
    fn the_parameter_has_the_documented_format() {
        let text = json!({"schema_version": 1, "groups": {
            "dtr": {"state": "open", "trips": 2, "tripped_at": "2026-11-23T02:15:00Z", "instance_id": "i-04d1c8f7a2b3e6905"},
            "git": {"state": "half-open", "trips": 1, "tripped_at": "2026-11-23T02:15:00Z"},
            "old": {"state": "closed", "closed_at": "2026-11-23T02:15:00Z"},
        }});
        let read: Breakers = serde_json::from_value(text.clone()).unwrap();
        let open = Breaker::Open {
            trips: 2,
            tripped_at: datetime!(2026-11-23 02:15:00 UTC),
            instance_id: "i-04d1c8f7a2b3e6905".parse().unwrap(),
        };
        assert_eq!(read.groups["dtr"], open);
        assert_eq!(serde_json::to_value(read).unwrap(), text);
    }

    #[test]
    fn writing_one_breaker_keeps_the_others_and_removes_only_old_closed_ones() {
        let now = datetime!(2026-11-23 02:15:00 UTC);
        let closed = |days: u64| Breaker::Closed {
            closed_at: now - Duration::from_hours(24 * days),
        };
        let half_open = Breaker::HalfOpen {
            trips: 1,
            tripped_at: now - Duration::from_hours(24 * 400),
        };
        let mut breakers = Breakers {
            schema_version: SCHEMA_VERSION,
            groups: BTreeMap::from([
                ("recent".to_owned(), closed(41)),
                ("old".to_owned(), closed(43)),
                ("on-trial".to_owned(), half_open),
            ]),
        };
        breakers.set("dtr", closed(0), now);
        let names: Vec<&String> = breakers.groups.keys().collect();
        assert_eq!(names, ["dtr", "on-trial", "recent"]);
    }
}
