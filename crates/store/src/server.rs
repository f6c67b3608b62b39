//! Running the store: threads, connections, start and stop.
//!
//! One lane per core: a thread with a runtime of its own, which serves the connections it is given from
//! their first byte to their last. Nothing on the way of a body moves between threads. The first lane
//! accepts connections and deals them out in turn.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::service::S3ServiceBuilder;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::{Hosts, Keys};
use crate::faults::{FaultHandle, Fuse, Rewriting, Wire};
use crate::front::{Front, Service};
use crate::index::Index;
use crate::network::{Line, Network, NetworkControl, NetworkError};
use crate::s3::Api;
use crate::stats::{Counters, OpenConnection, Stats};
use crate::storage::{self, Storage};
use crate::tls::{self, Identity};
use crate::{Backend, Error, Options};

/// Most lanes there are: a store on a large machine shares it with the client that is measured.
const MAX_LANES: usize = 32;

/// The largest read from a connection at once, in bytes; `hyper` grows towards it while reads fill it. What
/// was read is summed right after, so it should still be in the processor's cache: receiving 1 GiB took 0.33
/// CPU seconds with this, 0.35 to 0.5 with 512 KiB and 0.46 with 2 MiB.
const READ_BYTES: usize = 128 << 10;

/// What is read below TLS at once, in bytes: `rustls` alone would ask for a few kilobytes at a time.
const TLS_READ_BYTES: usize = 256 << 10;

/// The region that is answered when none was chosen.
const DEFAULT_REGION: &str = "us-east-1";

/// A running store. Stops when dropped.
///
/// ```
/// use brigade_store::{Backend, Options, Server};
///
/// let server = Server::start(Options {
///     backend: Backend::Memory,
///     buckets: vec!["data".into()],
///     ..Options::default()
/// })?;
/// println!("an S3 endpoint: {}", server.endpoint_url());
/// server.stop();
/// # Ok::<(), brigade_store::Error>(())
/// ```
pub struct Server {
    address: SocketAddr,
    ca_pem: Option<String>,
    index: Arc<Index>,
    counters: Arc<Counters>,
    faults: FaultHandle,
    network: Arc<NetworkControl>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a store and returns once it listens.
    ///
    /// It runs on threads of its own, so this may be called from anywhere, with or without an async runtime.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on, the folder cannot be used, a bucket's name is not one that
    /// S3 allows, or the faults or the network make no sense.
    pub fn start(mut options: Options) -> Result<Self, Error> {
        let faults = FaultHandle::new(options.faults.take())?;
        let network = Arc::new(NetworkControl::new(std::mem::take(&mut options.network))?);
        let index = open(&options)?;
        let listen = options.listen;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let identity = options.tls.then(|| tls::identity(address)).transpose()?;
        let counters = Arc::new(Counters::default());
        let front = front(options, &index, &counters, &faults, &network);
        let (stop, stopped) = watch::channel(false);
        let ca_pem = identity.as_ref().map(|identity| identity.ca_pem.clone());

        let threads = Vec::new();
        let mut server = Self { address, ca_pem, index, counters, faults, network, stop, threads };
        server.run(listener, &front, identity.as_ref(), &stopped)?;
        Ok(server)
    }

    /// The address that is listened on, with the port that was picked if none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint to configure S3 clients with: `http://127.0.0.1:PORT`, or `https://` with TLS. Clients
    /// should use path-style addressing.
    pub fn endpoint_url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        let mut address = self.address;
        if address.ip().is_unspecified() {
            // Listening everywhere includes here.
            let here = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            return format!("{scheme}://{here}:{}", address.port());
        }
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_scope_id(0);
        }
        format!("{scheme}://{address}")
    }

    /// With TLS, the certificate to trust, in PEM: it vouches for `localhost`, `127.0.0.1`, `::1` and the
    /// address listened on.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The counters, now.
    pub fn stats(&self) -> Stats {
        self.counters.read(self.index.unfinished_uploads())
    }

    /// How the store misbehaves, to be changed and asked about at any time.
    pub fn faults(&self) -> FaultHandle {
        self.faults.clone()
    }

    /// What lies between the store and its clients.
    pub fn network(&self) -> Network {
        self.network.network()
    }

    /// Puts another network in the place of the one before, for connections that are open too: from their
    /// next bytes and their next requests on. Answers that are under way arrive as they would have.
    ///
    /// # Errors
    ///
    /// Where there can be no such network (see [`Network::check`]); the one before stays then.
    pub fn set_network(&self, network: Network) -> Result<(), NetworkError> {
        self.network.set(network)
    }

    /// Closes all connections and waits until everything that was being written to disk is.
    pub fn stop(self) {
        drop(self);
    }

    fn run(
        &mut self,
        listener: std::net::TcpListener,
        front: &Arc<Front>,
        identity: Option<&Identity>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LANES);
        let mut senders = Vec::new();
        for number in 0..lanes {
            let (sender, connections) = mpsc::unbounded_channel();
            senders.push(sender);
            let lane = Lane {
                front: Arc::clone(front),
                tls: identity.map(|identity| TlsAcceptor::from(Arc::clone(&identity.config))),
                connections,
            };
            let runtime = runtime()?;
            self.spawn(format!("brigade-store-{number}"), runtime, stopped, lane.serve())?;
        }
        let counters = Arc::clone(&self.counters);
        let runtime = runtime()?;
        let accepting = async move { accept(listener, &senders, &counters).await };
        self.spawn("brigade-store-accept".to_owned(), runtime, stopped, accepting)
    }

    /// Runs a task on a thread and runtime of its own until the store is stopped.
    fn spawn(
        &mut self,
        name: String,
        runtime: Runtime,
        stopped: &watch::Receiver<bool>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let mut stopped = stopped.clone();
        let body = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = task => {}
                    // An error means that the server is gone, which is a stop too.
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
            // Closes the connections; what was handed to blocking threads is finished first.
            drop(runtime);
        };
        let thread = std::thread::Builder::new().name(name).spawn(body).map_err(Error::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("endpoint_url", &self.endpoint_url()).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A lane that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }
}

