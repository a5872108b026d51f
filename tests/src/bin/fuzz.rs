//! Searches for inputs that break a promise, guided by coverage. `make fuzz` builds it and runs it once per target.
//!
//! libFuzzer parses the command line: options, and folders of inputs. The name of the first folder is the target.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rekindle_tests::fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let arguments = std::env::args().skip(1);
    let folder = arguments.into_iter().find(|one| !one.starts_with('-'));
    let folder = folder.unwrap_or_default();
    let name = Path::new(&folder)
        .file_name()
        .and_then(|name| name.to_str());
    let target = Target::named(name.unwrap_or_default());
    target.unwrap_or_else(|error| unreachable!("{error}"))
});

fuzz_target!(|input: &[u8]| (TARGET.check)(input));
