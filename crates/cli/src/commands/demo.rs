//! `brigade demo`: the engine at work on this machine alone, and the proof of it.
//!
//! A store is started in a temporary folder, a file made, uploaded, downloaded and compared. Two
//! proofs are independent: the checksums that the engine compared on the way, and a comparison of
//! the two files here, byte for byte, that trusts neither engine nor store.
//!
//! Nothing outside matters: keys, region and endpoint are made for the run, so that no credentials
//! and no configuration of the person's are looked at.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use brigade::limits::{MIB, StoreProfile, format_size};
use brigade::{
    Cancel, Credentials, DownloadOptions, Error, ErrorKind, Object, Report, Session,
    SessionOptions, UploadOptions, Verify, progress,
};
use brigade_store::{Backend, Server};
use serde::Serialize;
use tempfile::TempDir;

use super::watch::Watch;
use super::{block_on, serve};
use crate::args::DemoArgs;
use crate::format::{elapsed, rate};
use crate::meaning::Keys;
use crate::printer::{Printer, outcome};

const BUCKET: &str = "demo";
const KEY: &str = "source.bin";
const REGION: &str = "us-east-1";

/// The file is the same in every run, so that runs can be compared.
const SEED: u64 = 0x0062_7269_6761_6465;

/// What is written or compared at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The file, the object, the download: each needs this much of the disk.
const COPIES: u64 = 3;

/// Room for what else a store writes, and so that the disk is not filled to the brim.
const SPARE_BYTES: u64 = 64 * MIB;

/// What the last line of `--json` tells.
#[derive(Serialize)]
struct Outcome {
    size_bytes: u64,
    /// Whether the downloaded file equals the uploaded one; an error ends the demo otherwise.
    identical: bool,
    /// Where the files are, with `--keep`.
    folder: Option<PathBuf>,
    upload: Report,
    download: Report,
}

pub(super) fn run(args: &DemoArgs, printer: &mut Printer) -> Result<()> {
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        // Removed again when dropped, however the demo ends, unless it is kept.
        let mut folder = make_folder(args.size)?;
        folder.disable_cleanup(args.keep);
        let kept = args.keep.then(|| folder.path().to_owned());
        let result = show(args.size, folder.path(), kept.clone(), &mut watch).await;
        if let Ok(outcome) = &result {
            let line = "the download equals the file, byte for byte";
            watch.printer.result(&step("compared", line), "demo", outcome);
        }
        if let Some(kept) = kept {
            watch.printer.notice(&format!("kept {}", kept.display()));
        }
        result.map(|_| ())
    })
}

async fn show(
    size_bytes: u64,
    folder: &Path,
    kept: Option<PathBuf>,
    watch: &mut Watch<'_>,
) -> Result<Outcome> {
    let (source, copy) = (folder.join(KEY), folder.join("downloaded.bin"));
    let started = Instant::now();
    blocking(watch, {
        let source = source.clone();
        move || make_file(&source, size_bytes)
    })
    .await?;
    let made =
        format!("{} of repeatable noise {}", format_size(size_bytes), speed(size_bytes, started));
    watch.printer.line(&step("made", &made));

    let keys = Keys::make_up()?;
    let server = start_store(folder, &keys)?;
    watch.printer.line(&step("started", &format!("a store at {}", server.endpoint_url())));
    brigade::guard_mapped_files()?;
    let session = watch.until(Session::new(session_options(&server, keys))).await?;
    let object = session.bucket(BUCKET).object(KEY);

    let upload = upload(&object, &source, watch).await?;
    watch.printer.result(&step("uploaded", &outcome(&upload)), "report", &upload);
    let download = download(&object, &copy, watch).await?;
    watch.printer.result(&step("downloaded", &outcome(&download)), "report", &download);

    blocking(watch, move || compare(&source, &copy)).await?;
    Ok(Outcome { size_bytes, identical: true, folder: kept, upload, download })
}

