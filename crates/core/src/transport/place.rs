//! Where a bucket is, when that is not where the session's options have it.
//!
//! A store that is asked in the wrong region says which is right; one that has moved a bucket names
//! another of its hosts. What it says is believed where it makes sense: a region that looks like one,
//! a host that is the store's own, never one without TLS where there was TLS. It is remembered for the
//! bucket, for all lanes; a session that was never sent elsewhere pays one atomic load for a request.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::config::endpoint::Params;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::endpoint::EndpointResolverParams;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use http::uri::{Authority, Scheme};

use crate::error::Place;

/// The places that a session was told of.
#[derive(Debug, Default)]
pub(super) struct Places {
    has_any: AtomicBool,
    known: RwLock<HashMap<String, Place>>,
}

impl Places {
    /// Where `bucket` is, if that is known to be elsewhere.
    pub(super) fn of(&self, bucket: &str) -> Option<Place> {
        if !self.has_any.load(Ordering::Acquire) {
            return None;
        }
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(bucket).cloned()
    }

    /// Remembers what was told of `bucket`; what was not told stays as it was.
    pub(super) fn learn(&self, bucket: &str, told: &Place) {
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = known.entry(bucket.to_owned()).or_default();
        if told.region.is_some() {
            place.region.clone_from(&told.region);
        }
        if told.endpoint_url.is_some() {
            place.endpoint_url.clone_from(&told.endpoint_url);
            place.path_style = told.path_style;
        }
        self.has_any.store(true, Ordering::Release);
    }
}

/// What a request was, as far as its refusal is understood by it. Goes along with the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) bucket: String,
    /// What it was signed for, or would have been.
    pub(super) region: Option<String>,
    /// Says which credentials it was signed with, and nothing of them.
    pub(super) signed_with: Option<u64>,
    pub(super) has_session_token: bool,
    /// Whether the endpoint was given, and does not follow from the region as AWS's do.
    has_own_endpoint: bool,
    is_https: bool,
    /// Host and port.
    authority: String,
}

impl Storable for Asked {
    type Storer = StoreReplace<Self>;
}

impl Asked {
    pub(super) fn of(request: &HttpRequest, settings: &ConfigBag) -> Self {
        let params = settings.load::<EndpointResolverParams>().and_then(|any| any.get::<Params>());
        let signature = request.headers().get("authorization").unwrap_or_default();
        let token = request.headers().get("x-amz-security-token");
        let signed = signed_scope(signature);
        let region = signed.map(|(_, region)| region).or(params.and_then(Params::region));
        let uri: http::Uri = request.uri().parse().unwrap_or_default();
        Self {
            bucket: params.and_then(Params::bucket).unwrap_or_default().to_owned(),
            region: region.map(str::to_owned),
            signed_with: signed.map(|(key, _)| fingerprint(key, token)),
            has_session_token: token.is_some(),
            has_own_endpoint: params.is_some_and(|params| params.endpoint().is_some()),
            is_https: uri.scheme() == Some(&Scheme::HTTPS),
            authority: uri.authority().map(Authority::to_string).unwrap_or_default(),
        }
    }

    /// Where an answer that names the right `region` sends the request, unless it was there already.
    pub(super) fn sent_to(&self, region: Option<&str>, answer: &HttpResponse) -> Option<Place> {
        if self.bucket.is_empty() {
            return None;
        }
        let named = self.named_host(answer);
        // On AWS a region's name is its endpoint's as well.
        let of_host = named.as_ref().and_then(|named| region_of_aws(&named.host));
        let new = |region: &&str| self.region.as_deref() != Some(region);
        let region = region.or(of_host.as_deref()).filter(new).map(str::to_owned);
        let named = named.filter(|named| named.url(&self.bucket) != self.url());
        // The SDK makes the better one of it: for FIPS, dual stack and so on.
        let named = named.filter(|_| self.has_own_endpoint || region.is_none());
        if region.is_none() && named.is_none() {
            return None;
        }
        Some(Place {
            region,
            path_style: named.as_ref().map(|named| !named.has_bucket(&self.bucket)),
            endpoint_url: named.map(|named| named.url(&self.bucket)),
        })
    }

