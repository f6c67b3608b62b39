//! An embedded S3-compatible store, for development, tests and benchmarks.
//!
//! [`Server::start`] runs a store inside the current process and returns its address; any S3 client can talk
//! to it. Where the bytes go is the [`Backend`]'s business: durable files, memory, or nowhere at all for
//! measuring how fast a client can be.
//!
//! ```
//! use brigade_store::{Backend, Credentials, Options, Server};
//!
//! let server = Server::start(Options {
//!     backend: Backend::Synthetic,
//!     credentials: vec![Credentials::new("key", "secret")],
//!     buckets: vec!["bench".into()],
//!     ..Options::default()
//! })?;
//! assert!(server.endpoint_url().starts_with("http://127.0.0.1:"));
//! assert_eq!(server.stats().unfinished_uploads, 0);
//! # Ok::<(), brigade_store::Error>(())
//! ```
//!
//! It misbehaves only on demand: see [`faults`]. And it is as far away as one likes: see [`Network`].
//!
//! It behaves as S3 does in what a transfer engine can notice: checksums of all five algorithms in headers
//! and trailers, multipart uploads, conditions, ranges, errors and their codes. Known differences:
//!
//! - There is no versioning, and no access control beyond [`Credentials`].
//! - Server-side encryption is echoed and customers' keys are insisted on, but nothing is encrypted.
//! - A part may come with another checksum than its upload was created with, or with none; the store computes
//!   the right one. An upload created without an algorithm gets the one its parts were sent with, and
//!   CRC64NVME where they came with none.
//! - Several checksums in one request are all verified and all kept.
//! - `bucket.localhost` addresses a bucket as a path does; other hosts are not taken for buckets.

mod access;
mod body;
mod checksum;
mod chunked;
mod draw;
mod error;
mod etag;
pub mod faults;
mod front;
mod index;
mod locks;
mod network;
mod operation;
mod options;
mod pretended;
mod range;
mod record;
mod s3;
mod server;
mod stats;
mod storage;
pub mod synthetic;
mod tls;
mod upload;

pub use access::Credentials;
pub use error::Error;
pub use network::{Network, NetworkError, SlowParts};
pub use options::{Backend, Options};
pub use pretended::Pretended;
pub use server::Server;
pub use stats::Stats;
