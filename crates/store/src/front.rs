//! The seam between connections and the S3 service: every request and every response passes here.
//!
//! In front of the service requests are counted, and made what the service expects: where the store has no
//! credentials, signatures are dropped (the service would ask for a key to check them with) and chunked
//! bodies decoded. Behind it, bytes are counted, responses get a request id, and what is left of a refused
//! request's body is read off, so that a client in the middle of sending gets the answer instead of a reset
//! connection. Where there are [`faults`](crate::faults), they get in between here.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::service::S3Service;
use s3s::{Body, StdError};

use crate::chunked::{Decoded, Trailers};
use crate::faults::{Answer, Ended, Exchange, FaultHandle, Fuse, ReadOff, Rewrite, escape};
use crate::locks::lock;
use crate::network::{self, NetworkControl};
use crate::operation;
use crate::stats::{Counters, InFlight};

/// Most that is read off of a refused request: enough for a part of usual size, well below a second's worth.
const DRAIN_BYTES: usize = 128 << 20;

/// Longest that reading off may take: a client that waits before sending gets its answer after this.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What the store calls itself, so that a client can know what it allows.
const SERVER: &str = concat!("brigade-store/", env!("CARGO_PKG_VERSION"));

/// In front of the S3 service.
pub(crate) struct Front {
    pub(crate) service: S3Service,
    /// The same without signatures: for requests that were edited after theirs was checked.
    pub(crate) open: S3Service,
    pub(crate) faults: FaultHandle,
    pub(crate) network: Arc<NetworkControl>,
    pub(crate) counters: Arc<Counters>,
    /// The only region requests may be signed for, if there is one.
    pub(crate) region: Option<String>,
    /// Whether the store has no credentials.
    pub(crate) anonymous: bool,
    pub(crate) last_id: AtomicU64,
}

/// A response as it goes to the connection.
pub(crate) type Reply = Response<Counted>;

impl Front {
    /// Answers one request; an error ends the connection, whose fuse is blown then.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        fuse: Arc<Fuse>,
    ) -> Result<Reply, Ended> {
        let (parts, incoming) = request.into_parts();
        let operation = operation::name(&parts);
        self.counters.request(operation);
        let in_flight = InFlight::new(Arc::clone(&self.counters));
        let network = self.network.conditions();
        let admitted = network.as_ref().is_none_or(|network| network.admits());
        let delay = network.as_ref().map(|network| network.delay(operation, &parts, admitted));
        let waits = parts.headers.contains_key(header::EXPECT);
        let leftover = Leftover::default();
        let body = Body::http_body(Watched {
            inner: Some(incoming),
            read: false,
            leftover: leftover.clone(),
            counters: Arc::clone(&self.counters),
        });

        if let Some(network) = network.filter(|_| waits && admitted) {
            // The word to go on is under way first, and the body then.
            network::sleep(network.latency()).await;
        }
        let mut response = if !admitted {
            drop(body);
            self.slow_down()
        } else if let Some((rule, release)) = self.faults.choose(operation, &parts) {
            let exchange = Exchange { rule, release, fuse };
            exchange.answer(Arc::clone(&self), parts, body).await?
        } else {
            self.serve(parts, body).await
        };
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if response.extensions().get::<ReadOff>().map_or(refused, |read_off| read_off.0) {
            leftover.drain(waits).await;
        }
        if response.status() == StatusCode::NOT_MODIFIED {
            *response.body_mut() = Body::empty();
        }
        response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
        let id = format!("{:016X}", self.last_id.fetch_add(1, Ordering::Relaxed));
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert(HeaderName::from_static("x-amz-request-id"), id);
        }
        network::sleep(delay.unwrap_or_default()).await;
        let counters = Arc::clone(&self.counters);
        Ok(response.map(|inner| Counted { inner, counters, _in_flight: in_flight }))
    }

    /// The answer to a request that is one too many.
    fn slow_down(&self) -> Response<Body> {
        self.counters.refused();
        let message = "Please reduce your request rate.".to_owned();
        Answer { message, ..Answer::new(503, "SlowDown") }.response()
    }

    /// Hands a request to the service.
    pub(crate) async fn serve(&self, mut parts: Parts, mut body: Body) -> Response<Body> {
        if let Some(refusal) = self.wrong_region(&parts) {
            return refusal;
        }
        if self.anonymous {
            body = without_signature(&mut parts, body);
            if let Some(rewrite) = parts.extensions.remove::<Rewrite>() {
                rewrite.apply(&mut parts.uri, &mut parts.headers);
            }
        }
        match self.service.call(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(error) => internal_error(&error.into()),
        }
    }

    /// AWS's answer to a request that is signed for another region.
    fn wrong_region(&self, request: &Parts) -> Option<Response<Body>> {
        let expected = self.region.as_deref()?;
        let (signed_for, in_query) = signed_region(request)?;
        if signed_for == expected {
            return None;
        }
        let (code, what) = if in_query {
            ("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter")
        } else {
            ("AuthorizationHeaderMalformed", "The authorization header is malformed")
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{what}; the \
             region '{}' is wrong; expecting '{expected}'</Message><Region>{expected}</Region></Error>",
            escape(&signed_for)
        );
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        if let Ok(region) = HeaderValue::from_str(expected) {
            headers.insert(HeaderName::from_static("x-amz-bucket-region"), region);
        }
        Some(response)
    }
}

