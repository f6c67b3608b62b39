//! Opening a connection: name, TCP, proxy and TLS, within one time limit.
//!
//! The hop is whom the TCP connection goes to: the destination, or a proxy. For an http destination
//! the proxy is simply spoken to in absolute form; for an https one it is asked for a tunnel, and
//! TLS with the destination runs inside. Root certificates, where they are needed and not there
//! yet, are read while TCP connects.

use std::future::{Ready, poll_fn, ready};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tower_service::Service;

use super::addresses::{Addresses, Seat};
use super::failure::{BoxError, Failure};
use super::proxy::Rules;
use super::secure::{Layer, secure};
use super::wire::Wire;
use super::{ConnectOptions, SharedTls};

/// A peer that vanished without a word (a machine without power, a forgotten NAT entry) is noticed
/// within a minute of silence: after 30 s, then three times 10 s. It matters while an answer is
/// awaited; during a body the engine's watchdog is faster.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// When the next address is tried as well. RFC 8305 recommends 250 ms; a connection to the other side
/// of the world takes 300.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);

/// A connection to the hop, which speaks TLS itself where it is a destination or a proxy of https.
type Hop = Layer<Wire>;

/// Makes connections for hyper's pool.
#[derive(Clone)]
pub(super) struct Dialer {
    tcp: HttpConnector,
    tls: SharedTls,
    addresses: Addresses,
    proxies: Arc<Rules>,
    connect_timeout: Duration,
    opened: Arc<AtomicU64>,
}

impl Dialer {
    pub(super) fn new(
        options: &ConnectOptions,
        tls: &SharedTls,
        addresses: &Addresses,
        proxies: Arc<Rules>,
        opened: Arc<AtomicU64>,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A request's head and its body leave as they are written; nothing is gained by waiting.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        tcp.set_recv_buffer_size(options.recv_buffer_bytes);
        tcp.set_send_buffer_size(options.send_buffer_bytes);
        Self {
            tcp,
            tls: tls.clone(),
            addresses: addresses.clone(),
            proxies,
            connect_timeout: options.connect_timeout,
            opened,
        }
    }

    async fn dial(self, destination: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.proxy_for(&destination) else {
            let (hop, seat, _) = self.open(&destination, is_https(&destination)).await?;
            return Ok(Stream { io: Layer::Plain(hop), seat, absolute_form: false });
        };
        let tunnel = is_https(&destination);
        let named = |source| Failure::through(&proxy, source);
        let (hop, seat, config) =
            self.open(proxy.uri(), tunnel || is_https(proxy.uri())).await.map_err(&named)?;
        match config.filter(|_| tunnel) {
            None => Ok(Stream { io: Layer::Plain(hop), seat, absolute_form: true }),
            Some(config) => {
                let hop = open_tunnel(hop, &proxy, &destination).await.map_err(named)?;
                let tls = secure(hop, config, name_of(&destination)?).await?;
                Ok(Stream { io: Layer::Secure(Box::new(tls)), seat, absolute_form: false })
            }
        }
    }

    /// Connects to `hop`, with TLS where its scheme asks for it. With `needs_tls` the configuration
    /// comes back as well.
    async fn open(
        &self,
        hop: &Uri,
        needs_tls: bool,
    ) -> Result<(Hop, Option<Seat>, Option<Arc<ClientConfig>>), BoxError> {
        let config = async {
            if needs_tls {
                self.tls.config().await.map(Some).map_err(BoxError::from)
            } else {
                Ok(None)
            }
        };
        let ((io, mut seat), config) = futures::future::try_join(self.connect(hop), config).await?;
        let io = match config.clone().filter(|_| is_https(hop)) {
            None => Layer::Plain(io),
            Some(config) => match secure(io, config, name_of(hop)?).await {
                Ok(tls) => Layer::Secure(Box::new(tls)),
                Err(error) => {
                    seat.iter_mut().for_each(Seat::failed);
                    return Err(error.into());
                }
            },
        };
        seat.iter_mut().for_each(Seat::worked);
        Ok((io, seat, config))
    }

