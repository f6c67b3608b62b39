//! How a store is to be run.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::access::Credentials;
use crate::faults::Faults;
use crate::network::Network;
use crate::pretended::Pretended;

/// How a store is to be run. The default is an empty store in memory, open to everyone on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects are kept. Default: in memory.
    pub backend: Backend,
    /// Objects that the synthetic backend lists without anybody having put them. Default: none.
    pub pretended: Pretended,
    /// Where to listen; port 0 picks a free one. Default: `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Who may send requests. Empty, the default: everyone, and signatures are not looked at.
    pub credentials: Vec<Credentials>,
    /// Buckets to create at start, where they don't exist. Default: none.
    pub buckets: Vec<String>,
    /// Serve HTTPS, with a certificate made for the run (see [`Server::ca_pem`](crate::Server::ca_pem)).
    /// Default: plain HTTP.
    pub tls: bool,
    /// The only region requests may be signed for: others get 400 `AuthorizationHeaderMalformed` with the
    /// right one. Default: none, and any region goes.
    pub region: Option<String>,
    /// Make `ETag`s from the MD5 of the content, as S3 does, at the cost of a core for every 0.6 GB/s or so.
    /// The synthetic backend never does. Default: true.
    pub md5_etags: bool,
    /// Smallest part of a multipart upload, but for its last, in bytes. Default: 5 MiB, as on S3.
    pub min_part_size_bytes: u64,
    /// How to misbehave (see [`faults`](crate::faults)). Default: not at all.
    pub faults: Option<Faults>,
    /// What lies between the store and its clients. Default: nothing but this machine's loopback.
    pub network: Network,
}

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// As files below this folder, durably: what was acknowledged survives a crash. The folder is created if
    /// need be.
    Folder(PathBuf),
    /// In memory, until the store is stopped.
    Memory,
    /// Nowhere: uploads are verified and discarded, downloads are generated (see
    /// [`synthetic`](crate::synthetic)). A key that ends in a size, such as `bench/5TiB`, exists with that
    /// size without ever having been uploaded.
    Synthetic,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: Backend::Memory,
            pretended: Pretended::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            credentials: Vec::new(),
            buckets: Vec::new(),
            tls: false,
            region: None,
            md5_etags: true,
            min_part_size_bytes: 5 << 20,
            faults: None,
            network: Network::default(),
        }
    }
}
