//! One streaming writer into S3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The multipart uploads of this process that are neither completed nor aborted.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenUploads {
    open: Arc<Mutex<HashMap<String, String>>>,
}
