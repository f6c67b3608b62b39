//! Where the key of SSE-C is: for commands that only read.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// See the module.
#[derive(Debug, Default, Args)]
pub(crate) struct CustomerKeyArgs {
    /// File with the 256-bit key of SSE-C: 32 raw bytes, or their base64.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          conflicts_with = "sse_c_key_env")]
    pub(crate) sse_c_key_file: Option<PathBuf>,

    /// Name of the environment variable that holds the key of SSE-C in base64.
    #[arg(long, value_name = "NAME")]
    pub(crate) sse_c_key_env: Option<String>,
}
