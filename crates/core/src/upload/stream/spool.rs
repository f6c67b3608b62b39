//! A stream that is written to a disk first, and is a file then: it may be of any length, and be sent again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::{LABEL, failed};
use crate::engine::{Engine, stopped};
use crate::error::{Error, Result};
use crate::options::{Resume, UploadOptions};
use crate::report::Report;
use crate::schedule::Window;
use crate::upload::{OPERATION, run_shown};
use crate::url::S3Url;

/// Bytes that are written to the disk at a time.
const SPOOL_BYTES: usize = 1 << 20;

/// Writes all of it to a file that nobody else sees, and uploads that.
pub(super) async fn spooled(
    engine: &Engine,
    reader: Box<dyn Read + Send>,
    url: &S3Url,
    (folder, options): (&Path, &UploadOptions),
    window: Window,
) -> Result<Report> {
    let (folder, cancel) = (folder.to_owned(), options.cancel.clone());
    let spooling = tokio::task::spawn_blocking(move || {
        let (path, file) = make_spool(&folder)
            .map_err(|source| Error::io("spool the input to", &folder, source))?;
        // From here on it goes when it is closed, however this ends.
        let unlinked = std::fs::remove_file(&path);
        unlinked.map_err(|source| Error::io("spool the input to", &path, source))?;
        spool(reader, &file, || cancel.is_cancelled())
            .map_err(|source| Error::io("spool the input to", &path, source))?;
        Ok(file)
    });
    let file = tokio::select! {
        spooled = spooling => spooled.map_err(|lost| failed(io::Error::other(lost)))??,
        () = options.cancel.cancelled() => return Err(stopped(OPERATION, url)),
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // There is no such file for a later run.
    let options = UploadOptions { resume: Resume::StartOver, ..options.clone() };
    run_shown(engine, (&path, LABEL), url, &options, window).await
}

fn make_spool(folder: &Path) -> io::Result<(PathBuf, File)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let name: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
    let path = folder.join(format!(".brigade-spool-{name}"));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

fn spool(mut reader: impl Read, mut file: &File, is_stopped: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = vec![0; SPOOL_BYTES];
    loop {
        if is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => io::Write::write_all(&mut file, &buffer[..count])?,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
