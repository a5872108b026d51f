//! S3's checksums: reads the sent ones, computes them, and compares the two.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, ChecksumAlgorithm};
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// The checksums of an object, a part or a request, in Base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

/// Reads the five checksum members that many of S3's inputs have.
macro_rules! checksums_of {
    ($input:expr) => {
        $crate::standin::s3::checksums::Checksums {
            crc32: $input.checksum_crc32.clone(),
            crc32c: $input.checksum_crc32c.clone(),
            crc64nvme: $input.checksum_crc64nvme.clone(),
            sha1: $input.checksum_sha1.clone(),
            sha256: $input.checksum_sha256.clone(),
        }
    };
}
pub(super) use checksums_of;

/// The checksum algorithms, by S3's names.
pub(super) const ALGORITHMS: [&str; 5] = [
    ChecksumAlgorithm::CRC32,
    ChecksumAlgorithm::CRC32C,
    ChecksumAlgorithm::CRC64NVME,
    ChecksumAlgorithm::SHA1,
    ChecksumAlgorithm::SHA256,
];

impl Checksums {
    /// Returns the checksums that a hasher has computed.
    pub(super) fn computed(checksum: &Checksum) -> Self {
        checksums_of!(checksum)
    }

    /// Returns the checksum of an algorithm, or `None` if it is missing.
    pub(super) fn of(&self, algorithm: &str) -> Option<&String> {
        match algorithm {
            ChecksumAlgorithm::CRC32 => self.crc32.as_ref(),
            ChecksumAlgorithm::CRC32C => self.crc32c.as_ref(),
            ChecksumAlgorithm::CRC64NVME => self.crc64nvme.as_ref(),
            ChecksumAlgorithm::SHA1 => self.sha1.as_ref(),
            ChecksumAlgorithm::SHA256 => self.sha256.as_ref(),
            _ => None,
        }
    }

    /// Returns checksums with one algorithm only.
    pub(super) fn only(algorithm: &str, value: Option<String>) -> Self {
        let mut checksums = Self::default();
        match algorithm {
            ChecksumAlgorithm::CRC32 => checksums.crc32 = value,
            ChecksumAlgorithm::CRC32C => checksums.crc32c = value,
            ChecksumAlgorithm::CRC64NVME => checksums.crc64nvme = value,
            ChecksumAlgorithm::SHA1 => checksums.sha1 = value,
            ChecksumAlgorithm::SHA256 => checksums.sha256 = value,
            _ => {}
        }
        checksums
    }

    /// Returns the algorithms that have a checksum.
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let present = |name: &&str| self.of(name).is_some();
        ALGORITHMS.into_iter().filter(present).collect()
    }

    /// Adds the checksums that followed an aws-chunked body. The body must have been read to its end.
    pub(super) fn add_trailers(&mut self, trailers: Option<&TrailingHeaders>) -> S3Result<()> {
        let Some(trailers) = trailers.and_then(TrailingHeaders::take) else {
            return Ok(());
        };
        for (name, slot) in [
            ("x-amz-checksum-crc32", &mut self.crc32),
            ("x-amz-checksum-crc32c", &mut self.crc32c),
            ("x-amz-checksum-crc64nvme", &mut self.crc64nvme),
            ("x-amz-checksum-sha1", &mut self.sha1),
            ("x-amz-checksum-sha256", &mut self.sha256),
        ] {
            if let Some(value) = trailers.get(name) {
                let value = value.to_str().map_err(|_| s3_error!(InvalidArgument))?;
                *slot = Some(value.to_owned());
            }
        }
        Ok(())
    }

    /// Returns `BadDigest` if a sent checksum differs from the computed one.
    pub(super) fn verify(&self, computed: &Self) -> S3Result<()> {
        for algorithm in self.algorithms() {
            if self.of(algorithm) != computed.of(algorithm) {
                return Err(s3_error!(
                    BadDigest,
                    "The {algorithm} you specified did not match the calculated checksum."
                ));
            }
        }
        Ok(())
    }
}

/// Returns a hasher for these algorithms.
pub(super) fn hasher(algorithms: &[&str]) -> ChecksumHasher {
    let wanted = |name: &str| algorithms.contains(&name);
    ChecksumHasher {
        crc32: wanted(ChecksumAlgorithm::CRC32).then(Default::default),
        crc32c: wanted(ChecksumAlgorithm::CRC32C).then(Default::default),
        crc64nvme: wanted(ChecksumAlgorithm::CRC64NVME).then(Default::default),
        sha1: wanted(ChecksumAlgorithm::SHA1).then(Default::default),
        sha256: wanted(ChecksumAlgorithm::SHA256).then(Default::default),
    }
}

/// Returns the checksum of a multipart object's part checksums, with the number of parts at its end. Returns `None` if a
/// part lacks this checksum.
pub(super) fn composite(algorithm: &str, parts: &[Checksums]) -> S3Result<Option<String>> {
    let mut hasher = hasher(&[algorithm]);
    for part in parts {
        let Some(checksum) = part.of(algorithm) else {
            return Ok(None);
        };
        let bytes = STANDARD
            .decode(checksum)
            .map_err(|_| s3_error!(InvalidArgument))?;
        hasher.update(&bytes);
    }
    let checksum = Checksums::computed(&hasher.finalize());
    let value = checksum
        .of(algorithm)
        .map(|value| format!("{value}-{}", parts.len()));
    Ok(value)
}
