//! What a caller may ask of a session and of a transfer, each with a documented default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::integrity::Algorithm;
use crate::limits::StoreProfile;
use crate::progress::Emitter;
use crate::transport::connect::{Proxies, Resolve};

/// How a session reaches a store. Whatever is left unset comes from where `aws-config` finds it:
/// environment, shared files, SSO, container, instance.
///
/// ```
/// let options = brigade::SessionOptions {
///     endpoint_url: Some("http://127.0.0.1:9000".into()),
///     region: Some("us-east-1".into()),
///     ..Default::default()
/// };
/// assert!(options.verify_tls);
/// ```
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// `http://` or `https://` address of the store; unset means AWS, or what `AWS_ENDPOINT_URL_S3`,
    /// `AWS_ENDPOINT_URL` or the shared configuration name.
    pub endpoint_url: Option<String>,
    /// Region to sign for; `us-east-1` when nothing names one.
    pub region: Option<String>,
    /// Profile in the shared AWS configuration.
    pub profile: Option<String>,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// What the store allows; detected from the endpoint and from what it answers when unset.
    pub store_profile: Option<StoreProfile>,
    /// Bucket in the path rather than in the host name. Unset: in the path for every endpoint of
    /// one's own, as boto3 does, unless its profile says otherwise; in the host name on AWS.
    pub force_path_style: Option<bool>,
    /// PEM file with the certificate authorities to trust instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Whether the server's certificate is checked; default yes.
    pub verify_tls: bool,
    /// Proxies to go through; none by default, since this crate reads no environment itself.
    pub proxies: Proxies,
    /// Finds the addresses of the store's name, or of the proxy's, in place of the system's resolver:
    /// for clusters whose machines no DNS name tells. Unset, the default: the system's. See
    /// [`Resolve`].
    pub resolver: Option<Arc<dyn Resolve>>,
    /// How long a connection may take to open; default 10 s.
    pub connect_timeout: Duration,
    /// How long a connection may move no bytes before it is given up; default 20 s.
    pub stall_timeout: Duration,
    /// How failed attempts are repeated.
    pub retry: RetryOptions,
    /// Folder for the manifests of unfinished uploads, and for links to those of downloads, which
    /// lie beside their partial files; made when it is first needed. Unset, the default: uploads
    /// cannot be resumed, and one that fails is aborted.
    pub manifest_folder: Option<PathBuf>,
    /// Memory that parts under way may take together, bytes: what waits to be written or sent, mapped
    /// pages included. It bounds the parts in flight. Default: 96 MiB.
    pub memory_limit_bytes: Option<u64>,
    /// Payload bytes a second that all transfers together may move; at least 1. Default: no limit.
    pub bandwidth_limit_bytes_per_s: Option<u64>,
    /// Threads that carry parts, each with connections of its own. Default: one for every core.
    pub lanes: Option<usize>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            endpoint_url: None,
            region: None,
            profile: None,
            credentials: Credentials::default(),
            store_profile: None,
            force_path_style: None,
            ca_bundle: None,
            verify_tls: true,
            proxies: Proxies::default(),
            resolver: None,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(20),
            retry: RetryOptions::default(),
            manifest_folder: None,
            memory_limit_bytes: None,
            bandwidth_limit_bytes_per_s: None,
            lanes: None,
        }
    }
}

/// Where a session's credentials come from.
///
/// ```
/// use brigade::Credentials;
///
/// let keys = Credentials::Static {
///     access_key: "access".into(),
///     secret_key: "secret".into(),
///     session_token: None,
/// };
/// assert!(!format!("{keys:?}").contains("secret"));
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// The usual order: environment, shared files, SSO, container, instance.
    #[default]
    Chain,
    /// Requests are not signed; for public buckets.
    Anonymous,
    /// These keys.
    Static {
        /// The access key's id.
        access_key: String,
        /// The secret access key.
        secret_key: String,
        /// The token of temporary credentials.
        session_token: Option<String>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the id: logs travel.
        f.write_str(match self {
            Self::Chain => "Chain",
            Self::Anonymous => "Anonymous",
            Self::Static { .. } => "Static(redacted)",
        })
    }
}

