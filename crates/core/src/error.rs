//! One error type for the whole engine: what was attempted, on what, why it failed, what to do.
//!
//! [`ErrorKind`] alone decides whether an attempt is repeated ([`ErrorKind::is_retryable`]) and how
//! a process ends ([`ErrorKind::exit_code`]), so that a message can be reworded without changing
//! behaviour. Every error displays as one line: `operation target: detail; advice`.

use std::fmt;
use std::time::Duration;

/// The advice where all that is known is that something is not allowed.
pub(crate) const CHECK_PERMISSIONS: &str = "check the credentials and their permissions";

/// A convenient alias: every fallible function of this crate returns it.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request makes no sense as asked: a malformed URL, a part size out of range.
    InvalidInput,
    /// A file, bucket, key or upload that does not exist.
    NotFound,
    /// Missing, wrong or expired credentials, a missing permission, or a file's own permissions.
    AccessDenied,
    /// A precondition did not hold: the object exists already, or someone else is writing it.
    Conflict,
    /// The source file or the object changed while it was being moved.
    Changed,
    /// Bytes arrived that are not the bytes that were sent, or proof was required and there is none.
    Integrity,
    /// A connection could not be made, broke, stalled, or ended before the body did.
    Unreachable,
    /// The store's certificate is not trusted.
    Untrusted,
    /// The store asked for fewer requests (503 `SlowDown`, 429).
    Throttled,
    /// The store failed on its side (5xx).
    ServerFailure,
    /// The store understood and said no, for a reason no other kind names.
    Rejected,
    /// The store does not offer what was asked of it.
    Unsupported,
    /// The object is in an archive tier and has to be restored first.
    Archived,
    /// A local file operation failed.
    Io,
    /// The disk holding the target has no room.
    DiskFull,
    /// Somebody asked the transfer to stop.
    Interrupted,
}

impl ErrorKind {
    /// Whether doing the same again may succeed. Only transient failures of the path or the store
    /// are; everything else would fail the same way.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled | Self::ServerFailure)
    }

    /// The process exit code for this kind. The table is in docs/CLI.md; 3 (partial) and the codes
    /// for signals, 130 and 143, are the caller's to give.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Rejected | Self::Unsupported | Self::Archived | Self::Io | Self::DiskFull => 1,
            Self::InvalidInput => 2,
            Self::NotFound => 4,
            Self::AccessDenied => 5,
            Self::Conflict | Self::Changed => 6,
            Self::Integrity => 7,
            Self::Unreachable | Self::Untrusted | Self::Throttled | Self::ServerFailure => 8,
            Self::Interrupted => 130,
        }
    }
}

/// A failure: its kind, what was attempted, on what, and what to do about it.
///
/// ```
/// use brigade::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "download", "s3://logs/2026.gz", "no such key")
///     .advise("check the key, or list the bucket");
/// assert_eq!(
///     error.to_string(),
///     "download s3://logs/2026.gz: no such key; check the key, or list the bucket"
/// );
/// assert_eq!(error.kind().exit_code(), 4);
/// ```
pub struct Error(Box<Inner>);

// Boxed, so that a `Result` on the hot path stays a pointer wide.
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    target: String,
    detail: String,
    advice: Option<String>,
    code: Option<String>,
    /// How much is done and kept for a later run: "3 MiB of 8 MiB".
    kept: Option<String>,
    retry_after: Option<Duration>,
    is_stall: bool,
    remedy: Option<Remedy>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the engine can do about a failure by itself before it asks again, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Sum the bytes and send them again: they arrived damaged.
    SendAgain,
    /// Ask with other credentials than those with this fingerprint, which the store refused.
    OtherCredentials {
        /// Says which, and nothing of them.
        refused: u64,
    },
    /// Ask where the bucket is.
    OtherPlace {
        /// Its name.
        bucket: String,
        /// What is to be done differently.
        place: Place,
    },
}

/// Where a bucket is, as far as it is not where the session's options have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The region to sign for.
    pub(crate) region: Option<String>,
    /// Scheme, host and port, the bucket's name not in it.
    pub(crate) endpoint_url: Option<String>,
    /// Whether the bucket's name goes into the path there.
    pub(crate) path_style: Option<bool>,
}

