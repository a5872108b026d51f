//! What a node that somebody has taken over says.

use shared::command::Purpose;
use shared::layout;
use shared::manifest::{ImageRecord, MOST_INDEX_BYTES};
use shared::report::MOST_REPORT_BYTES;

use crate::{Lie, line};

/// Every lie, with words of the refusal.
pub(crate) const LIES: [(&str, &str, Lie); 18] = [
    ("nothing", "holds no report", |_, _| Ok("done\n".to_owned())),
    (
        "a report that is too long",
        "bytes, at most",
        |scene, backup| {
            let report = line(scene.backup(backup, |_| Ok(()))?);
            let padding = " ".repeat(MOST_REPORT_BYTES);
            Ok(report.replacen(':', &format!(":{padding}"), 1))
        },
    ),
    ("a duration that is none", "no duration", |scene, backup| {
        let mut report = scene.backup(backup, |_| Ok(()))?;
        report.seconds = 1e308;
        Ok(line(report))
    }),
    (
        "an application's name for a run",
        "not readable",
        |scene, backup| {
            let report = scene.backup(backup, |_| Ok(()))?;
            let run = report.run_id.to_string();
            Ok(line(report).replace(&run, "../../../victim"))
        },
    ),
    ("an older report", "answers the operation", |scene, _| {
        // As it was when it was good, and committed.
        let own = &scene.own;
        let report = scene.backup(&own.index.backup_id, |_| Ok(()))?;
        Ok(line(report))
    }),
    ("an older backup", "names the backup", |scene, backup| {
        let mut report = scene.backup(backup, |_| Ok(()))?;
        report.backup_id = scene.own.index.backup_id.clone();
        Ok(line(report))
    }),
    ("another backup's index", "it describes", |scene, backup| {
        let older = scene.own.index.backup_id.clone();
        let report = scene.backup(backup, |index| {
            index.backup_id = older;
            Ok(())
        });
        Ok(line(report?))
    }),
    (
        "the victim's own index",
        "it describes victim/",
        |scene, backup| {
            let theirs = scene.theirs.index.clone();
            let report = scene.backup(backup, |index| {
                *index = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "the victim's objects",
        "lies outside the backup",
        |scene, backup| {
            let theirs = scene.theirs.index.objects.clone();
            let report = scene.backup(backup, |index| {
                index.objects = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "the victim's objects besides",
        "lies outside the backup",
        |scene, backup| {
            let theirs = scene.theirs.index.objects.clone();
            let report = scene.backup(backup, |index| {
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
    ("the victim's image", "lies at", |scene, backup| {
        let (application, theirs) = (
            scene.theirs.index.application.clone(),
            scene.theirs.index.objects.clone(),
        );
        let report = scene.backup(backup, |index| {
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
        "an image that nobody has saved",
        "it is not in the bucket",
        |scene, backup| {
            let report = scene.backup(backup, |index| {
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
    (
        "more images than are looked at",
        "at most 64",
        |scene, backup| {
            let report = scene.backup(backup, |index| {
                let object = index.objects[0].clone();
                let (id, names) = (object.sha256.clone(), vec![]);
                index.images = vec![ImageRecord { id, names, object }; 65];
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    (
        "one object ten thousand times",
        "is no part of a backup",
        |scene, backup| {
            let report = scene.backup(backup, |index| {
                let mut more = index.objects[0].clone();
                let end = more.key.rfind('/').map_or(0, |slash| slash + 1);
                more.key.replace_range(end.., "more");
                index.objects.extend(vec![more; 10_000]);
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    ("an index that is too large", "at most", |scene, backup| {
        let mut report = scene.backup(backup, |_| Ok(()))?;
        report.index_size = MOST_INDEX_BYTES + 1;
        Ok(line(report))
    }),
    (
        "an index larger than reported",
        "bytes that are read",
        |scene, backup| {
            let mut report = scene.backup(backup, |index| {
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
        |scene, backup| {
            let theirs = scene.theirs.index.node.clone();
            let report = scene.backup(backup, |index| {
                index.node = theirs;
                Ok(())
            });
            Ok(line(report?))
        },
    ),
    ("another purpose", "its purpose is", |scene, backup| {
        let report = scene.backup(backup, |index| {
            index.purpose = Purpose::Adopt;
            Ok(())
        });
        Ok(line(report?))
    }),
];
