//! A file held against an object, without a download.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{Download, Expectation, OPERATION};
use crate::engine::{Engine, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::Verified;
use crate::options::{Cancel, DownloadOptions};
use crate::schedule::Window;
use crate::url::S3Url;

/// Bytes that are read and summed at once: they stay in a core's cache.
const READ_BYTES: usize = 256 << 10;

/// What holding a file against an object came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Proven, with this tier.
    Same(Verified),
    /// Why it is certain.
    Different(String),
    /// Why nothing can be said.
    Unknown(String),
}

/// Sums the file at `path` in the way in which the store has recorded the object at `url`, whatever the
/// parts it was uploaded in, and compares.
pub(crate) async fn check(
    engine: &Engine,
    url: &S3Url,
    path: &Path,
    options: &DownloadOptions,
    window: Window,
) -> Result<Content> {
    let mut download = Download::look(engine, url, options, window).await?;
    let asked = download.found.with_listed_parts(engine, url, &download.pin, &download.scope);
    if let Some((found, _)) = asked.await {
        download.found = found;
    }
    let found = &download.found;
    if let Expectation::Nothing { .. } = found.expectation {
        return Ok(Content::Unknown("the store has recorded nothing to compare with".into()));
    }
    let (size, mut in_order) = (download.info.size_bytes, found.need_in_order().in_order());
    let (file, cancel) = (path.to_owned(), options.cancel.clone());
    let read = blocking(OPERATION, move || {
        let read = read_all(&file, &cancel, |bytes| in_order.update(bytes))?;
        Ok((read, in_order))
    });
    let (read, in_order) = read.await?;
    if read != size {
        return Ok(Content::Different(format!("{read} bytes here, {size} in the store")));
    }
    Ok(match found.compare(&in_order.finish()) {
        Ok((verified, _)) if verified.is_proof() => Content::Same(verified),
        Ok(_) => Content::Unknown("the ETag is no MD5, or of parts of unknown sizes".into()),
        Err(_) if found.assumes_equal_parts() => Content::Unknown(format!(
            "the store does not list the object's parts{}",
            found.why_unlisted()
        )),
        Err(_) => Content::Different("the checksums differ".into()),
    })
}

fn read_all(path: &Path, cancel: &Cancel, mut use_: impl FnMut(&[u8])) -> Result<u64> {
    let failed = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let (mut buffer, mut total) = (vec![0; READ_BYTES], 0);
    loop {
        if cancel.is_cancelled() {
            let (kind, shown) = (ErrorKind::Interrupted, path.display().to_string());
            return Err(Error::new(kind, "read", shown, "stopped as asked"));
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(more) => {
                use_(&buffer[..more]);
                total += more as u64;
            }
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
}
