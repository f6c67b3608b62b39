//! brigade moves objects in and out of S3 in parallel parts, verified.
//!
//! A [`Session`] is one store. It gives [`Bucket`]s and [`Object`]s, and an object uploads and
//! downloads files: cut into parts, many of them in flight at once over every core, each summed
//! while it is hot in cache, and at the end held against what the store recorded.
//!
//! ```no_run
//! # async fn run() -> brigade::Result<()> {
//! use brigade::{Session, SessionOptions};
//!
//! let session = Session::new(SessionOptions::default()).await?;
//! let object = session.bucket("genomes").object("hg38.fa");
//! object.upload_file("hg38.fa").await?;
//! let report = object.download_file("copy.fa").await?;
//! println!("{} bytes, verified: {}", report.bytes, report.verified);
//! # Ok(())
//! # }
//! ```
//!
//! The crate prints nothing, reads no environment beyond what `aws-config` does, and changes
//! nothing process-wide unless asked ([`guard_mapped_files`]). Progress comes as [`progress::Event`]s on a channel.

mod account;
mod copy;
pub mod dataset;
mod download;
mod engine;
mod error;
mod file;
mod flow;
pub mod integrity;
pub mod limits;
pub mod manifest;
mod many;
mod object;
mod options;
pub mod plan;
pub mod progress;
mod record;
mod report;
mod schedule;
mod session;
mod transport;
mod turn;
mod unfinished;
mod upload;
mod url;

pub use dataset::{
    DeleteOptions, DeleteReport, Deletion, Entry, ListOptions, Listed, Listing, Versions,
};
pub use error::{Error, ErrorKind, Result};
pub use file::guard_mapped_files;
pub use many::ManyReport;
pub use object::{Bucket, Object, Transfer};
pub use options::{
    Cancel, ChecksumChoice, ContentHeaders, CopyOptions, Credentials, CustomerKey, Description,
    DirectIo, DownloadOptions, Encryption, Resume, RetryOptions, SessionOptions, StreamOptions,
    UploadOptions, Verify,
};
pub use report::{Report, ReportedChecksum, TimeSpent};
pub use session::{BucketInfo, Session};
pub use transport::connect::{Proxies, Resolve, Resolving};
pub use transport::{ObjectInfo, ObjectVersion};
pub use unfinished::{Unfinished, UnfinishedUpload, unfinished};
pub use url::S3Url;
