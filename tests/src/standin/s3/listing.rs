//! Lists objects in the order of their keys, page by page.

use std::ops::Bound;

use s3s::dto::{CommonPrefix, ETag, ListObjectsV2Input, ListObjectsV2Output, Object};
use s3s::{S3Result, s3_error};

use super::store::{Record, Store};

/// The most keys and prefixes on a page.
const MAX_KEYS: i32 = 1000;

impl Store {
    /// Returns the objects below a prefix, in the order of their keys.
    pub(super) fn below(&self, bucket: &str, prefix: &str) -> S3Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut from = Bound::Included(prefix.to_owned());
        while let Some(key) = self.keys.first(bucket, &from, prefix) {
            records.extend(self.record(bucket, &key)?);
            from = Bound::Excluded(key);
        }
        Ok(records)
    }

    /// Returns one page of a listing.
    pub(super) fn list(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        self.check_bucket(&input.bucket)?;
        let bucket = input.bucket.as_str();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|it| !it.is_empty());
        let limit = input.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let Ok(limit) = usize::try_from(limit) else {
            return Err(s3_error!(InvalidArgument, "max-keys is negative"));
        };
        let marker = input
            .continuation_token
            .as_ref()
            .max(input.start_after.as_ref());
        let mut from = match marker {
            Some(marker) if marker.as_str() >= prefix => Bound::Excluded(marker.clone()),
            _ => Bound::Included(prefix.to_owned()),
        };
        let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
        let (mut last, mut is_truncated) = (None, false);
        while let Some(key) = self.keys.first(bucket, &from, prefix) {
            let Some(record) = self.record(bucket, &key)? else {
                from = Bound::Excluded(key);
                continue;
            };
            let folder = delimiter.and_then(|delimiter| {
                let at = key[prefix.len()..].find(delimiter)?;
                Some(key[..prefix.len() + at + delimiter.len()].to_owned())
            });
            // If the last page ended with this folder, this page starts after all of its keys.
            let named_before = folder.as_ref().is_some_and(|folder| marker >= Some(folder));
            if !named_before && contents.len() + common_prefixes.len() >= limit {
                is_truncated = limit > 0;
                break;
            }
            if let Some(folder) = folder {
                from = Bound::Excluded(format!("{folder}{}", char::MAX));
                if !named_before {
                    last = Some(folder.clone());
                    common_prefixes.push(CommonPrefix {
                        prefix: Some(folder),
                    });
                }
            } else {
                from = Bound::Excluded(key.clone());
                last = Some(key);
                contents.push(listed(record));
            }
        }
        let count = contents.len() + common_prefixes.len();
        Ok(ListObjectsV2Output {
            key_count: i32::try_from(count).ok(),
            max_keys: i32::try_from(limit).ok(),
            is_truncated: Some(is_truncated),
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: (!common_prefixes.is_empty()).then_some(common_prefixes),
            next_continuation_token: last.filter(|_| is_truncated),
            continuation_token: input.continuation_token,
            delimiter: input.delimiter,
            name: Some(input.bucket),
            prefix: input.prefix,
            start_after: input.start_after,
            ..Default::default()
        })
    }
}

/// Returns an object's entry in a listing.
fn listed(record: Record) -> Object {
    let algorithms = record.checksums.algorithms().into_iter();
    Object {
        checksum_algorithm: Some(algorithms.map(|name| name.to_owned().into()).collect()),
        last_modified: Some(record.created.into()),
        e_tag: Some(ETag::Strong(record.e_tag)),
        size: i64::try_from(record.size).ok(),
        key: Some(record.key),
        ..Default::default()
    }
}
