//! The false reports of a compromised node.

use shared::command::Purpose;
use shared::layout;
use shared::manifest::{ImageRecord, MOST_INDEX_BYTES};
use shared::report::MOST_REPORT_BYTES;

use crate::{FalseAnswer, line};

/// Every false answer: its name, a part of the refusal, and the answer.
pub(crate) const FALSE_ANSWERS: [(&str, &str, FalseAnswer); 18] = [
    ("no report", "holds no report", |_, _| {
        Ok("done\n".to_owned())
    }),
    (
        "a report that is too long",
        "bytes, at most",
        |scenario, backup| {
            let report = line(scenario.backup(backup, |_| Ok(()))?);
            let padding = " ".repeat(MOST_REPORT_BYTES);
            Ok(report.replacen(':', &format!(":{padding}"), 1))
        },
    ),
    (
        "an impossible duration",
        "no duration",
        |scenario, backup| {
            let mut report = scenario.backup(backup, |_| Ok(()))?;
            report.seconds = 1e308;
            Ok(line(report))
        },
    ),
    (
        "a path instead of a run id",
        "not readable",
        |scenario, backup| {
            let report = scenario.backup(backup, |_| Ok(()))?;
            let run = report.run_id.to_string();
            Ok(line(report).replace(&run, "../../../victim"))
        },
    ),
    ("an older report", "is of the operation", |scenario, _| {
        // The report of the node's own committed backup.
        let own = &scenario.own;
        let report = scenario.backup(&own.index.backup_id, |_| Ok(()))?;
        Ok(line(report))
    }),
    ("an older backup", "is of the backup", |scenario, backup| {
        let mut report = scenario.backup(backup, |_| Ok(()))?;
        report.backup_id = scenario.own.index.backup_id.clone();
        Ok(line(report))
    }),
    (
        "another backup's index",
        "it describes",
        |scenario, backup| {
            let older = scenario.own.index.backup_id.clone();
            let report = scenario.backup(backup, |index| {
                index.backup_id = older;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "the victim's own index",
        "it describes victim/",
        |scenario, backup| {
            let theirs = scenario.theirs.index.clone();
            let report = scenario.backup(backup, |index| {
                *index = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "the victim's objects",
        "lies outside the backup",
        |scenario, backup| {
            let theirs = scenario.theirs.index.objects.clone();
            let report = scenario.backup(backup, |index| {
                index.objects = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "the victim's objects in addition",
        "lies outside the backup",
        |scenario, backup| {
            let theirs = scenario.theirs.index.objects.clone();
            let report = scenario.backup(backup, |index| {
                for mut record in theirs {
                    let own = &index.objects[0].key;
                    let prefix = own.strip_suffix(layout::GLOBALS).unwrap_or(own);
                    record.key = format!("{prefix}../../../../../{}", record.key);
                    index.objects.push(record);
                }
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    ("the victim's image", "lies at", |scenario, backup| {
        let (application, theirs) = (
            scenario.theirs.index.application.clone(),
            scenario.theirs.index.objects.clone(),
        );
        let report = scenario.backup(backup, |index| {
            let mut object = theirs[0].clone();
            let id = object.sha256.clone();
            object.key = layout::image(&application, &id);
            let names = vec![];
            index.images = vec![ImageRecord { id, names, object }];
            Ok(())
        });
        Ok(line(report?))
    }),
    (
        "an image that is not in the bucket",
        "it is not in the bucket",
        |scenario, backup| {
            let report = scenario.backup(backup, |index| {
                let mut object = index.objects[0].clone();
                let id = object.sha256.clone();
                object.key = layout::image(&index.application, &id);
                object.version_id = None;
                let names = vec![];
                index.images = vec![ImageRecord { id, names, object }];
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    ("too many images", "at most 64", |scenario, backup| {
        let report = scenario.backup(backup, |index| {
            let object = index.objects[0].clone();
            let (id, names) = (object.sha256.clone(), vec![]);
            index.images = vec![ImageRecord { id, names, object }; 65];
            Ok(())
        });
        Ok(line(report?))
    }),
    (
        "one object ten thousand times",
        "is no part of a backup",
        |scenario, backup| {
            let report = scenario.backup(backup, |index| {
                let mut more = index.objects[0].clone();
                let end = more.key.rfind('/').map_or(0, |slash| slash + 1);
                more.key.replace_range(end.., "more");
                index.objects.extend(vec![more; 10_000]);
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "an index that is too large",
        "at most",
        |scenario, backup| {
            let mut report = scenario.backup(backup, |_| Ok(()))?;
            report.index_size = MOST_INDEX_BYTES + 1;
            Ok(line(report))
        },
    ),
    (
        "an index larger than reported",
        "bytes that are read",
        |scenario, backup| {
            let mut report = scenario.backup(backup, |index| {
                index.versions.pg_dump = "x".repeat(100_000);
                Ok(())
            })?;
            report.index_size = 1_000;
            Ok(line(report))
        },
    ),
    (
        "the victim's instance",
        "its instance is",
        |scenario, backup| {
            let theirs = scenario.theirs.index.node.clone();
            let report = scenario.backup(backup, |index| {
                index.node = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    ("another purpose", "its purpose is", |scenario, backup| {
        let report = scenario.backup(backup, |index| {
            index.purpose = Purpose::Adopt;
            Ok(())
        });
        Ok(line(report?))
    }),
];