/// A folder on a disk with room for the demo.
fn make_folder(size_bytes: u64) -> Result<TempDir> {
    let parent = std::env::temp_dir();
    let needed = size_bytes.saturating_mul(COPIES).saturating_add(SPARE_BYTES);
    let disk = rustix::fs::statvfs(&parent)
        .map_err(|error| Error::io("look for room in", &parent, error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        let detail =
            format!("the demo needs {}, and {} are free", format_size(needed), format_size(free));
        let parent = parent.display().to_string();
        return Err(Error::new(ErrorKind::DiskFull, "look for room in", parent, detail)
            .advise("give a smaller --size, or set TMPDIR to a folder on a larger disk")
            .into());
    }
    tempfile::Builder::new()
        .prefix("brigade-demo-")
        .tempdir_in(&parent)
        .map_err(|error| Error::io("make a folder in", &parent, error).into())
}

fn start_store(folder: &Path, keys: &Keys) -> Result<Server> {
    serve::start(brigade_store::Options {
        backend: Backend::Folder(folder.join("store")),
        credentials: vec![brigade_store::Credentials::new(&keys.access, &keys.secret)],
        buckets: vec![BUCKET.into()],
        region: Some(REGION.into()),
        // CRC32 proves what is proven here; an MD5 besides would only measure the MD5.
        md5_etags: false,
        ..brigade_store::Options::default()
    })
}

fn session_options(server: &Server, keys: Keys) -> SessionOptions {
    SessionOptions {
        endpoint_url: Some(server.endpoint_url()),
        region: Some(REGION.into()),
        credentials: Credentials::Static {
            access_key: keys.access,
            secret_key: keys.secret,
            session_token: None,
        },
        // No need to find out whose store it is.
        store_profile: StoreProfile::named("brigade"),
        force_path_style: Some(true),
        ..SessionOptions::default()
    }
}

async fn upload(object: &Object, source: &Path, watch: &mut Watch<'_>) -> Result<Report> {
    let (events, told) = progress::channel();
    let cancel = Cancel::default();
    let options = UploadOptions {
        verify: Verify::Require,
        events,
        cancel: cancel.clone(),
        ..UploadOptions::default()
    };
    watch.transfer(object.upload_file_with(source, options), &cancel, told).await
}

async fn download(object: &Object, copy: &Path, watch: &mut Watch<'_>) -> Result<Report> {
    let (events, told) = progress::channel();
    let cancel = Cancel::default();
    let options = DownloadOptions {
        verify: Verify::Require,
        events,
        cancel: cancel.clone(),
        ..DownloadOptions::default()
    };
    watch.transfer(object.download_file_with(copy, options), &cancel, told).await
}

/// Runs `work` on a thread of its own, so that a signal is heard meanwhile.
async fn blocking(
    watch: &mut Watch<'_>,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let task = tokio::task::spawn_blocking(work);
    watch.until(async { task.await.context("a step of the demo panicked")? }).await
}

fn make_file(path: &Path, size_bytes: u64) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    let mut file = File::create_new(path).map_err(failed)?;
    let mut noise = fastrand::Rng::with_seed(SEED);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        noise.fill(&mut chunk);
        // The minimum is at most a chunk, so it fits.
        let now = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all(&chunk[..now]).map_err(failed)?;
        left -= now as u64;
    }
    Ok(())
}

/// An error unless the two files hold the same bytes.
fn compare(source: &Path, copy: &Path) -> Result<()> {
    let open = |path: &Path| File::open(path).map_err(|error| Error::io("read", path, error));
    let (mut one, mut other) = (open(source)?, open(copy)?);
    let mut offset = 0;
    loop {
        let left = read_chunk(&mut one).map_err(|error| Error::io("read", source, error))?;
        let right = read_chunk(&mut other).map_err(|error| Error::io("read", copy, error))?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
            let detail = format!("the files differ from byte {} on", offset + same as u64);
            let copy = copy.display().to_string();
            return Err(Error::new(ErrorKind::Integrity, "compare", copy, detail)
                .advise("keep the files with --keep, and report this")
                .into());
        }
        if left.is_empty() {
            return Ok(());
        }
        offset += left.len() as u64;
    }
}

/// Up to a chunk; less only at the end.
fn read_chunk(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    Read::by_ref(file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

fn speed(bytes: u64, since: Instant) -> String {
    let spent = since.elapsed();
    let micros = spent.as_micros().max(1);
    let bytes_per_s = u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX);
    let elapsed_ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    format!("in {} ({})", elapsed(elapsed_ms), rate(bytes_per_s))
}

/// A line of the demo's story.
fn step(verb: &str, what: &str) -> String {
    format!("{verb:<10}  {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn the_file_is_repeatable_and_has_its_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("1"), folder.path().join("2"));
        let size = 2 * CHUNK_BYTES as u64 + 17;
        make_file(&one, size).expect("made");
        make_file(&other, size).expect("made");
        assert_eq!(one.metadata().expect("there").len(), size);
        compare(&one, &other).expect("equal");
    }

    #[test]
    fn a_flipped_bit_and_a_missing_byte_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("1"), folder.path().join("2"));
        let mut bytes = vec![7; CHUNK_BYTES + 100];
        std::fs::write(&one, &bytes).expect("written");
        std::fs::write(&other, &bytes[..CHUNK_BYTES + 99]).expect("written");
        let failure = Failure::from(&compare(&one, &other).expect_err("shorter"));
        assert_eq!(failure.exit.code(), 7);
        assert!(failure.message.contains("from byte 1048675 on"), "{}", failure.message);
        bytes[CHUNK_BYTES + 5] ^= 1;
        std::fs::write(&other, &bytes).expect("written");
        let failure = Failure::from(&compare(&one, &other).expect_err("flipped"));
        assert!(failure.message.contains("from byte 1048581 on"), "{}", failure.message);
    }

    #[test]
    fn too_little_room_is_said_in_one_line() {
        let failure = Failure::from(&make_folder(u64::MAX).expect_err("no disk is that large"));
        assert_eq!((failure.exit.code(), failure.kind), (1, "disk_full"));
        assert!(failure.message.contains("give a smaller --size"), "{}", failure.message);
    }
}
