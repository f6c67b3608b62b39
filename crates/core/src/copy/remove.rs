//! Removes a source that was moved, if it is still what was moved.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::CustomerKey;
use crate::schedule::RetryScope;
use crate::url::S3Url;

const OPERATION: &str = "remove";

/// See [`crate::Object::delete_if_unchanged`].
pub(crate) async fn remove(
    engine: &Engine,
    url: &S3Url,
    etag: &str,
    key: Option<&CustomerKey>,
) -> Result<()> {
    let (scope, calls, retry) = (RetryScope::default(), engine.calls(), engine.retry());
    let now = retry.run(&scope, None, |_| calls.head(url, None, key)).await;
    let now = now.map_err(|error| error.during(OPERATION))?;
    let bare = |etag: &str| etag.trim_matches('"').to_owned();
    if now.etag.as_deref().map(bare) != Some(bare(etag)) {
        return Err(changed(url));
    }
    let conditional = |_| calls.delete_object(url, now.etag.as_deref());
    match retry.run(&scope, None, conditional).await {
        Err(error) if error.code() == Some("PreconditionFailed") => Err(changed(url)),
        // A lost answer that is asked for once more.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.may_be_of_a_header() || error.kind() == ErrorKind::Unsupported => {
            retry.run(&scope, None, |_| calls.delete_object(url, None)).await
        }
        removed => removed,
    }
}

fn changed(url: &S3Url) -> Error {
    let detail = "it was overwritten since it was read";
    Error::new(ErrorKind::Changed, OPERATION, url.to_string(), detail)
        .advise("it was left alone; move it again")
}
