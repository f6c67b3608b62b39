//! Whole small objects in one request each, and pages of listings, past the SDK.
//!
//! The SDK takes longer to make a request than this machine takes to send 16 KiB: it resolves the
//! endpoint by rules, chooses how to sign, and carries a bag of settings through thirty hooks. For a
//! small object nothing of that changes from one request to the next, but the key. So the first
//! request to a bucket goes through the SDK, and is looked at on its way: its address and what it is
//! signed for are the [`Pattern`] that those after it follow, signed here.
//!
//! Only what is plain goes this way, and only an answer that is plain success counts. Anything else,
//! and the object is moved again by the SDK's way, which knows what to make of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_s3::config::endpoint::Params;
use aws_sdk_s3::config::http::HttpRequest;
use aws_smithy_runtime_api::client::endpoint::EndpointResolverParams;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use sha2::{Digest as _, Sha256};

use super::answer::MAX_ANSWER_BYTES;
use super::body::{Watch, framed};
use super::calls::ListPage;
use super::connect::{Client, WatchedBody};
use super::credentials::Keys;
use super::page;
use super::place::signed_scope;
use crate::flow::Flow;
use crate::integrity::{Algorithm, Digest};

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");

/// What is said of a payload that the signature does not cover.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The SHA-256 of no bytes, for requests that have none.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// After so many pages in a row that were asked for in vain, none is any more: then it is not the pages.
const LISTS_IN_VAIN: u32 = 4;

/// Why an object did not go this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detour {
    /// Nothing is known of the bucket yet, or it asks for more than is done here.
    Unknown,
    /// The store asked for fewer requests.
    Throttled,
    /// Anything else.
    Failed,
}

/// What requests to buckets look like; shared by all lanes.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns(Arc<RwLock<HashMap<String, Arc<Pattern>>>>);

/// What all plain requests to one bucket have in common.
#[derive(Debug)]
struct Pattern {
    /// `http://host:port`
    origin: String,
    host: HeaderValue,
    /// What a path has before the slash and the key: the bucket, or nothing.
    prefix: String,
    /// What is signed for; `None` where nothing is signed.
    region: Option<String>,
    user_agent: Option<HeaderValue>,
}

impl Patterns {
    /// Looks at a request that the SDK is about to send.
    pub(super) fn learn(&self, request: &HttpRequest, settings: &ConfigBag) {
        let params = settings.load::<EndpointResolverParams>().and_then(|any| any.get::<Params>());
        // A listing has no key.
        let Some((bucket, key)) =
            params.and_then(|it| Some((it.bucket()?, it.key().unwrap_or_default())))
        else {
            return;
        };
        if self.of(bucket).is_some() {
            return;
        }
        if let Some(pattern) = Pattern::of(request, key) {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(bucket.to_owned(), Arc::new(pattern));
        }
    }

    fn of(&self, bucket: &str) -> Option<Arc<Pattern>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned()
    }
}

impl Pattern {
    fn of(request: &HttpRequest, key: &str) -> Option<Self> {
        let uri: Uri = request.uri().parse().ok()?;
        let authority = uri.authority()?;
        let encoded = encode(key);
        let path = uri.path().strip_suffix(encoded.as_str())?;
        let prefix = match path.strip_suffix('/') {
            Some(prefix) => prefix,
            None if key.is_empty() => path,
            None => return None,
        };
        let headers = request.headers();
        // Express buckets sign with keys of a session.
        if headers.get("x-amz-s3session-token").is_some() || authority.as_str().contains('@') {
            return None;
        }
        let region = match headers.get("authorization") {
            None => None,
            Some(signature)
                if signature.starts_with("AWS4-HMAC-SHA256 ")
                    && signature.contains("/s3/aws4_request,") =>
            {
                Some(signed_scope(signature)?.1.to_owned())
            }
            Some(_) => return None,
        };
        Some(Self {
            origin: format!("{}://{authority}", uri.scheme_str()?),
            host: HeaderValue::from_str(authority.as_str()).ok()?,
            prefix: prefix.to_owned(),
            region,
            user_agent: headers.get("user-agent").and_then(|it| HeaderValue::from_str(it).ok()),
        })
    }
}

/// Sends plain requests over the connections of one lane.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    http: Client,
    keys: Option<Keys>,
    patterns: Patterns,
    signer: Arc<Mutex<Signer>>,
    stall_timeout: Duration,
    lists_in_vain: Arc<AtomicU32>,
}

impl Direct {
    pub(super) fn new(
        http: Client,
        keys: Option<Keys>,
        patterns: Patterns,
        stall_timeout: Duration,
    ) -> Self {
        let (signer, lists_in_vain) = <(Arc<_>, Arc<_>)>::default();
        Self { http, keys, patterns, signer, stall_timeout, lists_in_vain }
    }

    /// Whether it is known what requests to `bucket` look like.
    pub(crate) fn knows(&self, bucket: &str) -> bool {
        self.patterns.of(bucket).is_some()
    }

