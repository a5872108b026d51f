//! Reads the objects of a backup: its contents, its globals and its configuration. Every object is verified.

use std::io::Read as _;

use shared::exit_code::ExitCode;
use shared::layout;
use shared::manifest::{Index, ObjectRecord};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::context::Context;
use crate::objects::contents::Contents;
use crate::postgres::encoding;
use crate::restore::unpack::{Places, UnpackError, unpack};
use crate::s3::download;

/// The largest compressed contents and globals that are read, in bytes.
const MOST_COMPRESSED_BYTES: u64 = 32 * 1024 * 1024;
/// The largest globals, in bytes before compression: some hundred thousand roles.
const MOST_GLOBALS_BYTES: u64 = 64 * 1024 * 1024;

/// Returns the record of an object with this name.
pub(super) fn record<'i>(index: &'i Index, name: &str) -> Result<&'i ObjectRecord> {
    index
        .object(name)
        .or_fail(ExitCode::Verification, || "cannot read the backup's index")
}

/// Reads the contents, and checks that they describe the databases of the index.
pub(super) async fn contents(context: &Context, index: &Index) -> Result<Contents> {
    let record = record(index, layout::CONTENTS)?;
    let bytes = download::whole(&context.bucket, record, MOST_COMPRESSED_BYTES).await?;
    let contents = Contents::from_bytes(&bytes)?;
    let described: Vec<&str> = contents
        .databases
        .iter()
        .map(|database| database.properties.name.as_str())
        .collect();
    let listed: Vec<&str> = index
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .collect();
    if described != listed {
        let message = format!(
            "cannot use the backup's contents: they describe the databases {described:?}, but the index lists {listed:?}; \
             restore another backup"
        );
        return Err(Failure::new(ExitCode::Verification, message));
    }
    Ok(contents)
}

/// Reads the globals.
pub(super) async fn globals(context: &Context, index: &Index) -> Result<String> {
    let record = record(index, layout::GLOBALS)?;
    let bytes = download::whole(&context.bucket, record, MOST_COMPRESSED_BYTES).await?;
    let decode = || -> anyhow::Result<String> {
        let mut text = Vec::new();
        zstd::Decoder::new(&bytes[..])?
            .take(MOST_GLOBALS_BYTES + 1)
            .read_to_end(&mut text)?;
        anyhow::ensure!(
            text.len() as u64 <= MOST_GLOBALS_BYTES,
            "they have more than {MOST_GLOBALS_BYTES} bytes; restore another backup"
        );
        Ok(encoding::decode(&text))
    };
    decode().or_fail(
        ExitCode::Verification,
        || "cannot read the backup's globals",
    )
}

/// Unpacks the configuration of the backup to these places.
pub(super) async fn unpack_configuration(
    context: &Context,
    index: &Index,
    places: Places,
) -> Result<()> {
    let record = record(index, layout::CONFIGURATION)?;
    let unpacked = download::read(&context.bucket, record, move |reader| {
        let decoder = zstd::Decoder::new(reader).map_err(UnpackError::Read)?;
        unpack(decoder, &places)
    });
    unpacked.await?.map_err(|error| {
        let code = match error {
            UnpackError::Archive(_) | UnpackError::Read(_) => ExitCode::Verification,
            UnpackError::Write { .. } => ExitCode::ConfigurationRestore,
        };
        Failure::caused(code, error, "cannot unpack the configuration")
    })
}
