//! What a person or a program reads at the end of a transfer.

use std::time::Duration;

use serde::Serialize;

use crate::integrity::{Algorithm, Checksum, ChecksumType, Verified};
use crate::progress::Operation;

/// The outcome of one finished transfer. Serialises to the last line that `--json` prints
/// (docs/CLI.md lists the fields).
///
/// ```no_run
/// # async fn run(object: brigade::Object) -> brigade::Result<()> {
/// let report = object.download_file("copy.bin").await?;
/// if !report.verified.is_proof() {
///     eprintln!("{}: {}", report.target, report.warnings.join("; "));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What the transfer did.
    pub operation: Operation,
    /// Where the bytes came from: a path or an `s3://` URL.
    pub source: String,
    /// Where they went.
    pub target: String,
    /// Payload bytes of the object.
    pub bytes: u64,
    /// Wall time from the call to the verified end, milliseconds.
    pub elapsed_ms: u64,
    /// Those of them that an earlier run had moved, and that were found to be there.
    pub resumed_bytes: u64,
    /// The bytes this run moved over the wall time.
    pub throughput_bytes_per_s: u64,
    /// Requests the payload was cut into; 1 for a single PUT or GET.
    pub parts: u32,
    /// Size of every part but the last, bytes.
    pub part_size_bytes: u64,
    /// Parts that were allowed in flight, in the end.
    pub concurrency: usize,
    /// Where the time went.
    pub time: TimeSpent,
    /// What most of it went to, as a person would say it.
    pub limited_by: &'static str,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// What was compared; see [`Verified`].
    pub verified: Verified,
    /// The checksum that was compared or, when unverified, the one computed here, if any.
    pub checksum: Option<ReportedChecksum>,
    /// The object's `ETag`, without quotes.
    pub etag: Option<String>,
    /// The source's `ETag` as its store wrote it, where the source is an object.
    pub source_etag: Option<String>,
    /// The object's version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// Name of the store profile that was in force.
    pub store_profile: String,
    /// What the person should know although it did not end the transfer.
    pub warnings: Vec<String>,
}

/// Where the time of a transfer went, as shares of all of it; together they are 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct TimeSpent {
    /// Waiting for the store to begin its answers.
    pub first_byte: f64,
    /// Bytes on their way.
    pub network: f64,
    /// Reading or writing files, or waiting for whoever reads the other end of a pipe.
    pub disk: f64,
    /// This machine's processors: running, or waiting for one.
    pub cpu: f64,
    /// Held back because the store had asked for fewer requests.
    pub throttled: f64,
    /// Held back by [`crate::SessionOptions::bandwidth_limit_bytes_per_s`].
    pub bandwidth_limit: f64,
    /// Waiting for the store and the network, where more parts in flight would have brought more, and
    /// a bound (memory, open files) kept them out.
    pub window: f64,
}

impl TimeSpent {
    /// What most of the time went to, and how much.
    pub fn limited_by(&self) -> (&'static str, f64) {
        let all = [
            ("the store's first byte", self.first_byte),
            ("the network", self.network),
            ("the disk", self.disk),
            ("the processors", self.cpu),
            ("the store, which asked for fewer requests", self.throttled),
            ("the bandwidth limit", self.bandwidth_limit),
            ("the parts in flight", self.window),
        ];
        all.into_iter().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(all[0])
    }
}

/// A checksum as reports show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportedChecksum {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Over the whole object, or over its parts' checksums.
    #[serde(rename = "type")]
    pub kind: ChecksumType,
    /// As S3 writes it: base64, with `-N` after a composite of N parts.
    pub value: String,
}

impl From<&Checksum> for ReportedChecksum {
    fn from(checksum: &Checksum) -> Self {
        Self { algorithm: checksum.algorithm, kind: checksum.kind, value: checksum.to_string() }
    }
}

/// Bytes a second, rounded down; a transfer too short to time counts as a microsecond.
pub(crate) fn throughput(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_survives_the_extremes() {
        assert_eq!(throughput(0, Duration::ZERO), 0);
        assert_eq!(throughput(1_000, Duration::from_secs(2)), 500);
        assert_eq!(throughput(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