fn open(options: &Options) -> Result<Arc<Index>, Error> {
    let mut restored = Vec::new();
    let storage: Box<dyn Storage> = match &options.backend {
        Backend::Memory => Box::new(storage::Memory { md5_etags: options.md5_etags }),
        Backend::Synthetic => Box::new(storage::Synthetic::new(options.pretended)),
        Backend::Folder(path) => {
            let failed = |source| Error::Folder { path: path.clone(), source };
            let folder = storage::Folder::open(path, options.md5_etags).map_err(failed)?;
            restored = folder.load().map_err(failed)?;
            Box::new(folder)
        }
    };
    let index = Index::new(storage);
    for bucket in restored {
        index.restore(bucket);
    }
    for name in &options.buckets {
        if !s3s::path::check_bucket_name(name) {
            return Err(Error::BucketName(name.clone()));
        }
        if index.bucket(name).is_err() {
            index
                .create_bucket(name)
                .map_err(|error| Error::Bucket { name: name.clone(), source: Box::new(error) })?;
        }
    }
    Ok(Arc::new(index))
}

fn front(
    options: Options,
    index: &Arc<Index>,
    counters: &Arc<Counters>,
    faults: &FaultHandle,
    network: &Arc<NetworkControl>,
) -> Arc<Front> {
    let api = Api {
        index: Arc::clone(index),
        region: options.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        min_part_bytes: options.min_part_size_bytes,
    };
    let mut builder = S3ServiceBuilder::new(api.clone());
    builder.set_host(Hosts);
    let open = builder.build();
    let mut builder = S3ServiceBuilder::new(api);
    builder.set_host(Hosts);
    if !options.credentials.is_empty() {
        let keys = Keys::new(&options.credentials);
        builder.set_auth(keys.clone());
        builder.set_access(keys.clone());
        builder.set_route(Rewriting { open: open.clone(), keys });
    }
    Arc::new(Front {
        service: builder.build(),
        open,
        faults: faults.clone(),
        network: Arc::clone(network),
        counters: Arc::clone(counters),
        anonymous: options.credentials.is_empty(),
        region: options.region,
        last_id: AtomicU64::new(1),
    })
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)
}

async fn accept(
    listener: std::net::TcpListener,
    lanes: &[mpsc::UnboundedSender<std::net::TcpStream>],
    counters: &Counters,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    for lane in lanes.iter().cycle() {
        // The only errors are of connections that ended at once, and of too many open files, which pass.
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        counters.connection();
        if let Ok(stream) = stream.into_std() {
            // A lane ends only when the server does.
            let _ = lane.send(stream);
        }
    }
}

/// One thread's share of the connections.
struct Lane {
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
    connections: mpsc::UnboundedReceiver<std::net::TcpStream>,
}

impl Lane {
    async fn serve(mut self) {
        while let Some(stream) = self.connections.recv().await {
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            // Without this a small answer would wait for the client's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            let open = OpenConnection::new(Arc::clone(&self.front.counters));
            tokio::spawn(connection(stream, open, Arc::clone(&self.front), self.tls.clone()));
        }
    }
}

/// One connection, from its first byte to its last.
async fn connection(
    stream: TcpStream,
    open: OpenConnection,
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
) {
    let network = Arc::clone(&front.network);
    network.open(&stream, tls.is_some()).await;
    let fuse = Arc::<Fuse>::default();
    let line = Line::new(Wire::new(stream, Arc::clone(&fuse)), network, open);
    let Some(tls) = tls else { return converse(line, front, fuse).await };
    let buffered = BufReader::with_capacity(TLS_READ_BYTES, line);
    // A client that does not trust the certificate goes away; that is its business.
    if let Ok(stream) = tls.accept(buffered).await {
        converse(stream, front, fuse).await;
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    front: Arc<Front>,
    fuse: Arc<Fuse>,
) {
    let service = Service { front, fuse: Arc::clone(&fuse) };
    let mut connection = http1::Builder::new()
        // Clients keep connections for later; closing one just as it is used again would fail a request.
        .header_read_timeout(None)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // Errors here are clients that went away, and connections that were to end.
    let _ = (&mut connection).await;
    fuse.finish(connection.into_parts().io.into_inner()).await;
}
