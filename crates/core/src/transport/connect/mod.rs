//! The HTTP client underneath `aws-sdk-s3` and `aws-config`.
//!
//! The SDK's own client hides what a transfer engine must choose: the size of reads, the sockets'
//! buffers, which addresses are used, when certificates are read, what a failure is called. So the
//! SDK's [`HttpClient`] trait is implemented here over `hyper`. Each lane has a [`Client`] with a
//! connection pool of its own, so that no connection is ever driven by another core; all of them
//! share one [`SharedTls`], so that root certificates are read once, and only if some endpoint is
//! https, and one set of [`Addresses`], so that connections are spread over all of a store's
//! machines however many lanes there are.
//!
//! A pooled connection may have been closed by the server in the meantime. Where that is known
//! before a request's first byte is written, the request, with its body untouched, moves to another
//! connection unseen. Where it happens later, the caller gets the error: only the engine knows
//! which of its requests are safe to repeat. Bodies have no time limit here, because the engine
//! watches their progress itself.

mod addresses;
mod dial;
mod failure;
mod proxy;
mod records;
mod secure;
mod send;
mod tls;
mod vigil;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::StatusCode;
use http::header::{PROXY_AUTHORIZATION, SERVER};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpInfo, capture_connection};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::dial::Dialer;
use self::failure::{Failure, connector_error};
use self::proxy::Rules;
use self::vigil::Vigil;
pub(crate) use self::vigil::WatchedBody;
pub(in crate::transport) use self::wire::Used;
use crate::error::Result;

pub(crate) use self::addresses::Addresses;
pub use self::addresses::{Resolve, Resolving};
pub use self::proxy::Proxies;
pub(crate) use self::tls::SharedTls;

pub(crate) use self::failure::{describe, is_certificate_problem, is_proxy_credentials_problem};

/// The most bytes one read from a connection may bring, and so the most one chunk of a body holds.
///
/// hyper doubles its reads from 8 KiB up to this while they come back full; its own limit is
/// 408 KiB. A larger read means fewer system calls and larger writes to disk; half a MiB still
/// leaves a chunk in a core's second-level cache, where it is summed. It also bounds what is queued
/// for one `writev` on the way up.
const BUFFER_BYTES: usize = 128 * 1024;

/// How connections are made and kept. All clients of a session use the same.
#[derive(Debug, Clone)]
pub(crate) struct ConnectOptions {
    /// How long opening a connection may take in all: name lookup, TCP, proxy and TLS. A name's other
    /// addresses are tried meanwhile, so that one dead address does not use it up. Default 10 s, since
    /// a lost first packet alone costs 1 s, then 2, then 4.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before a request over it is given up, by the engine.
    /// Addresses where that happens are put aside. Default 20 s.
    pub stall_timeout: Duration,
    /// How long an unused connection is kept. Default 15 s: Amazon's servers close theirs after
    /// about 20 s, and a request that meets a closing connection is lost and has to be repeated,
    /// which costs more than a new connection does.
    pub idle_timeout: Duration,
    /// A PEM file of the certificate authorities to trust *instead of* the system's, as
    /// `AWS_CA_BUNDLE` has it. Read once, by [`SharedTls::new`].
    pub ca_bundle: Option<PathBuf>,
    /// Whether a server must prove who it is; default true. False accepts any certificate, and with
    /// it anyone between here and the store. Read once, by [`SharedTls::new`].
    pub verify_tls: bool,
    /// Which proxies to go through; default none.
    pub proxies: Proxies,
    /// The sockets' receive buffer (`SO_RCVBUF`), in bytes. Default: left alone, because a fixed
    /// size turns off the kernel's own tuning, which usually does better.
    pub recv_buffer_bytes: Option<usize>,
    /// The sockets' send buffer (`SO_SNDBUF`), in bytes. Default: left alone, for the same reason.
    pub send_buffer_bytes: Option<usize>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(15),
            ca_bundle: None,
            verify_tls: true,
            proxies: Proxies::default(),
            recv_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

/// A client with a connection pool of its own, to be given to the SDK's configuration.
///
/// Certificates and their checking come from `tls`, addresses from `addresses`, everything else from
/// `options`. Fails where a proxy's URL is malformed. Opens nothing: the first request does.
pub(crate) fn http_client(
    options: &ConnectOptions,
    tls: &SharedTls,
    addresses: &Addresses,
) -> Result<Client> {
    let proxies = Arc::new(Rules::new(&options.proxies)?);
    let opened = Arc::new(AtomicU64::new(0));
    let dialer = Dialer::new(options, tls, addresses, proxies.clone(), opened.clone());
    let hyper = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(options.idle_timeout)
        // The engine's window already bounds the connections; a second bound here would only close
        // some of them between two parts.
        .pool_max_idle_per_host(usize::MAX)
        .http1_max_buf_size(BUFFER_BYTES)
        // A body's bytes go to the socket from where they lie, not through a copy behind the head.
        .http1_writev(true)
        .retry_canceled_requests(true)
        .build(dialer);
    // Half, because what was handed to a connection and what left it are not the same moment.
    let silence = options.stall_timeout / 2;
    Ok(Client(Arc::new(Inner { hyper, proxies, opened, silence, server: OnceLock::new() })))
}

/// An HTTP/1.1 client for the SDK. Clones share one pool, and what was seen over it.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    hyper: legacy::Client<Dialer, SdkBody>,
    proxies: Arc<Rules>,
    opened: Arc<AtomicU64>,
    silence: Duration,
    server: OnceLock<String>,
}