impl Error {
    /// An error of `kind` while doing `operation` (a verb phrase, lower case) on `target`.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        target: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            target: target.into(),
            detail: detail.into(),
            advice: None,
            code: None,
            kept: None,
            retry_after: None,
            is_stall: false,
            remedy: None,
            source: None,
        }))
    }

    /// A failed file operation on `path`; the kind follows the operating system's code.
    pub fn io(operation: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Os;
        let (kind, advice) = match source.kind() {
            Os::NotFound => (ErrorKind::NotFound, Some("check the path")),
            Os::PermissionDenied | Os::ReadOnlyFilesystem => {
                (ErrorKind::AccessDenied, Some("check the permissions"))
            }
            Os::StorageFull | Os::QuotaExceeded => {
                (ErrorKind::DiskFull, Some("free some space, or choose another target"))
            }
            _ => (ErrorKind::Io, None),
        };
        // "(os error 2)" tells a person nothing that the words before it don't.
        let text = source.to_string();
        let detail = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        let error =
            Self::new(kind, operation, path.display().to_string(), detail).caused_by(source);
        match advice {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }

    /// Adds what the person should do next.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Keeps the error that caused this one, for [`std::error::Error::source`].
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Keeps the store's own error code.
    #[must_use]
    pub(crate) fn coded(mut self, code: Option<&str>) -> Self {
        self.0.code = code.map(str::to_owned);
        self
    }

    /// Says how much of what was done so far is kept, so that the same transfer goes on from there.
    #[must_use]
    pub(crate) fn kept(mut self, how_much: String) -> Self {
        self.0.kept = Some(how_much);
        self
    }

    /// Keeps how long the store asks to be left alone.
    #[must_use]
    pub(crate) fn retry_after(mut self, pause: Option<Duration>) -> Self {
        self.0.retry_after = pause;
        self
    }

    /// Keeps that a connection stood still, and nothing else went wrong.
    #[must_use]
    pub(crate) fn stalled(mut self) -> Self {
        self.0.is_stall = true;
        self
    }

    /// Whether a connection stood still.
    pub(crate) fn is_stall(&self) -> bool {
        self.0.is_stall
    }

    /// Keeps what may help.
    #[must_use]
    pub(crate) fn remedied_by(mut self, remedy: Option<Remedy>) -> Self {
        self.0.remedy = remedy;
        self
    }

    /// The same failure in the words of an outer operation; everything else stays.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation = operation;
        self
    }

    /// Puts `context` before the detail: which part it was, how many attempts were made.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.detail = format!("{context}: {}", self.0.detail);
        self
    }

    /// Names the permission that is missing, where one is.
    #[must_use]
    pub(crate) fn naming(mut self, permission: &str) -> Self {
        if self.is_of_permissions() {
            self.0.detail = format!("{}; it takes {permission}", self.0.detail);
        }
        self
    }

    /// Whether the credentials are good, as far as anybody knows, and not for this.
    pub(crate) fn is_of_permissions(&self) -> bool {
        self.kind() == ErrorKind::AccessDenied && self.advice() == Some(CHECK_PERMISSIONS)
    }

    /// Whether the store may have refused a header it does not know, whatever status it gave that.
    pub(crate) fn may_be_of_a_header(&self) -> bool {
        let is_refused = matches!(self.kind(), ErrorKind::Rejected | ErrorKind::Unsupported);
        match self.code() {
            None => is_refused,
            Some("InvalidArgument" | "InvalidRequest" | "NotImplemented" | "InvalidHeader") => {
                is_refused || self.kind() == ErrorKind::AccessDenied
            }
            Some(_) => false,
        }
    }

    /// Says which part it was, unless the failure is one of the whole transfer, where the part that
    /// happened to notice it tells nobody anything.
    #[must_use]
    pub(crate) fn in_part(self, number: u32) -> Self {
        match self.0.kind {
            ErrorKind::NotFound
            | ErrorKind::AccessDenied
            | ErrorKind::Archived
            | ErrorKind::Changed
            | ErrorKind::DiskFull
            | ErrorKind::Interrupted => self,
            _ => self.context(format_args!("part {number}")),
        }
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was attempted.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The file, bucket or object it was attempted on.
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// Why it failed, without the operation, the target and the advice.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The store's own error code, such as `NoSuchUpload`, where it gave one.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Whether what was done so far is kept, so that the same transfer goes on from there.
    pub fn is_resumable(&self) -> bool {
        self.0.kept.is_some()
    }

    /// How long the store asks to be left alone, where it says so.
    pub(crate) fn asked_pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the engine can do about it by itself.
    pub(crate) fn remedy(&self) -> Option<&Remedy> {
        self.0.remedy.as_ref()
    }

    /// What to do next, where something helps.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(inner.operation)?;
        if !inner.target.is_empty() {
            write!(f, " {}", one_line(&inner.target))?;
        }
        write!(f, ": {}", one_line(&inner.detail))?;
        if let Some(advice) = &inner.advice {
            write!(f, "; {}", one_line(advice))?;
        }
        if let Some(how_much) = &inner.kept {
            write!(f, "; {how_much} are kept, and running it again goes on from there")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("operation", &inner.operation)
            .field("target", &inner.target)
            .field("detail", &inner.detail)
            .field("advice", &inner.advice)
            .field("code", &inner.code)
            .field("kept", &inner.kept)
            .field("source", &inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Keys and store messages may hold newlines or escape sequences; a terminal must not obey them.
fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_the_key_holds() {
        let error =
            Error::new(ErrorKind::NotFound, "download", "s3://b/a\nb\x1b[2J", "no such key");
        assert_eq!(error.to_string(), "download s3://b/a\\nb\\u{1b}[2J: no such key");
        let advised = Error::new(ErrorKind::Rejected, "x", "", "y").advise("z\x07");
        assert_eq!(advised.to_string(), "x: y; z\\u{7}");
    }

    #[test]
    fn the_operating_system_decides_the_kind_of_a_file_error() {
        let path = std::path::Path::new("/x");
        let kind = |os: i32| Error::io("open", path, std::io::Error::from_raw_os_error(os)).kind();
        assert_eq!(kind(2), ErrorKind::NotFound);
        assert_eq!(kind(13), ErrorKind::AccessDenied);
        assert_eq!(kind(28), ErrorKind::DiskFull);
        assert_eq!(kind(5), ErrorKind::Io);
    }
}