/// How failed attempts are repeated: exponential back-off with full jitter, owned by the engine.
///
/// ```
/// use std::time::Duration;
///
/// // For somebody who would rather know at once.
/// let retry = brigade::RetryOptions { max_attempts: 1, ..Default::default() };
/// assert_eq!(retry.base_delay, Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// Attempts for one request, the first included; at least 1, default 10. With the pauses below
    /// that waits out about a minute of trouble.
    pub max_attempts: u32,
    /// Upper bound of the pause after the first failure; doubles with each further one. Default 100 ms.
    pub base_delay: Duration,
    /// No pause is longer, unless the store asks for a longer one (`Retry-After`, up to 5 minutes);
    /// default 20 s, the bound AWS's own clients use.
    pub max_delay: Duration,
    /// Repeated attempts of one transfer, all its requests together; unset: 100, and 3 for every
    /// part. Every part may fail once or twice, be there 200 of them or 10,000; a store that fails
    /// most requests is given up before each part has used up its own attempts. Attempts that moved
    /// a mebibyte before they failed do not count.
    pub max_repeats: Option<u64>,
    /// Waits out an outage: attempts are not counted, and a request is given up only when it has
    /// failed for this long, from its first failure in a row. Unset, the default: attempts count.
    pub outage: Option<Duration>,
    /// Makes the jitter repeatable, for tests.
    pub seed: Option<u64>,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(20),
            max_repeats: None,
            outage: None,
            seed: None,
        }
    }
}

/// How much proof a transfer must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Compare whatever can be compared; say `unverified` when nothing can. The default.
    #[default]
    Auto,
    /// Fail when nothing can be compared.
    Require,
    /// Compare nothing.
    Off,
}

/// What a transfer does with what an earlier run of it left behind, and whether it leaves anything
/// behind itself. Transfers of one request have nothing to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Go on where an earlier run stopped, and keep what is needed to do so again. The default. For
    /// uploads it needs [`SessionOptions::manifest_folder`].
    #[default]
    Continue,
    /// Give up what an earlier run left, and begin anew.
    StartOver,
    /// Neither: begin anew, record nothing, and leave nothing behind after a failure.
    Off,
}

/// How a transfer uses the disk: through the page cache, which makes a file that is used again at once
/// cheap to read, or past it, which is faster for large files, and leaves the cache to others.
///
/// A download past the cache writes with direct I/O (`O_DIRECT`). An upload reads ahead in the same way
/// those parts of its file of which nothing is in memory, and holds each until the store has it; where
/// the budget has no room for one, the kernel reads it through the cache, and it is dropped behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DirectIo {
    /// Past the cache for files of 256 MiB or more on ext4 and XFS; downloads only where the file need
    /// not be read again to be verified. The default.
    #[default]
    Auto,
    /// Past the cache. Where the file system does not take that, through it, with a warning.
    On,
    /// Through the cache.
    Off,
}

/// Which checksum an upload carries.
///
/// ```
/// use brigade::ChecksumChoice;
///
/// let choice = ChecksumChoice::Use("crc64nvme".parse()?);
/// assert_ne!(choice, ChecksumChoice::default());
/// # Ok::<(), brigade::integrity::UnknownAlgorithm>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumChoice {
    /// What the store's profile prefers: CRC32 on most.
    #[default]
    Auto,
    /// This one. [`Algorithm::Md5`] means a `Content-MD5` for every part, which the oldest stores
    /// check as well.
    Use(Algorithm),
    /// None: for stores that refuse checksum headers.
    None,
}

/// How the store shall encrypt an object.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Encryption {
    /// As the bucket is configured.
    #[default]
    BucketDefault,
    /// With keys the store manages (SSE-S3, `AES256`).
    S3,
    /// With a key in AWS KMS (SSE-KMS).
    Kms {
        /// The key's id, ARN or alias; unset means the account's default key.
        key_id: Option<String>,
    },
    /// With a key that the store never keeps (SSE-C).
    Customer(CustomerKey),
}

impl Encryption {
    /// The customer's key, where it is one.
    pub(crate) fn customer_key(&self) -> Option<&CustomerKey> {
        match self {
            Self::Customer(key) => Some(key),
            _ => None,
        }
    }
}

/// A 256-bit key for SSE-C. It never shows in `Debug`, errors or reports.
///
/// ```
/// use brigade::{CustomerKey, Encryption};
///
/// let key = CustomerKey::parse(&[7; 32])?;
/// let options = brigade::UploadOptions {
///     encryption: Encryption::Customer(key),
///     ..Default::default()
/// };
/// assert!(format!("{options:?}").contains("redacted"));
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Clone)]
pub struct CustomerKey([u8; 32]);