impl Client {
    /// The first `Server` header that any response over this client or its clones carried: what a
    /// store calls itself. A client that also fetches credentials may report their source instead.
    pub(crate) fn server_header(&self) -> Option<String> {
        self.0.server.get().cloned()
    }

    /// How many connections this client and its clones have opened so far, TLS included.
    pub(crate) fn connections_opened(&self) -> u64 {
        self.0.opened.load(Ordering::Relaxed)
    }
}

impl Client {
    /// Sends a request that is ready as it is, past the SDK and without a time limit.
    pub(super) async fn send_plain(
        &self,
        request: http::Request<SdkBody>,
    ) -> Result<http::Response<WatchedBody>, ConnectorError> {
        self.0.send(request).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("opened", &self.connections_opened()).finish_non_exhaustive()
    }
}

impl HttpClient for Client {
    /// Of `settings`, only the read time-out counts: it bounds the wait for a response's head, from
    /// the start of the call. Credential sources set one of a second or so, and without it a
    /// machine outside EC2 would wait for an address that never answers. The time to connect is
    /// bounded by [`ConnectOptions::connect_timeout`] alone, since connections outlive requests.
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let read_timeout = settings.read_timeout();
        SharedHttpConnector::new(Exchange { client: self.0.clone(), read_timeout })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("hyper", Some("1.x".into())))
    }
}

/// One client as one SDK operation sees it: with the time limit of that operation.
struct Exchange {
    client: Arc<Inner>,
    read_timeout: Option<Duration>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("read_timeout", &self.read_timeout).finish_non_exhaustive()
    }
}

impl HttpConnector for Exchange {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.client.clone();
        let limit = self.read_timeout;
        HttpConnectorFuture::new(async move {
            let answer = client.send_for_sdk(request);
            match limit {
                None => answer.await,
                Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                    Err(ConnectorError::timeout(Failure::NoAnswer(limit).into()))
                }),
            }
        })
    }
}

impl Inner {
    async fn send_for_sdk(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request =
            request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let response = self.send(request).await?;
        if self.server.get().is_none()
            && let Some(server) = response.headers().get(SERVER)
        {
            // Another request may have been first; then its answer stays.
            let _ = self.server.set(String::from_utf8_lossy(server.as_bytes()).into_owned());
        }
        HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }

    async fn send(
        &self,
        mut request: http::Request<SdkBody>,
    ) -> Result<http::Response<WatchedBody>, ConnectorError> {
        let proxy = self.proxies.asked_in_absolute_form(request.uri());
        if let Some(credentials) = proxy.as_ref().and_then(Intercept::basic_auth) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        let used = capture_connection(&mut request);
        // The SDK asks for the connection that carried a request, to close it where the answer says
        // that the server behind it is in trouble.
        if let Some(wanted) = request.extensions().get::<CaptureSmithyConnection>().cloned() {
            let used = used.clone();
            wanted.set_connection_retriever(move || connection_metadata(&used));
        }
        if let Some(wanted) = request.extensions().get::<Used>() {
            wanted.is(used.clone());
        }
        let mut vigil = Vigil::new(used, self.silence);
        let response = match self.hyper.request(request).await {
            Ok(response) => response,
            Err(error) => {
                vigil.end();
                return Err(connector_error(error.into()));
            }
        };
        if let Some(proxy) =
            proxy.filter(|_| response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        {
            vigil.end();
            let refused = Failure::through(&proxy, Failure::ProxyCredentials);
            return Err(connector_error(refused.into()));
        }
        Ok(response.map(|body| WatchedBody { body, vigil }))
    }
}

fn connection_metadata(used: &CaptureConnection) -> Option<ConnectionMetadata> {
    let connected = used.connection_metadata();
    let connected = connected.as_ref()?;
    let mut extras = http::Extensions::new();
    connected.get_extras(&mut extras);
    let sockets = extras.get::<HttpInfo>();
    let poisoned = used.clone();
    let mut metadata =
        ConnectionMetadata::builder().proxied(connected.is_proxied()).poison_fn(move || {
            if let Some(connected) = poisoned.connection_metadata().as_ref() {
                connected.poison();
            }
        });
    metadata
        .set_local_addr(sockets.map(HttpInfo::local_addr))
        .set_remote_addr(sockets.map(HttpInfo::remote_addr));
    Some(metadata.build())
}