/// The region in the scope a request was signed for, and whether the query says so.
fn signed_region(request: &Parts) -> Option<(String, bool)> {
    let (scope, in_query) = scope(request)?;
    let scope = if in_query { &scope.replace("%2F", "/").replace("%2f", "/") } else { scope };
    Some((scope.split('/').nth(2)?.to_owned(), in_query))
}

/// The scope a request was signed for, which begins with the access key, and whether it is from the query,
/// where its slashes are encoded.
pub(crate) fn scope(request: &Parts) -> Option<(&str, bool)> {
    if let Some(value) = request.headers.get(header::AUTHORIZATION) {
        let (_, scope) = value.to_str().ok()?.split_once("Credential=")?;
        return Some((scope.split(',').next()?, false));
    }
    let scope =
        request.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    Some((scope, true))
}

/// Takes the signature off a request and the chunks off its body.
fn without_signature(request: &mut Parts, body: Body) -> Body {
    let chunked = is_chunked(&request.headers);
    request.uri = plain(&request.uri, &mut request.headers);
    if !chunked {
        return body;
    }
    let trailers = Trailers::default();
    request.extensions.insert(trailers.clone());
    Body::http_body(Decoded::new(body, trailers))
}

/// What signatures add to a query.
const OF_SIGNATURES: [&str; 10] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "Expires",
];

/// Takes the signature off a request's head, and makes its length that of the body without chunks. Returns
/// the target without the signature.
pub(crate) fn plain(uri: &Uri, headers: &mut HeaderMap) -> Uri {
    headers.remove(header::AUTHORIZATION);
    if is_chunked(headers) {
        match headers.get("x-amz-decoded-content-length").cloned() {
            Some(length) => headers.insert(header::CONTENT_LENGTH, length),
            None => headers.remove(header::CONTENT_LENGTH),
        };
    }
    let Some(query) = uri.query() else { return uri.clone() };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !OF_SIGNATURES.contains(&pair.split('=').next().unwrap_or_default()))
        .collect();
    let question_mark = if kept.is_empty() { "" } else { "?" };
    let target = format!("{}{question_mark}{}", uri.path(), kept.join("&"));
    target.parse().unwrap_or_else(|_| uri.clone())
}

/// Whether a body comes in chunks of S3's own.
fn is_chunked(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    header("x-amz-content-sha256").is_some_and(|value| value.starts_with("STREAMING-"))
        || header("content-encoding").is_some_and(|value| {
            value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("aws-chunked"))
        })
}

pub(crate) fn internal_error(error: &StdError) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>{}</Message>\
         </Error>",
        escape(&error.to_string())
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Where a request's body goes when the service has lost interest in it.
#[derive(Clone, Default)]
struct Leftover(Arc<Mutex<Option<(Incoming, bool)>>>);

impl Leftover {
    /// Reads off what is left, within bounds. A client that waits to be told to go on with its body is told
    /// the answer instead.
    async fn drain(&self, client_waits: bool) {
        let Some((mut body, read)) = lock(&self.0).take() else { return };
        if client_waits && !read {
            return;
        }
        let reading = async {
            let mut drained = 0;
            while let Some(Ok(frame)) = body.frame().await {
                drained += frame.data_ref().map_or(0, Bytes::len);
                if drained > DRAIN_BYTES {
                    break;
                }
            }
        };
        // A client too slow for that will see its connection closed.
        let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
    }
}

/// A request's body, counted.
struct Watched {
    /// Until it is handed to `leftover`.
    inner: Option<Incoming>,
    read: bool,
    leftover: Leftover,
    counters: Arc<Counters>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.read = true;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.counters.bytes_in(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take().filter(|inner| !inner.is_end_stream()) {
            *lock(&self.leftover.0) = Some((inner, self.read));
        }
    }
}

/// A response's body, counted.
pub(crate) struct Counted {
    inner: Body,
    counters: Arc<Counters>,
    _in_flight: InFlight,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.counters.bytes_out(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.inner)
    }
}

/// [`Front`] as `hyper` calls it for one connection.
pub(crate) struct Service {
    pub(crate) front: Arc<Front>,
    pub(crate) fuse: Arc<Fuse>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Reply;
    type Error = Ended;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Ended>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(Arc::clone(&self.front).answer(request, Arc::clone(&self.fuse)))
    }
}