    /// How long an answer may stand still.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// Stores `content` under `key`, and gives the headers of the answer.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        content: Bytes,
        digest: Option<Digest>,
        content_type: Option<&str>,
        flow: &Flow,
    ) -> Result<HeaderMap, Detour> {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
        if let Some(kind) = content_type {
            headers.insert(CONTENT_TYPE, value(kind)?);
        }
        if let Some(digest) = digest {
            headers.insert(header_of(digest.algorithm()), value(&digest.to_base64())?);
        }
        let watch = Watch::new(flow.clone(), content.len() as u64);
        let body = framed(&content.into(), &watch);
        let answer = tokio::select! {
            biased;
            answer = self.send(Method::PUT, bucket, key, headers, body, Some(&watch)) => answer,
            () = watch.stalled(self.stall_timeout) => Err(Detour::Failed),
        };
        match answer {
            Ok(answer) => {
                watch.answered();
                Ok(answer.into_parts().0.headers)
            }
            Err(detour) => {
                flow.take_back(watch.moved_bytes());
                Err(detour)
            }
        }
    }

    /// Asks for all of an object.
    pub(crate) async fn get(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Response<WatchedBody>, Detour> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(MODE, HeaderValue::from_static("ENABLED"));
        let answer = self.send(Method::GET, bucket, key, headers, SdkBody::empty(), None);
        tokio::time::timeout(self.stall_timeout, answer).await.map_err(|_| Detour::Failed)?
    }

    /// One page of a listing; `query` has its parameters as [`canonical_query`] writes them.
    pub(super) async fn list(&self, bucket: &str, query: &str) -> Result<ListPage, Detour> {
        if self.lists_in_vain.load(Ordering::Relaxed) >= LISTS_IN_VAIN {
            return Err(Detour::Unknown);
        }
        let page = tokio::time::timeout(self.stall_timeout, self.page(bucket, query)).await;
        let page = page.map_err(|_| Detour::Failed)?;
        match page {
            Ok(_) => self.lists_in_vain.store(0, Ordering::Relaxed),
            Err(Detour::Failed) => _ = self.lists_in_vain.fetch_add(1, Ordering::Relaxed),
            Err(_) => {}
        }
        page
    }

    async fn page(&self, bucket: &str, query: &str) -> Result<ListPage, Detour> {
        let pattern = self.patterns.of(bucket).ok_or(Detour::Unknown)?;
        let path = format!("{}/", pattern.prefix);
        let headers = HeaderMap::with_capacity(8);
        let resource = (path.as_str(), query);
        let answer =
            self.send_to(&pattern, Method::GET, resource, headers, SdkBody::empty(), None).await?;
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| Detour::Failed)?.to_bytes();
        page::parse(&body).ok_or(Detour::Failed)
    }

    async fn send(
        &self,
        method: Method,
        bucket: &str,
        key: &str,
        headers: HeaderMap,
        body: SdkBody,
        watch: Option<&Watch>,
    ) -> Result<Response<WatchedBody>, Detour> {
        let pattern = self.patterns.of(bucket).ok_or(Detour::Unknown)?;
        let path = format!("{}/{}", pattern.prefix, encode(key));
        // Clients and servers may take them for something else, and the SDK knows what to do.
        if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Detour::Unknown);
        }
        self.send_to(&pattern, method, (&path, ""), headers, body, watch).await
    }

    /// `resource` is the path and the query.
    async fn send_to(
        &self,
        pattern: &Pattern,
        method: Method,
        resource: (&str, &str),
        mut headers: HeaderMap,
        body: SdkBody,
        watch: Option<&Watch>,
    ) -> Result<Response<WatchedBody>, Detour> {
        headers.insert(HOST, pattern.host.clone());
        if let Some(agent) = &pattern.user_agent {
            headers.insert(USER_AGENT, agent.clone());
        }
        if let Some(region) = &pattern.region {
            let keys = self.keys.as_ref().ok_or(Detour::Unknown)?;
            let keys = keys.provide_credentials().await.map_err(|_| Detour::Failed)?;
            let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
            signer.sign(&keys, region, &method, resource, &mut headers)?;
        }
        let (path, query) = resource;
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("{}{path}{mark}{query}", pattern.origin);
        let uri = uri.parse::<Uri>().map_err(|_| Detour::Unknown)?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method, uri, headers);
        if let Some(watch) = watch {
            request.extensions_mut().insert(watch.used());
        }
        match self.http.send_plain(request).await {
            Ok(answer) => match answer.status() {
                StatusCode::OK => Ok(answer),
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    Err(Detour::Throttled)
                }
                _ => Err(Detour::Failed),
            },
            Err(_) => Err(Detour::Failed),
        }
    }
}

/// The header of a digest on its way up.
fn header_of(algorithm: Algorithm) -> HeaderName {
    HeaderName::from_static(match algorithm {
        Algorithm::Crc32 => "x-amz-checksum-crc32",
        Algorithm::Crc32c => "x-amz-checksum-crc32c",
        Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        Algorithm::Sha1 => "x-amz-checksum-sha1",
        Algorithm::Sha256 => "x-amz-checksum-sha256",
        Algorithm::Md5 => "content-md5",
    })
}

