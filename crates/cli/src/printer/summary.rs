//! A finished transfer in one line.

use std::fmt::Write as _;

use brigade::Report;
use brigade::dataset::{JobReport, VerifyReport};
use brigade::integrity::{Algorithm, Verified};
use brigade::limits::format_size;
use brigade::progress::Operation;

use crate::format::{count, elapsed, one_line, rate};

/// `uploaded f to s3://b/k: 1.0 GiB in 0.42 s (2.4 GiB/s), 128 parts, verified full-object CRC32 …`
pub(super) fn line(report: &Report) -> String {
    let verb = done(report.operation);
    format!(
        "{verb} {} to {}: {}",
        one_line(&report.source),
        one_line(&report.target),
        outcome(report)
    )
}

/// What was done, in a word.
pub(super) fn done(operation: Operation) -> &'static str {
    match operation {
        Operation::Upload => "uploaded",
        Operation::Download => "downloaded",
        Operation::Copy => "copied",
        _ => "moved",
    }
}

/// `copied 1200 objects from photos to s3://b/photos/: 1.0 GiB in 3.2 s (320 MiB/s, 375 objects/s), …`
pub(super) fn job(report: &JobReport) -> String {
    let (verb, deleted) = match (report.job, report.dry_run) {
        ("move", false) => ("moved", "removed"),
        ("sync", false) => ("synced", "deleted"),
        (_, false) => ("copied", "deleted"),
        ("move", true) => ("would move", "to be removed"),
        ("sync", true) => ("would sync", "to be deleted"),
        (_, true) => ("would copy", "to be deleted"),
    };
    let moved = count(report.objects, "object");
    let ends = match report.job {
        "run" => format!("of {}", one_line(&report.source)),
        _ => format!("from {} to {}", one_line(&report.source), one_line(&report.target)),
    };
    let mut text = format!("{verb} {moved} {ends}: {}", format_size(report.bytes));
    if !report.dry_run {
        let per_s =
            (report.objects * 1000).checked_div(report.elapsed_ms).unwrap_or(report.objects);
        let _ = write!(
            text,
            " in {} ({}, {per_s} objects/s)",
            elapsed(report.elapsed_ms),
            rate(report.throughput_bytes_per_s)
        );
    }
    let counts = [
        (report.same, "the same"),
        (report.deleted, deleted),
        (report.not_deleted, "not deleted"),
        (report.skipped, "left out"),
        (report.unverified, "unverified"),
        (report.failed, "failed"),
    ];
    for (number, what) in counts.into_iter().filter(|(number, _)| *number > 0) {
        let _ = write!(text, ", {number} {what}");
    }
    if report.retries > 0 {
        let attempts = count(report.retries, "repeated attempt");
        let _ = write!(text, ", {attempts}");
    }
    if report.stopped {
        text.push_str(", stopped before the end");
    } else if !report.complete {
        text.push_str(", and not everything could be looked at");
    }
    if report.elapsed_ms >= 1000 && report.objects > 0 && !report.dry_run {
        let (what, share) = report.time.limited_by();
        let _ = write!(text, ", limited by: {what}, {:.0} %", 100.0 * share);
    }
    text
}

/// `verified 1200 objects, 3.2 GiB, in 4.1 s: identical 1198, different 2`
pub(super) fn verification(report: &VerifyReport) -> String {
    let counts = [
        (report.identical, "identical"),
        (report.different, "different"),
        (report.missing, "missing"),
        (report.extra, "extra"),
        (report.unverifiable, "unverifiable"),
        (report.failed, "failed"),
    ];
    let mut text = format!(
        "verified {} against {}: {} in {}",
        one_line(&report.source),
        one_line(&report.target),
        format_size(report.bytes),
        elapsed(report.elapsed_ms),
    );
    for (number, what) in
        counts.into_iter().filter(|(number, what)| *number > 0 || *what == "identical")
    {
        let _ = write!(text, ", {number} {what}");
    }
    if report.stopped {
        text.push_str(", stopped before the end");
    } else if !report.complete {
        text.push_str(", and not everything could be looked at");
    }
    text
}

/// The same without from where to where.
pub(crate) fn outcome(report: &Report) -> String {
    let mut text = format!(
        "{} in {} ({}), {}",
        format_size(report.bytes),
        elapsed(report.elapsed_ms),
        rate(report.throughput_bytes_per_s),
        count(report.parts.into(), "part"),
    );
    if report.resumed_bytes > 0 {
        text.push_str(", ");
        text.push_str(&format_size(report.resumed_bytes));
        text.push_str(" of it by an earlier run");
    }
    if report.retries > 0 {
        text.push_str(", ");
        text.push_str(&count(report.retries, "attempt").replace("attempt", "repeated attempt"));
    }
    let checksum = report.checksum.as_ref().map(|sum| (sum.algorithm, sum.value.as_str()));
    text.push_str(", ");
    text.push_str(&proof(report.verified, checksum, &report.warnings));
    // Of what took no time there is nothing to learn.
    if report.elapsed_ms >= 1000 {
        let (what, share) = report.time.limited_by();
        let _ = write!(text, ", limited by: {what}, {:.0} %", 100.0 * share);
    }
    text
}

/// What was proven. Where nothing was, the reasons stand in the same line, because the line may be
/// all that a log keeps.
fn proof(verified: Verified, checksum: Option<(Algorithm, &str)>, warnings: &[String]) -> String {
    if !verified.is_proof() {
        return unproven(warnings);
    }
    match checksum {
        // The tier's name is the algorithm's.
        Some((Algorithm::Md5, value)) => format!("verified md5 {value}"),
        Some((algorithm, value)) => {
            format!("verified {verified} {} {value}", algorithm.name().to_ascii_uppercase())
        }
        None => format!("verified {verified}"),
    }
}

/// The engine begins the warning that holds the reason with the same word; other warnings are told
/// on their own. Where somebody asked for no verification, there is no warning and no reason.
fn unproven(warnings: &[String]) -> String {
    let reason = warnings.iter().find(|warning| warning.starts_with("unverified"));
    reason.map_or_else(|| "unverified".into(), |reason| one_line(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_names_its_tier_and_value() {
        let shown = |verified, sum| proof(verified, sum, &[]);
        assert_eq!(
            shown(Verified::FullObject, Some((Algorithm::Crc32, "y/Q5Jg=="))),
            "verified full-object CRC32 y/Q5Jg=="
        );
        assert_eq!(
            shown(Verified::Composite, Some((Algorithm::Sha256, "abc=-5"))),
            "verified composite SHA256 abc=-5"
        );
        assert_eq!(shown(Verified::Md5, Some((Algorithm::Md5, "abc"))), "verified md5 abc");
        assert_eq!(shown(Verified::Md5, None), "verified md5");
    }

    #[test]
    fn the_absence_of_proof_is_said_with_its_reason() {
        assert_eq!(proof(Verified::Unverified, None, &[]), "unverified");
        let warnings = ["other".to_owned(), "unverified: no checksum\nrecorded".to_owned()];
        assert_eq!(
            proof(Verified::Unverified, Some((Algorithm::Crc32, "y/Q5Jg==")), &warnings),
            "unverified: no checksum\\nrecorded"
        );
    }
}