    /// Connects to one of the addresses of `hop`: to the best one, and to the next ones as well when
    /// that fails or takes long. The first connection counts.
    async fn connect(&self, hop: &Uri) -> Result<(Wire, Option<Seat>), BoxError> {
        let host = bare_host(hop);
        if host.parse::<IpAddr>().is_ok() {
            return Ok((self.connect_to(hop.clone()).await?, None));
        }
        let name = self.addresses.of(host).await?;
        let mut tried = Vec::new();
        let mut attempts = FuturesUnordered::new();
        let mut first_failure = None;
        loop {
            let next = name.take(&tried);
            let is_last = next.is_none();
            if let Some(seat) = next {
                let number = tried.len();
                tried.push(seat.address());
                let uri = at(hop, seat.address())?;
                attempts.push(async move { (number, self.connect_to(uri).await, seat) });
            }
            let patience = async {
                if is_last {
                    return std::future::pending().await;
                }
                tokio::time::sleep(NEXT_ADDRESS_AFTER).await;
            };
            let ended = tokio::select! {
                biased;
                ended = attempts.next() => ended,
                () = patience => continue,
            };
            match ended {
                Some((number, Ok(tcp), seat)) => {
                    // Those that had more time and are not there yet are no good.
                    let late = tried[..number].to_vec();
                    name.overtaken(&late);
                    return Ok((tcp, Some(seat)));
                }
                Some((_, Err(error), mut seat)) => {
                    seat.failed();
                    first_failure.get_or_insert(error);
                }
                None => {
                    let none = || Failure::ConnectTimeout.into();
                    return Err(first_failure.unwrap_or_else(none));
                }
            }
        }
    }

    async fn connect_to(&self, address: Uri) -> Result<Wire, BoxError> {
        let mut tcp = self.tcp.clone();
        poll_fn(|cx| tcp.poll_ready(cx)).await?;
        Ok(Wire::new(tcp.call(address).await?))
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let limit = dialer.connect_timeout;
            let opened = dialer.opened.clone();
            let stream = tokio::time::timeout(limit, dialer.dial(destination))
                .await
                .map_err(|_| Failure::ConnectTimeout)??;
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(stream)
        })
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

async fn open_tunnel(hop: Hop, proxy: &Intercept, destination: &Uri) -> Result<Hop, BoxError> {
    let mut tunnel = Tunnel::new(proxy.uri().clone(), Opened(Some(hop)));
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    tunnel.call(destination.clone()).await.map_err(Failure::tunnel)
}

/// Whom a certificate has to name.
fn name_of(uri: &Uri) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(bare_host(uri)).map(|name| name.to_owned())
}

/// An IPv6 address stands in brackets in a URL.
fn bare_host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// The same hop, by one of its addresses.
fn at(hop: &Uri, address: IpAddr) -> Result<Uri, http::Error> {
    let port = hop.port_u16().unwrap_or(if is_https(hop) { 443 } else { 80 });
    let scheme = hop.scheme().cloned().unwrap_or(Scheme::HTTP);
    let authority = SocketAddr::new(address, port).to_string();
    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build()
}

/// An open connection in the place of a connector, for the layers that expect to open their own.
struct Opened<T>(Option<T>);

impl<T> Service<Uri> for Opened<T> {
    type Response = T;
    type Error = io::Error;
    type Future = Ready<Result<T, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// A connection as hyper's pool sees it.
pub(super) struct Stream {
    io: Layer<Hop>,
    /// Its place at an address, where the hop has a name.
    seat: Option<Seat>,
    /// Whether requests name the whole URL, as a proxy needs it.
    absolute_form: bool,
}

impl Stream {
    fn moved<T>(&self, polled: &Poll<io::Result<T>>) {
        if let (Some(seat), Poll::Ready(Ok(_))) = (&self.seat, polled) {
            seat.moved();
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = self.io.connected().proxy(self.absolute_form);
        match &self.seat {
            Some(seat) => connected.extra(seat.watch()),
            None => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.moved(&polled);
        polled
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.moved(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.moved(&polled);
        polled
    }
}