fn value(text: &str) -> Result<HeaderValue, Detour> {
    HeaderValue::from_str(text).map_err(|_| Detour::Unknown)
}

/// A key as a path has it: all but the unreserved characters and slashes as `%XX` (Amazon S3 API
/// Reference, "Signature Calculations").
fn encode(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len() + 8);
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Parameters as a signature wants them, which is also how they are sent: sorted by their names, all
/// but the unreserved characters as `%XX`.
pub(super) fn canonical_query(parameters: &mut [(&str, &str)]) -> String {
    parameters.sort_unstable();
    let mut query = String::with_capacity(256);
    for (name, value) in parameters {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(&encode(value).replace('/', "%2F"));
    }
    query
}

/// Signature Version 4 in a header, of requests with unsigned payloads. Keeps the
/// key of the day, which is four of the six hashes.
#[derive(Default)]
struct Signer {
    made_for: Option<(u64, String, String)>,
    key: [u8; 32],
    now: Option<(u64, String)>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

impl Signer {
    fn sign(
        &mut self,
        keys: &Credentials,
        region: &str,
        method: &Method,
        (path, query): (&str, &str),
        headers: &mut HeaderMap,
    ) -> Result<(), Detour> {
        let date = self.date()?;
        let day = &date[..8];
        let payload = if *method == Method::GET { EMPTY } else { UNSIGNED };
        headers.insert(CONTENT_SHA256, HeaderValue::from_static(payload));
        headers.insert(DATE, value(&date)?);
        if let Some(token) = keys.session_token() {
            let mut token = value(token)?;
            token.set_sensitive(true);
            headers.insert(TOKEN, token);
        }
        let mut signed: Vec<(&str, &HeaderValue)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, _)| {
                name.starts_with("x-amz-") || ["host", "content-type", "content-md5"].contains(name)
            })
            .collect();
        signed.sort_unstable_by_key(|(name, _)| *name);
        let mut canonical = Sha256::new();
        let mut names = String::with_capacity(128);
        for part in [method.as_str(), "\n", path, "\n", query, "\n"] {
            canonical.update(part);
        }
        for (name, value) in &signed {
            for part in [name.as_bytes(), b":", value.as_bytes().trim_ascii(), b"\n"] {
                canonical.update(part);
            }
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        for part in ["\n", names.as_str(), "\n", payload] {
            canonical.update(part);
        }
        let scope = format!("{day}/{region}/s3/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&canonical.finalize()));
        self.derive(keys, day, region);
        let signature = hex(&mac(&self.key, &to_sign));
        let mut authorization = value(&format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.access_key_id()
        ))?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    /// `20261123T225512Z`
    fn date(&mut self) -> Result<String, Detour> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let second = since.map_err(|_| Detour::Failed)?.as_secs();
        if let Some((then, date)) = &self.now
            && *then == second
        {
            return Ok(date.clone());
        }
        let time = DateTime::from_secs(second.cast_signed());
        let text = time.fmt(Format::DateTime).map_err(|_| Detour::Failed)?;
        let date: String = text.chars().filter(|it| !matches!(it, '-' | ':')).collect();
        self.now = Some((second, date.clone()));
        Ok(date)
    }

    fn derive(&mut self, keys: &Credentials, day: &str, region: &str) {
        let print = super::place::fingerprint(keys.access_key_id(), Some(keys.secret_access_key()));
        let made_for = self.made_for.as_ref();
        if made_for.is_some_and(|(p, d, r)| (*p, d.as_str(), r.as_str()) == (print, day, region)) {
            return;
        }
        let mut key = mac(format!("AWS4{}", keys.secret_access_key()).as_bytes(), day);
        for part in [region, "s3", "aws4_request"] {
            key = mac(&key, part);
        }
        self.key = key;
        self.made_for = Some((print, day.to_owned(), region.to_owned()));
    }
}

fn mac(key: &[u8], message: &str) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("a key of any length is one")
    };
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_paths() {
        assert_eq!(encode("a/b c+d~é"), "a/b%20c%2Bd~%C3%A9");
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }

    #[test]
    fn parameters_are_sorted_and_encoded() {
        let mut parameters = [("prefix", "a/b c"), ("list-type", "2"), ("delimiter", "/")];
        let query = canonical_query(&mut parameters);
        assert_eq!(query, "delimiter=%2F&list-type=2&prefix=a%2Fb%20c");
        assert_eq!(canonical_query(&mut []), "");
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_mac_is_the_standards() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&mac(b"Jefe", "what do ya want for nothing?")), expected);
    }

    #[test]
    fn secrets_do_not_show() {
        let keys = Credentials::new("AccessOfATest", "SecretOfATest", None, None, "a test");
        let mut signer = Signer::default();
        let mut headers = HeaderMap::new();
        signer.sign(&keys, "eu-west-3", &Method::GET, ("/b/k", ""), &mut headers).expect("signed");
        assert!(!format!("{signer:?} {headers:?}").contains("OfATest"));
        let date = headers[DATE].to_str().expect("text");
        assert!(date.len() == 16 && date.ends_with('Z'), "{date}");
    }
}