impl CustomerKey {
    /// Takes 32 raw bytes, or their base64 form of 44 characters (white space around it is
    /// ignored), as read from a file or a variable. Anything else is an error.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
            return Ok(Self(raw));
        }
        let text = bytes.trim_ascii();
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|raw| <[u8; 32]>::try_from(raw).ok())
            .map(Self)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "read the SSE-C key",
                    "",
                    format!("{} bytes are not a 256-bit key", bytes.len()),
                )
                .advise("give 32 raw bytes, or their base64 form")
            })
    }

    pub(crate) fn to_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }

    pub(crate) fn md5_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(Md5::digest(self.0))
    }
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(redacted)")
    }
}

/// Asks transfers to stop, from anywhere. A stopped transfer cleans up after itself and ends with
/// [`ErrorKind::Interrupted`].
///
/// ```
/// use brigade::{Cancel, DownloadOptions};
///
/// let cancel = Cancel::default();
/// let options = DownloadOptions { cancel: cancel.clone(), ..Default::default() };
/// cancel.cancel(); // from a signal handler's thread, say
/// assert!(options.cancel.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// Asks every transfer that holds a clone of this to stop.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether that was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(crate) async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// One that is cancelled along with this one, and can be cancelled alone.
    pub(crate) fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// Headers that come with an object's bytes whenever they are fetched, besides its media type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentHeaders {
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`: a date as HTTP has it, such as `Wed, 21 Oct 2026 07:28:00 GMT`. What is none is
    /// left out.
    pub expires: Option<String>,
}

/// How one object is uploaded.
///
/// ```
/// use brigade::{UploadOptions, Verify, limits::MIB};
///
/// let options = UploadOptions {
///     part_size_bytes: Some(64 * MIB),
///     verify: Verify::Require,
///     if_none_match: true,
///     metadata: [("origin".to_owned(), "lab 3".to_owned())].into(),
///     ..UploadOptions::default()
/// };
/// assert_eq!(options.concurrency, None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// Size of every part but the last, bytes; unset: 8 MiB or more, growing with the object.
    pub part_size_bytes: Option<u64>,
    /// Parts in flight at most, at least 1; unset: as many as bring something, found while it runs.
    pub concurrency: Option<usize>,
    /// Which checksum goes with the bytes.
    pub checksum: ChecksumChoice,
    /// How much proof the upload must bring.
    pub verify: Verify,
    /// Only create: an object that exists already is left alone, and the upload ends with
    /// [`ErrorKind::Conflict`].
    pub if_none_match: bool,
    /// `STANDARD_IA`, `GLACIER_IR` and so on; unset: the bucket's default.
    pub storage_class: Option<String>,
    /// The object's media type; unset: the store's default, `binary/octet-stream` on AWS.
    pub content_type: Option<String>,
    /// What else describes the content.
    pub headers: ContentHeaders,
    /// User metadata, without the `x-amz-meta-` before each name; 2 KB in all on AWS.
    pub metadata: BTreeMap<String, String>,
    /// Tags; ten at most on AWS.
    pub tags: BTreeMap<String, String>,
    /// How the store shall encrypt.
    pub encryption: Encryption,
    /// What to do with an unfinished upload of the same file to the same place.
    pub resume: Resume,
    /// Whether the file is read past the page cache.
    pub direct_io: DirectIo,
    /// The command that began this, which is kept in the manifest for programs that resume what they
    /// find. It must hold no secrets. Empty, the default: none.
    pub command: Vec<OsString>,
    /// Who is told of progress.
    pub events: Emitter,
    /// Lets somebody stop the transfer.
    pub cancel: Cancel,
}

/// How a stream is uploaded.
///
/// ```
/// use brigade::{StreamOptions, limits::GIB};
///
/// let options = StreamOptions { expected_size_bytes: Some(500 * GIB), ..Default::default() };
/// assert_eq!(options.spool_folder, None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// As for a file. A stream cannot be resumed: `resume` only says whether its upload is recorded, to be
    /// found and aborted if the process dies. `direct_io` is for the file it is spooled to.
    pub upload: UploadOptions,
    /// How many bytes there will be, at most: parts are sized for that. Unset: they are sized for the
    /// memory, and their number bounds what a stream may bring (200 GB and more; 80 GB where a
    /// store wants equal parts).
    pub expected_size_bytes: Option<u64>,
    /// Folder for a file that all of it is written to before anything is sent; nobody sees the file,
    /// and it goes with the process. Unset: nothing touches a disk.
    pub spool_folder: Option<PathBuf>,
}

