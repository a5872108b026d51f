//! Names in events, commands and keys, each validated when it is parsed, and [`Subject`], the ids of a log line.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::{datetime, format_description};
use time::{OffsetDateTime, UtcOffset};

/// The error of a malformed name: its kind, its beginning, and the valid format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not {format}")]
pub struct MalformedName {
    kind: &'static str,
    value: String,
    format: &'static str,
}

/// Defines a string type that can only be made from a valid text.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $format:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = MalformedName;

            fn from_str(text: &str) -> Result<Self, MalformedName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = MalformedName;

            fn try_from(text: String) -> Result<Self, MalformedName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    // A text from outside may be megabytes long; the message has its beginning.
                    let value = text.chars().take(80).collect();
                    Err(MalformedName { kind: stringify!($name), value, format: $format })
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

name!(
    /// An EC2 instance id.
    InstanceId,
    "i- and 8 or 17 hexadecimal digits",
    |text| text.strip_prefix("i-").is_some_and(|rest| lower_hex(rest, 8) || lower_hex(rest, 17))
);

name!(
    /// The id of an SSM command.
    CommandId,
    "a UUID of 36 characters",
    |text| text.len() == 36 && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
);

name!(
    /// An application: the value of the tag `rekindle:application` of its group, and a part of its backups' keys.
    ApplicationName,
    "1 to 63 lower-case letters, digits and inner hyphens",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit())
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
);

name!(
    /// The id of one run of a backup. Objects are never overwritten, so a second run has other keys.
    RunId,
    "8 hexadecimal digits",
    |text| lower_hex(text, 8)
);

name!(
    /// A SHA-256 in lower-case hexadecimal digits.
    Sha256,
    "64 hexadecimal digits",
    |text| lower_hex(text, 64)
);

name!(
    /// A CRC-64/NVME as S3 writes it: eight bytes, most significant first, in base64.
    Crc64,
    "12 characters of base64",
    |text| {
        text.len() == 12
            && text.ends_with('=')
            && text[..11].bytes().all(|b| matches!(b, b'+' | b'/') || b.is_ascii_alphanumeric())
    }
);

name!(
    /// The id of a backup: the UTC time at which it was requested. It sorts as text and is unique within an
    /// application.
    BackupId,
    "a UTC time such as 20261123T021500.000Z",
    |text| parse_backup_time(text).is_some()
);

/// Returns whether a text can be the version id of an S3 object in the restore document. A single hyphen cannot: in
/// that document it means "no version".
pub fn is_version(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text != "-"
        && text
            .bytes()
            .all(|b| matches!(b, b'.' | b'_' | b'-') || b.is_ascii_alphanumeric())
}

const BACKUP_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");

/// The first and the last time of a backup id.
const FIRST: OffsetDateTime = datetime!(0000-01-01 00:00:00 UTC);
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59.999 UTC);

fn parse_backup_time(text: &str) -> Option<OffsetDateTime> {
    // The parser accepts a year with a sign. The fixed length keeps ids sortable as text.
    if text.len() != 20 || !text.is_ascii() || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    time::PrimitiveDateTime::parse(text, BACKUP_TIME)
        .ok()
        .map(time::PrimitiveDateTime::assume_utc)
}

impl Sha256 {
    /// Returns the text of a digest.
    pub fn of(digest: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        Self(
            digest
                .iter()
                .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
                .collect(),
        )
    }
}

impl Crc64 {
    /// Returns the text of a checksum.
    pub fn of(checksum: u64) -> Self {
        Self(STANDARD.encode(checksum.to_be_bytes()))
    }
}

impl BackupId {
    /// Returns the id of the backup that was requested at `time`, to the millisecond. A time outside the years 0000 to
    /// 9999 in UTC has the nearest id.
    pub fn at(time: OffsetDateTime) -> Self {
        let nearest = if time.year() > 0 { LAST } else { FIRST };
        let utc = time.checked_to_offset(UtcOffset::UTC);
        let utc = utc.filter(|utc| utc.year() >= 0).unwrap_or(nearest);
        let (date, clock) = (utc.date(), utc.time());
        Self(format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        ))
    }

    /// Returns the time at which this backup was requested.
    pub fn time(&self) -> OffsetDateTime {
        parse_backup_time(&self.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Returns the day as `yyyy-mm-dd`, a part of the backup's keys.
    pub fn day(&self) -> String {
        format!("{}-{}-{}", &self.0[0..4], &self.0[4..6], &self.0[6..8])
    }
}

/// The ids that a failure concerns, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The application.
    pub application: Option<&'a ApplicationName>,
    /// The Auto Scaling group.
    pub group: Option<&'a str>,
    /// The instance.
    pub instance_id: Option<&'a InstanceId>,
    /// The SSM command.
    pub command_id: Option<&'a CommandId>,
    /// The backup.
    pub backup_id: Option<&'a BackupId>,
}

impl<'a> Subject<'a> {
    /// Returns a subject with the application and no other id.
    pub fn application(application: &'a ApplicationName) -> Self {
        Self {
            application: Some(application),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_backup_id_is_its_time() {
        let id = BackupId::at(time::macros::datetime!(2026-11-23 02:15:00.25 UTC));
        assert_eq!(id.as_str(), "20261123T021500.250Z");
        assert_eq!(id.day(), "2026-11-23");
        assert_eq!(
            id.time(),
            time::macros::datetime!(2026-11-23 02:15:00.25 UTC)
        );
    }

    #[test]
    fn a_time_out_of_range_has_the_nearest_id() {
        let after = datetime!(9999-12-31 23:59:59 -23:59);
        assert_eq!(BackupId::at(after).as_str(), "99991231T235959.999Z");
        let before = datetime!(0000-01-01 00:00:00 +23:59);
        assert_eq!(BackupId::at(before).as_str(), "00000101T000000.000Z");
    }

    #[test]
    fn the_error_of_a_malformed_name_has_the_valid_format() {
        let error = "prod/../other".parse::<ApplicationName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"ApplicationName "prod/../other" is not 1 to 63 lower-case letters, digits and inner hyphens"#
        );
        assert!("20261323T021500.000Z".parse::<BackupId>().is_err());
        assert!("+2026112T021500.000Z".parse::<BackupId>().is_err());
        assert!("i-0123456789ABCDEF0".parse::<InstanceId>().is_err());
        assert!("AAAAAAAAAAA=".parse::<Crc64>().is_ok());
        assert!("äAAAAAAAAA==".parse::<Crc64>().is_err());
    }

    proptest! {
        #[test]
        fn backup_ids_sort_as_their_times(a in 0i64..253_402_300_799_999, b in 0i64..253_402_300_799_999) {
            let time = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            let (ida, idb) = (BackupId::at(time(a)), BackupId::at(time(b)));
            prop_assert_eq!(a.cmp(&b), ida.cmp(&idb));
            prop_assert_eq!(ida.as_str().parse::<BackupId>().unwrap().time(), time(a));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*") {
            let parsed = (text.parse::<BackupId>().is_ok(), text.parse::<Crc64>().is_ok(), text.parse::<InstanceId>().is_ok());
            prop_assert!(!(parsed.0 && parsed.1));
        }
    }
}
