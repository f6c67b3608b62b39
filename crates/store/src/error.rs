//! Why a store could not be started.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a store could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The folder, or something in it, cannot be used.
    #[error("cannot use {} as a store: {source}", path.display())]
    Folder {
        /// The file or folder that failed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a name S3 allows.
    #[error(
        "{0:?} is not a valid bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens"
    )]
    BucketName(String),
    /// A bucket could not be created.
    #[error("cannot create bucket {name}: {source}")]
    Bucket {
        /// The bucket's name.
        name: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The faults asked for make no sense.
    #[error("the faults cannot be used: {0}")]
    Faults(#[from] crate::faults::FaultsError),
    /// The network asked for makes no sense.
    #[error("the network cannot be simulated: {0}")]
    Network(#[from] crate::network::NetworkError),
    /// A thread or its runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}
