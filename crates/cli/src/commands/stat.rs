//! `brigade stat`: what the store knows of objects and buckets, one request for each.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use brigade::limits::format_size;
use brigade::{ObjectInfo, S3Url, Session};
use serde::Serialize;

use super::block_on;
use super::tally::Tally;
use super::watch::Watch;
use crate::args::StatArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{age, one_line};
use crate::meaning::Look;
use crate::printer::Printer;
use crate::signals::Stopped;

/// An object as `--json` has it.
#[derive(Serialize)]
struct Described<'a> {
    url: String,
    bucket: &'a str,
    key: &'a str,
    size_bytes: u64,
    etag: Option<&'a str>,
    version_id: Option<&'a str>,
    modified_unix_s: Option<u64>,
    storage_class: &'a str,
    encryption: Option<&'a str>,
    content_type: Option<&'a str>,
    parts: Option<u32>,
    checksums: Vec<Sum>,
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Sum {
    algorithm: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

/// A bucket.
#[derive(Serialize)]
struct DescribedBucket<'a> {
    url: String,
    bucket: &'a str,
    region: Option<&'a str>,
}

/// What an object has that names no class.
const STANDARD: &str = "STANDARD";

pub(super) fn run(
    args: &StatArgs,
    environment: &Environment,
    printer: &mut Printer,
) -> Result<Exit> {
    let look = Look::from_args(args, environment)?;
    for warning in &look.warnings {
        printer.warning(warning);
    }
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let session = watch.until(Session::new(look.session.clone())).await?;
        let mut tally = Tally::default();
        for (index, url) in look.urls.iter().enumerate() {
            match look_at(url, &look, &session, &mut watch).await {
                Ok(()) => tally.done += 1,
                Err(error) => {
                    let failure = Failure::from(&error);
                    if error.is::<Stopped>() {
                        watch.printer.failure(&failure);
                        tally.stop(look.urls.len() - index, failure.exit);
                        break;
                    }
                    tally.failure(&failure, watch.printer);
                }
            }
        }
        Ok(tally.exit())
    })
}

async fn look_at(url: &S3Url, look: &Look, session: &Session, watch: &mut Watch<'_>) -> Result<()> {
    if url.key().is_empty() {
        let bucket = session.bucket(url.bucket());
        let region = watch.until(bucket.look()).await?;
        let described = DescribedBucket {
            url: url.to_string(),
            bucket: url.bucket(),
            region: region.as_deref(),
        };
        let mut lines = vec![format!("s3://{}", url.bucket())];
        lines.extend(region.iter().map(|region| row("region", &one_line(region))));
        watch.printer.result(&lines.join("\n"), "bucket", &described);
        return Ok(());
    }
    let (version, key) = (look.version_id.clone(), look.customer_key.clone());
    let info = watch.until(session.object(url).info_of(version, key)).await?;
    let checksums = info.checksums.iter().map(|sum| Sum {
        algorithm: sum.algorithm.name(),
        kind: sum.kind.name(),
        value: sum.to_string(),
    });
    let described = Described {
        url: url.to_string(),
        bucket: url.bucket(),
        key: url.key(),
        size_bytes: info.size_bytes,
        etag: info.etag.as_deref(),
        version_id: info.version_id.as_deref(),
        modified_unix_s: info.last_modified.and_then(unix_s),
        storage_class: info.storage_class.as_deref().unwrap_or(STANDARD),
        encryption: info.encryption.as_deref(),
        content_type: info.content_type.as_deref(),
        parts: info.parts(),
        checksums: checksums.collect(),
        metadata: &info.metadata,
    };
    let text = lines(url, &info, SystemTime::now()).join("\n");
    watch.printer.result(&text, "object", &described);
    Ok(())
}

/// For people: what there is, and not what there is not.
fn lines(url: &S3Url, info: &ObjectInfo, now: SystemTime) -> Vec<String> {
    let mut lines = vec![one_line(&url.to_string())];
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| row(name, &one_line(&value))));
    };
    add("size", Some(format!("{} ({} bytes)", format_size(info.size_bytes), info.size_bytes)));
    add("modified", info.last_modified.and_then(|at| moment(at, now)));
    add("ETag", info.etag.clone());
    add("version", info.version_id.clone());
    add("storage class", Some(info.storage_class.clone().unwrap_or_else(|| STANDARD.into())));
    add("encryption", info.encryption.clone());
    add("content type", info.content_type.clone());
    add("parts", info.parts().map(|parts| parts.to_string()));
    for sum in &info.checksums {
        let name = sum.algorithm.name().to_ascii_uppercase();
        let kind = sum.kind.name().to_ascii_lowercase().replace('_', "-");
        add("checksum", Some(format!("{name} {sum}, {kind}")));
    }
    for (name, value) in &info.metadata {
        add("metadata", Some(format!("{name}={value}")));
    }
    lines
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<14} {value}")
}

/// A time of the store's clock, and how long ago that was.
fn moment(at: SystemTime, now: SystemTime) -> Option<String> {
    // What is before 1970 or behind the year 9999 is no time of an object, and cannot be written so.
    let since = Duration::from_secs(unix_s(at).filter(|s| *s < 253_402_300_800)?);
    let written = humantime::format_rfc3339_seconds(UNIX_EPOCH + since);
    Some(match now.duration_since(at) {
        Ok(ago) => format!("{written} ({} ago)", age(ago)),
        Err(_) => written.to_string(),
    })
}

fn unix_s(at: SystemTime) -> Option<u64> {
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_there_is() {
        let mut info = ObjectInfo::default();
        info.size_bytes = 5 << 20;
        info.etag = Some("\"0123-2\"".into());
        info.last_modified = Some(UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        info.metadata.insert("note".into(), "a\nb".into());
        let now = UNIX_EPOCH + Duration::from_secs(1_000_010_000);
        let url: S3Url = "s3://b/k".parse().expect("a URL");
        assert_eq!(
            lines(&url, &info, now),
            [
                "s3://b/k",
                "  size           5.0 MiB (5242880 bytes)",
                "  modified       2001-09-09T01:46:40Z (2 h ago)",
                "  ETag           \"0123-2\"",
                "  storage class  STANDARD",
                "  parts          2",
                "  metadata       note=a\\nb",
            ]
        );
        info.last_modified = Some(UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) << 16));
        assert!(!lines(&url, &info, now).iter().any(|line| line.contains("modified")));
    }
}