    /// The host in the answer, if it may be one of the store's.
    pub(super) fn named_host(&self, answer: &HttpResponse) -> Option<Named> {
        let location = answer.headers().get("location").map(str::to_owned);
        let named = location.or_else(|| {
            // Without a scheme, as S3 writes it.
            let host = element(answer, "Endpoint")?;
            let scheme = if self.is_https { "https" } else { "http" };
            Some(format!("{scheme}://{host}"))
        })?;
        let uri: http::Uri = named.parse().ok()?;
        let is_https = match uri.scheme()?.as_str() {
            "https" => true,
            "http" if !self.is_https => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host().to_ascii_lowercase();
        let ours = http::Uri::try_from(self.authority.as_str()).ok()?;
        let ours = ours.host()?.to_ascii_lowercase();
        // Nothing else in it: no user, no port that is none.
        let port = authority.port_u16();
        let plain = port.map_or(host.clone(), |port| format!("{host}:{port}"));
        let trusted = authority.as_str().eq_ignore_ascii_case(&plain)
            && is_host(&host)
            && (are_of_one_store(&ours, &host) || host == format!("{}.{ours}", self.bucket));
        trusted.then_some(Named { is_https, host, port })
    }

    fn url(&self) -> String {
        let uri = http::Uri::try_from(self.authority.as_str()).unwrap_or_default();
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Named { is_https: self.is_https, host, port: uri.port_u16() }.url(&self.bucket)
    }
}

/// A host that an answer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    is_https: bool,
    host: String,
    port: Option<u16>,
}

impl Named {
    fn has_bucket(&self, bucket: &str) -> bool {
        self.host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'))
    }

    /// As an endpoint: the bucket's name left out.
    fn url(&self, bucket: &str) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let host =
            if self.has_bucket(bucket) { &self.host[bucket.len() + 1..] } else { &self.host };
        match self.port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

/// What tells one set of credentials from another.
pub(super) fn fingerprint(access_key: &str, session_token: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (access_key, session_token).hash(&mut hasher);
    hasher.finish()
}

/// The text of an element in an answer's body, if it is all there is of that name.
pub(super) fn element(answer: &HttpResponse, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(answer.body().bytes()?);
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside.trim().to_owned())
}

