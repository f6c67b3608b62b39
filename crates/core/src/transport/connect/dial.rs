//! Opening a connection: name, TCP, proxy and TLS, within one time limit.
//!
//! The hop is whom the TCP connection goes to: the destination, or a proxy. For an http destination
//! the proxy is simply spoken to in absolute form; for an https one it is asked for a tunnel, and
//! TLS with the destination runs inside. Root certificates, where they are needed and not there
//! yet, are read while TCP connects.

use std::future::{Ready, poll_fn, ready};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tower_service::Service;

use super::failure::{BoxError, Failure};
use super::proxy::Rules;
use super::secure::{Layer, secure};
use super::{ConnectOptions, SharedTls, send};

/// A peer that vanished without a word (a machine without power, a forgotten NAT entry) is noticed
/// within a minute of silence: after 30 s, then three times 10 s. It matters while an answer is
/// awaited; during a body the engine's watchdog is faster.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

type Tcp = TokioIo<TcpStream>;
/// A connection to the hop, which speaks TLS itself where it is a destination or a proxy of https.
type Hop = Layer<Tcp>;

/// Makes connections for hyper's pool.
#[derive(Clone)]
pub(super) struct Dialer {
    tcp: HttpConnector<Resolver>,
    tls: SharedTls,
    proxies: Arc<Rules>,
    connect_timeout: Duration,
    opened: Arc<AtomicU64>,
}

impl Dialer {
    pub(super) fn new(
        options: &ConnectOptions,
        tls: SharedTls,
        proxies: Arc<Rules>,
        opened: Arc<AtomicU64>,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new());
        tcp.enforce_http(false);
        // A request's head and its body leave as they are written; nothing is gained by waiting.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        // This one is divided among a name's addresses; the one below holds for everything.
        tcp.set_connect_timeout(Some(options.connect_timeout));
        tcp.set_recv_buffer_size(options.recv_buffer_bytes);
        tcp.set_send_buffer_size(options.send_buffer_bytes);
        Self { tcp, tls, proxies, connect_timeout: options.connect_timeout, opened }
    }

    async fn dial(self, destination: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.proxy_for(&destination) else {
            let (hop, _) = self.open(&destination, is_https(&destination)).await?;
            return Ok(Stream { io: Layer::Plain(hop), absolute_form: false });
        };
        let tunnel = is_https(&destination);
        let named = |source| Failure::through(&proxy, source);
        let (hop, config) =
            self.open(proxy.uri(), tunnel || is_https(proxy.uri())).await.map_err(&named)?;
        match config.filter(|_| tunnel) {
            None => Ok(Stream { io: Layer::Plain(hop), absolute_form: true }),
            Some(config) => {
                let hop = open_tunnel(hop, &proxy, &destination).await.map_err(named)?;
                let tls = secure(hop, config, name_of(&destination)?).await?;
                Ok(Stream { io: Layer::Secure(Box::new(tls)), absolute_form: false })
            }
        }
    }

    /// Connects to `hop`, with TLS where its scheme asks for it. With `needs_tls` the configuration
    /// comes back as well.
    async fn open(
        &self,
        hop: &Uri,
        needs_tls: bool,
    ) -> Result<(Hop, Option<Arc<ClientConfig>>), BoxError> {
        let mut tcp = self.tcp.clone();
        let connect = async {
            poll_fn(|cx| tcp.poll_ready(cx)).await?;
            tcp.call(hop.clone()).await.map_err(BoxError::from)
        };
        let config = async {
            if needs_tls {
                self.tls.config().await.map(Some).map_err(BoxError::from)
            } else {
                Ok(None)
            }
        };
        let (io, config) = futures::future::try_join(connect, config).await?;
        let io = match config.clone().filter(|_| is_https(hop)) {
            None => Layer::Plain(io),
            Some(config) => Layer::Secure(Box::new(secure(io, config, name_of(hop)?).await?)),
        };
        Ok((io, config))
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
    let host = uri.host().unwrap_or_default();
    ServerName::try_from(host.trim_matches(['[', ']'])).map(|name| name.to_owned())
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

/// The system's resolver, naming the host in its errors, and starting each time at another address:
/// Amazon's names have several, each good for some of the bandwidth only.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    turn: Arc<AtomicUsize>,
}

impl Resolver {
    fn new() -> Self {
        Self { system: GaiResolver::new(), turn: Arc::default() }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let host = name.to_string();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let addresses = self.system.call(name);
        Box::pin(async move {
            match addresses.await {
                Ok(addresses) => Ok(rotate(addresses.collect(), turn).into_iter()),
                Err(error) => Err(Failure::name(host, &error)),
            }
        })
    }
}

/// Starts at another address each turn, but keeps the family that the system prefers in front:
/// which of IPv6 and IPv4 works here is something it knows.
fn rotate(addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    let Some(preferred) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    for family in [&mut first, &mut second] {
        let by = turn % family.len().max(1);
        family.rotate_left(by);
    }
    first.append(&mut second);
    first
}

/// A connection as hyper's pool sees it.
pub(super) struct Stream {
    io: Layer<Hop>,
    /// Whether requests name the whole URL, as a proxy needs it.
    absolute_form: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.absolute_form)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
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
        if let Layer::Plain(Layer::Plain(tcp)) = &self.io {
            return send::poll_send(tcp.inner(), cx, slices);
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_turns_within_their_family() {
        let list = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), 1)).collect()
        };
        let addresses = list("::1 10.0.0.1 ::2 10.0.0.2 10.0.0.3");
        assert_eq!(rotate(addresses.clone(), 0), list("::1 ::2 10.0.0.1 10.0.0.2 10.0.0.3"));
        assert_eq!(rotate(addresses.clone(), 1), list("::2 ::1 10.0.0.2 10.0.0.3 10.0.0.1"));
        assert_eq!(rotate(addresses, 5), list("::2 ::1 10.0.0.3 10.0.0.1 10.0.0.2"));
        assert_eq!(rotate(Vec::new(), 3), []);
    }
}
