//! Metrics, as lines of CloudWatch's embedded metric format on standard output.
//!
//! This module uses no library: `metrique` adds 27 crates and a thread with a queue, and Lambda would freeze that
//! thread with the last metrics of an invocation.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::id::ApplicationName;

/// A measurement of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Seconds since the newest committed backup was requested: the data loss if the node failed now.
    BackupAge,
    /// Bytes of a committed backup in S3.
    BackupBytes,
    /// Seconds that a backup took on the node.
    BackupSeconds,
    /// Rows in a committed backup.
    BackupRows,
    /// Seconds that a restore took on the node.
    RestoreSeconds,
    /// Seconds between a restored backup's start and its restore: the data loss.
    RestoredAge,
    /// 1 while the launches of a group of the application are suspended; not printed otherwise.
    LaunchesSuspended,
    /// 1 while a backup of the application is quarantined; not printed otherwise.
    BackupsQuarantined,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::BackupAge => "BackupAge",
            Self::BackupBytes => "BackupBytes",
            Self::BackupSeconds => "BackupSeconds",
            Self::BackupRows => "BackupRows",
            Self::RestoreSeconds => "RestoreSeconds",
            Self::RestoredAge => "RestoredAge",
            Self::LaunchesSuspended => "LaunchesSuspended",
            Self::BackupsQuarantined => "BackupsQuarantined",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::BackupBytes => "Bytes",
            Self::BackupRows | Self::LaunchesSuspended | Self::BackupsQuarantined => "Count",
            Self::BackupAge | Self::BackupSeconds | Self::RestoreSeconds | Self::RestoredAge => {
                "Seconds"
            }
        }
    }
}

/// Prints measurements of an application in one line, and nothing if there are none. `namespace` is CloudWatch's.
pub fn measured(
    namespace: &str,
    now: OffsetDateTime,
    application: &ApplicationName,
    values: &[(Metric, f64)],
) {
    if !values.is_empty() {
        print(&measurements(namespace, now, application, values));
    }
}

/// Prints one count of the metric `Failures`. `kind` is [`crate::kind::Kind::as_str`]. `application` is `None` if the
/// failure concerns no application, or an unknown one.
pub fn failed(
    namespace: &str,
    now: OffsetDateTime,
    application: Option<&ApplicationName>,
    kind: &str,
) {
    print(&failure(namespace, now, application, kind));
}

fn measurements(
    namespace: &str,
    now: OffsetDateTime,
    application: &ApplicationName,
    values: &[(Metric, f64)],
) -> Value {
    let metrics: Vec<Value> = values
        .iter()
        .map(|(metric, _)| json!({"Name": metric.name(), "Unit": metric.unit()}))
        .collect();
    let mut line = envelope(namespace, now, &json!([["Application"]]), &metrics);
    line.insert("Application".to_owned(), json!(application));
    line.extend(
        values
            .iter()
            .map(|(metric, value)| (metric.name().to_owned(), json!(value))),
    );
    Value::Object(line)
}

/// The alarm uses the metric without dimensions; the dimensions show the application and the kind.
fn failure(
    namespace: &str,
    now: OffsetDateTime,
    application: Option<&ApplicationName>,
    kind: &str,
) -> Value {
    let dimensions = match application {
        Some(_) => json!([[], ["Application"], ["Application", "Kind"]]),
        None => json!([[], ["Kind"]]),
    };
    let metrics = [json!({"Name": "Failures", "Unit": "Count"})];
    let mut line = envelope(namespace, now, &dimensions, &metrics);
    if let Some(application) = application {
        line.insert("Application".to_owned(), json!(application));
    }
    line.insert("Kind".to_owned(), json!(kind));
    line.insert("Failures".to_owned(), json!(1));
    Value::Object(line)
}

fn envelope(
    namespace: &str,
    now: OffsetDateTime,
    dimensions: &Value,
    metrics: &[Value],
) -> Map<String, Value> {
    let milliseconds = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let directive = json!({"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics});
    let aws = json!({"Timestamp": milliseconds, "CloudWatchMetrics": [directive]});
    Map::from_iter([("_aws".to_owned(), aws)])
}

#[expect(
    clippy::print_stdout,
    reason = "CloudWatch reads metrics from standard output"
)]
fn print(line: &Value) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-23 02:15:00 UTC);

    #[test]
    fn a_measurement_is_one_embedded_metric_line() {
        let application = "dtr".parse().unwrap();
        let values = [(Metric::BackupAge, 62.5), (Metric::BackupRows, 100_000.0)];
        let line = measurements("Rekindle", NOW, &application, &values);
        let metrics = json!([{"Name": "BackupAge", "Unit": "Seconds"}, {"Name": "BackupRows", "Unit": "Count"}]);
        let directive =
            json!({"Namespace": "Rekindle", "Dimensions": [["Application"]], "Metrics": metrics});
        let expected = json!({
            "_aws": {"Timestamp": 1_795_400_100_000_i64, "CloudWatchMetrics": [directive]},
            "Application": "dtr", "BackupAge": 62.5, "BackupRows": 100_000.0,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_failure_is_counted_with_and_without_its_dimensions() {
        let application = "dtr".parse().unwrap();
        let line = failure("Rekindle", NOW, Some(&application), "Busy");
        let dimensions = &line["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
        assert_eq!(
            dimensions,
            &json!([[], ["Application"], ["Application", "Kind"]])
        );
        assert_eq!(
            (&line["Application"], &line["Kind"], &line["Failures"]),
            (&json!("dtr"), &json!("Busy"), &json!(1))
        );

        let line = failure("Rekindle", NOW, None, "Event");
        let dimensions = &line["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
        assert_eq!(dimensions, &json!([[], ["Kind"]]));
        assert_eq!(
            (line.get("Application"), &line["Kind"]),
            (None, &json!("Event"))
        );
    }
}