/// A region goes into messages that name a command to type, and into host names.
pub(super) fn is_region(region: &str) -> bool {
    !region.is_empty()
        && region.len() <= 64
        && region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The access key and the region in `AWS4-HMAC-SHA256 Credential=KEY/20260101/REGION/s3/aws4_request, …`.
pub(super) fn signed_scope(signature: &str) -> Option<(&str, &str)> {
    let scope = signature.split_once("Credential=")?.1.split(',').next()?;
    let mut words = scope.rsplitn(5, '/').skip(2);
    let (region, _date, key) = (words.next()?, words.next()?, words.next()?);
    Some((key, region))
}

/// The region in the name of one of AWS's endpoints, in either of its spellings.
fn region_of_aws(host: &str) -> Option<String> {
    let rest = host.strip_suffix(".amazonaws.com").or(host.strip_suffix(".amazonaws.com.cn"))?;
    let region = match rest.rsplit_once('.') {
        Some((before, region)) if before.rsplit('.').next().is_some_and(|s3| s3 == "s3") => region,
        _ => rest.rsplit('.').next()?.strip_prefix("s3-")?,
    };
    is_region(region).then(|| region.to_owned())
}

fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

/// Whether two hosts belong to one store: the same one, or two of one domain. Requests are signed for
/// the host they go to and carry the payload: a store may pass them on to its own, not to strangers.
fn are_of_one_store(ours: &str, other: &str) -> bool {
    let is_address = |host: &str| host.parse::<std::net::Ipv4Addr>().is_ok();
    if ours == other || is_address(ours) || is_address(other) {
        return ours == other;
    }
    if other.ends_with(".amazonaws.com") && region_of_aws(other).is_none() {
        // Of the many hosts below that name, most are other people's machines.
        return other == "s3.amazonaws.com" || other.ends_with(".s3.amazonaws.com");
    }
    let labels = |host: &str| host.rsplit('.').map(str::to_owned).collect::<Vec<_>>();
    let (ours, other) = (labels(ours), labels(other));
    let alike = ours.iter().zip(&other).take_while(|(ours, other)| ours == other).count();
    // Under a country, the domain's own name is the third label where the second is short: `co.uk`.
    let is_country = ours.len() > 2 && ours[0].len() == 2 && ours[1].len() <= 3;
    alike >= if is_country { 3 } else { 2 }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn asked(url: &str) -> Asked {
        let uri: http::Uri = url.parse().expect("a URL");
        Asked {
            bucket: "logs".into(),
            region: Some("us-east-1".into()),
            has_own_endpoint: true,
            is_https: uri.scheme() == Some(&Scheme::HTTPS),
            authority: uri.authority().expect("a host").to_string(),
            ..Asked::default()
        }
    }

    fn answer(location: Option<&str>, body: &str) -> HttpResponse {
        let status = 307.try_into().expect("a status");
        let mut answer = HttpResponse::new(status, SdkBody::from(body.to_owned()));
        if let Some(location) = location {
            answer.headers_mut().insert("location", location.to_owned());
        }
        answer
    }

    /// Where a `Location` leads: region, endpoint, whether the bucket goes into the path.
    fn led(from: &str, location: &str) -> Option<(Option<String>, Option<String>, Option<bool>)> {
        let place = asked(from).sent_to(None, &answer(Some(location), ""))?;
        Some((place.region, place.endpoint_url, place.path_style))
    }

    #[test]
    fn a_region_is_followed_unless_it_is_the_one_that_was_asked() {
        let asked = asked("https://logs.s3.amazonaws.com");
        let place = asked.sent_to(Some("eu-west-1"), &answer(None, "")).expect("elsewhere");
        assert_eq!(place, Place { region: Some("eu-west-1".into()), ..Place::default() });
        assert_eq!(asked.sent_to(Some("us-east-1"), &answer(None, "")), None);
        assert_eq!(asked.sent_to(None, &answer(None, "")), None);
    }

    #[test]
    fn a_host_of_the_same_store_is_followed() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            led("http://127.0.0.1:9000/logs/k", "http://127.0.0.1:9001/logs/k"),
            Some((None, text("http://127.0.0.1:9001"), Some(true)))
        );
        assert_eq!(
            led("https://a.store.example/logs/k", "https://logs.b.store.example/k"),
            Some((None, text("https://b.store.example"), Some(false)))
        );
        assert_eq!(
            led("https://logs.s3.amazonaws.com/k", "https://logs.s3-eu-west-1.amazonaws.com/k"),
            Some((text("eu-west-1"), text("https://s3-eu-west-1.amazonaws.com"), Some(false)))
        );
        let body = "<Error><Endpoint>logs.b.store.example</Endpoint></Error>";
        let place = asked("https://a.store.example").sent_to(None, &answer(None, body));
        assert_eq!(place.and_then(|place| place.endpoint_url), text("https://b.store.example"));
    }

    #[test]
    fn on_aws_the_region_tells_the_host() {
        let asked = Asked { has_own_endpoint: false, ..asked("https://logs.s3.amazonaws.com/k") };
        let place =
            asked.sent_to(None, &answer(Some("https://logs.s3.eu-west-1.amazonaws.com"), ""));
        let region = Some("eu-west-1".to_owned());
        assert_eq!(place, Some(Place { region, ..Place::default() }));
    }

    #[test]
    fn strangers_and_circles_are_not_followed() {
        for (from, location) in [
            ("https://a.store.example", "http://b.store.example/logs/k"),
            ("https://a.store.example", "https://store.evil.example/logs/k"),
            ("https://a.store.co.uk", "https://evil.co.uk/logs/k"),
            ("https://a.store.example", "https://a.store.example@evil.example/logs/k"),
            ("https://a.store.example", "https://b..store.example/logs/k"),
            ("https://a.store.example", "https://a.store.example/logs/other"),
            ("https://a.store.example", "/logs/other"),
            ("https://a.store.example", "ftp://b.store.example/"),
            ("https://a.store.example", "https://b.store.example:x/"),
            ("http://10.0.0.1:9000", "http://10.0.0.2:9000/logs/k"),
            ("http://minio", "http://metadata/logs/k"),
            ("https://s3.amazonaws.com", "https://ec2-1-2-3-4.compute-1.amazonaws.com/logs/k"),
        ] {
            assert_eq!(led(from, location), None, "{from} {location}");
        }
    }

    #[test]
    fn signatures_tell_key_and_region() {
        let signature = "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/s3/aws4_request, \
                         SignedHeaders=host, Signature=0";
        assert_eq!(signed_scope(signature), Some(("AKID", "eu-west-1")));
        assert_eq!(signed_scope("Bearer x"), None);
        assert_ne!(fingerprint("a", None), fingerprint("a", Some("t")));
    }

    #[test]
    fn what_was_learnt_adds_up() {
        let places = Places::default();
        assert_eq!(places.of("logs"), None);
        let region = Place { region: Some("eu-west-1".into()), ..Place::default() };
        places.learn("logs", &region);
        let host = Place {
            endpoint_url: Some("http://b".into()),
            path_style: Some(true),
            ..Place::default()
        };
        places.learn("logs", &host);
        assert_eq!(places.of("logs"), Some(Place { region: region.region, ..host }));
        assert_eq!(places.of("other"), None);
    }
}
