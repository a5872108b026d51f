//! The two digests of every object: SHA-256, which Rekindle verifies, and CRC-64/NVME, which S3 verifies.

use crc_fast::{CrcAlgorithm, Digest as CrcDigest};
use sha2::{Digest as _, Sha256 as Sha256Hasher};

use crate::id::{Crc64, Sha256};

/// Computes the digests of one object from its bytes, chunk by chunk.
pub struct ObjectDigest {
    sha256: Sha256Hasher,
    crc64: CrcDigest,
    size: u64,
}

/// The size and digests of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The size in bytes.
    pub size: u64,
    /// The SHA-256, verified by every restore.
    pub sha256: Sha256,
    /// The CRC-64/NVME, verified by S3 when the object is completed.
    pub crc64: Crc64,
}

impl ObjectDigest {
    /// Returns the digests of no bytes.
    pub fn new() -> Self {
        Self {
            sha256: Sha256Hasher::new(),
            crc64: CrcDigest::new(CrcAlgorithm::Crc64Nvme),
            size: 0,
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc64.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Returns the size and digests of all bytes.
    pub fn finish(self) -> Digests {
        Digests {
            size: self.size,
            sha256: Sha256::of(&self.sha256.finalize().into()),
            crc64: Crc64::of(self.crc64.finalize()),
        }
    }
}

impl Default for ObjectDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the size and digests of these bytes.
pub fn digests(bytes: &[u8]) -> Digests {
    let mut digest = ObjectDigest::new();
    digest.update(bytes);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn digests_equal_the_published_check_values() {
        // The check value of CRC-64/NVME over "123456789" in the catalogue of parametrised CRC algorithms.
        let digests = digests(b"123456789");
        assert_eq!(digests.size, 9);
        assert_eq!(
            digests.crc64.as_str(),
            STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes())
        );
        assert_eq!(
            digests.sha256.as_str(),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }
}