/// How one object is copied.
///
/// ```
/// use brigade::{CopyOptions, Verify};
///
/// let options = CopyOptions {
///     storage_class: Some("GLACIER_IR".into()),
///     verify: Verify::Require,
///     ..CopyOptions::default()
/// };
/// assert!(options.description.is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Size of every part but the last, bytes; unset: the source's own where they are known, so that
    /// checksums over parts stay the same.
    pub part_size_bytes: Option<u64>,
    /// Parts in flight at most, at least 1; unset: as many as bring something, found while it runs.
    pub concurrency: Option<usize>,
    /// Which checksum the target gets; unset: on the store, as the source has it, else the one that the
    /// source has recorded or the target's profile prefers.
    pub checksum: ChecksumChoice,
    /// How much proof the copy must bring.
    pub verify: Verify,
    /// Only create: an object that exists already is left alone, and the copy ends with
    /// [`ErrorKind::Conflict`].
    pub if_none_match: bool,
    /// Which version of the source; unset: the newest.
    pub version_id: Option<String>,
    /// The key of a source that was stored with SSE-C.
    pub source_customer_key: Option<CustomerKey>,
    /// What describes the content, all of it; unset: as the source has it.
    pub description: Option<Description>,
    /// Tags; unset: as the source has them, if this account may read them.
    pub tags: Option<BTreeMap<String, String>>,
    /// Storage class; unset: the source's, between stores of one kind.
    pub storage_class: Option<String>,
    /// How the store shall encrypt; unset: as the source is, inside one store.
    pub encryption: Option<Encryption>,
    /// As [`UploadOptions::resume`]: whether an upload in parts is recorded, to be found and aborted if the
    /// process dies. Copies begin anew.
    pub resume: Resume,
    /// As [`UploadOptions::command`].
    pub command: Vec<OsString>,
    /// Who is told of progress.
    pub events: Emitter,
    /// Lets somebody stop the transfer.
    pub cancel: Cancel,
}

/// What describes an object's content to whoever fetches it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Its media type.
    pub content_type: Option<String>,
    /// Other headers.
    pub headers: ContentHeaders,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
}

/// How one object is downloaded.
///
/// ```
/// use brigade::{DownloadOptions, Verify};
///
/// let options = DownloadOptions {
///     verify: Verify::Require,
///     concurrency: Some(32),
///     ..DownloadOptions::default()
/// };
/// assert_eq!(options.version_id, None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct DownloadOptions {
    /// Bytes asked for at a time; unset: the object's own parts where known, else 8 MiB or more.
    pub part_size_bytes: Option<u64>,
    /// Ranges in flight at most, at least 1; unset: as many as bring something, found while it runs.
    pub concurrency: Option<usize>,
    /// How much proof the download must bring.
    pub verify: Verify,
    /// Which version; unset: the newest.
    pub version_id: Option<String>,
    /// The key of an object that was stored with SSE-C.
    pub customer_key: Option<CustomerKey>,
    /// What to do with an unfinished download of the same object to the same place.
    pub resume: Resume,
    /// Whether the file is written past the page cache.
    pub direct_io: DirectIo,
    /// Gives the file the time at which the object was last written, as the store tells it, in place of
    /// the time of the download; what compares folders with buckets by time needs it. Default: no.
    pub keep_modified: bool,
    /// As [`UploadOptions::command`].
    pub command: Vec<OsString>,
    /// Who is told of progress.
    pub events: Emitter,
    /// Lets somebody stop the transfer.
    pub cancel: Cancel,
}

/// Memory of parts when nobody says otherwise: 96 connections that each hold what was read ahead.
pub(crate) const DEFAULT_MEMORY_LIMIT_BYTES: u64 = 96 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let key = CustomerKey::parse(&[7; 32]).expect("32 bytes");
        let credentials = Credentials::Static {
            access_key: "AccessKeyOfATest".into(),
            secret_key: "SecretKeyOfATest".into(),
            session_token: Some("TokenOfATest".into()),
        };
        let shown = format!("{key:?} {credentials:?} {:?}", Encryption::Customer(key.clone()));
        assert!(!shown.contains("OfATest") && !shown.contains('7'), "{shown}");
    }

    #[test]
    fn a_customer_key_is_raw_or_base64() {
        let raw = CustomerKey::parse(&[1; 32]).expect("raw");
        let text = format!("{}\n", raw.to_base64());
        assert_eq!(CustomerKey::parse(text.as_bytes()).expect("base64").0, raw.0);
        let said = CustomerKey::parse(b"short").expect_err("too short").to_string();
        assert!(said.contains("5 bytes are not a 256-bit key"), "{said}");
    }
}
