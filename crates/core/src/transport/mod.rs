//! The few S3 calls the engine makes, over `aws-sdk-s3`.
//!
//! One place builds the client, as the fast path needs it: the body is a slice of a mapping and
//! goes out without a copy; the checksum is the engine's own, in a header; the payload is not
//! hashed for the signature; the SDK's retries, stall protection and response checksums are off,
//! because the engine has its own of each. One place ([`answer`]) bounds what the SDK reads, one
//! ([`classify`]) says what a failure means. What can be done about one without asking anybody, the
//! store can do ([`Remedies`]): get other [`credentials`], find a bucket's [`place`].
//!
//! A [`Store`] holds one set of [`Calls`] for every lane, each with connections of its own, so that
//! a socket is only ever touched by one thread.

mod answer;
mod body;
mod calls;
mod classify;
pub(crate) mod connect;
mod credentials;
mod direct;
mod info;
mod page;
mod place;
mod restore;
mod shared_config;

use std::sync::{Arc, OnceLock};

use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::{
    IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

pub use calls::ObjectVersion;
pub(crate) use calls::{
    Calls, Directives, LIST, ListPage, ListQuery, ListedObject, ListedPart, ListedUpload,
    PageStart, Pages, PartReceipt, Payload, Pin, Receipt, TOKEN_NAME,
};
pub(crate) use calls::{DELETE, DeleteSum, LIST_VERSIONS, Marker, Named, Refusal};
pub(crate) use direct::{Detour, Direct};
pub use info::ObjectInfo;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::limits::StoreProfile;
use crate::options::{Credentials, SessionOptions};
use connect::{Addresses, Client, ConnectOptions, SharedTls};
use credentials::Keys;
use direct::Patterns;
use place::Places;

/// Signed for when nothing names a region: what AWS's own tools and most stores take.
const DEFAULT_REGION: &str = "us-east-1";

/// A store as one session reaches it.
#[derive(Debug)]
pub(crate) struct Store {
    calls: Vec<Calls>,
    remedies: Remedies,
    is_encrypted: bool,
    endpoint_url: Option<String>,
    settled_profile: Option<Arc<StoreProfile>>,
    answered_profile: OnceLock<Arc<StoreProfile>>,
    http: Vec<Client>,
}

impl Store {
    /// Resolves the configuration and builds a client for each of `lanes` lanes. Must run inside
    /// a tokio runtime. The store is not asked yet, but the environment and the shared configuration
    /// are read, and for AWS without a region the instance's identity service is asked for one.
    pub(crate) async fn connect(options: &SessionOptions, lanes: usize) -> Result<Self> {
        let connect = ConnectOptions {
            connect_timeout: options.connect_timeout,
            ca_bundle: options.ca_bundle.clone(),
            verify_tls: options.verify_tls,
            proxies: options.proxies.clone(),
            stall_timeout: options.stall_timeout,
            ..ConnectOptions::default()
        };
        let tls = SharedTls::new(&connect)?;
        shared_config::check_profile(options).await?;
        // A client apart for credentials: what an identity service calls itself says nothing of the
        // store, and a resolver for the store nothing of the service.
        let asking = connect::http_client(&connect, &tls, &Addresses::new(None))?;
        let config = load_config(options, region(options).await, asking.clone()).await;
        let keys = config.credentials_provider().map(|first| {
            let (options, region) = (options.clone(), config.region().cloned());
            Keys::new(first, move || {
                let (options, region, asking) = (options.clone(), region.clone(), asking.clone());
                Box::pin(async move {
                    load_config(&options, region, asking).await.credentials_provider()
                })
            })
        });
        let remedies = Remedies { keys, places: Arc::default() };
        let url = endpoint_url(&config);
        let endpoint = url.as_deref().map(Endpoint::parse).transpose()?;
        let settled_profile = match (&options.store_profile, &endpoint) {
            (Some(profile), _) => Some(profile.clone()),
            (None, None) => Some(StoreProfile::aws()),
            (None, Some(endpoint)) => StoreProfile::for_endpoint(&endpoint.host),
        };
        let by_profile = settled_profile.as_ref().and_then(|profile| profile.path_style);
        let by_endpoint = endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_of_aws());
        let path_style = options.force_path_style.or(by_profile).unwrap_or(by_endpoint);
        let addresses = Addresses::new(options.resolver.clone());
        let http = (0..lanes.max(1))
            .map(|_| connect::http_client(&connect, &tls, &addresses))
            .collect::<Result<Vec<_>>>()?;
        let patterns = Patterns::default();
        let calls = http
            .iter()
            .map(|http| {
                let keys = remedies.keys.clone();
                let config =
                    client_config(&config, keys, http.clone(), url.clone(), path_style, options)
                        .interceptor(answer::Answers::new(patterns.clone()))
                        .build();
                let client = aws_sdk_s3::Client::from_conf(config);
                let (keys, limit) = (remedies.keys.clone(), options.stall_timeout);
                let direct = Direct::new(http.clone(), keys, patterns.clone(), limit);
                Calls::new(client, direct, Arc::clone(&remedies.places), limit)
            })
            .collect();
        Ok(Self {
            calls,
            remedies,
            is_encrypted: endpoint.is_none_or(|endpoint| endpoint.is_https),
            endpoint_url: url.as_deref().map(without_user),
            settled_profile: settled_profile.map(Arc::new),
            answered_profile: OnceLock::new(),
            http,
        })
    }

    /// The requests, over the connections of `lane`.
    pub(crate) fn on(&self, lane: usize) -> &Calls {
        &self.calls[lane % self.calls.len()]
    }

    /// What can be done about its refusals.
    pub(crate) fn remedies(&self) -> Remedies {
        self.remedies.clone()
    }

    /// What the store allows, as far as is known by now: as asked, else by the endpoint's name,
    /// else by what it called itself in its first answer, else careful assumptions.
    pub(crate) fn profile(&self) -> Arc<StoreProfile> {
        if let Some(profile) = &self.settled_profile {
            return Arc::clone(profile);
        }
        if let Some(profile) = self.answered_profile.get() {
            return Arc::clone(profile);
        }
        match self.server_header() {
            Some(server) => Arc::clone(self.answered_profile.get_or_init(|| {
                let by_name = StoreProfile::for_server_header(&server);
                Arc::new(by_name.unwrap_or_else(StoreProfile::generic))
            })),
            None => Arc::new(StoreProfile::generic()),
        }
    }

    /// Whether [`Store::profile`] can still change with the first answer.
    pub(crate) fn is_profile_settled(&self) -> bool {
        self.settled_profile.is_some()
            || self.answered_profile.get().is_some()
            || self.server_header().is_some()
    }

    fn server_header(&self) -> Option<String> {
        self.http.iter().find_map(Client::server_header)
    }

    /// The store's address, as it may be written down; `None` for AWS.
    pub(crate) fn endpoint_url(&self) -> Option<&str> {
        self.endpoint_url.as_deref()
    }

    /// Whether requests go over TLS. AWS's own endpoints always do.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

/// An address that may be written down: without a user and a password, and spelled in one way.
fn without_user(url: &str) -> String {
    let plain = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{}://{}{path}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase())
        }
        None => url.to_owned(),
    };
    plain.trim_end_matches('/').to_owned()
}

/// What a session can do by itself about failures that carry a [`Remedy`]. The default one can only
/// remember where buckets are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remedies {
    keys: Option<Keys>,
    places: Arc<Places>,
}

impl Remedies {
    /// Does what `error` can be remedied by, once for all requests that fail alike. Says whether it
    /// is worth asking again, or what came in between.
    pub(crate) async fn apply(&self, error: &Error) -> Result<bool> {
        match (error.remedy(), &self.keys) {
            (Some(Remedy::OtherCredentials { refused }), Some(keys)) => {
                keys.replace(*refused).await.or_else(|why| {
                    match classify::credentials_problem(error.operation(), error.target(), &why) {
                        Some(problem) => Err(problem.caused_by(why)),
                        None => Ok(false),
                    }
                })
            }
            (Some(Remedy::OtherPlace { bucket, place }), _) => {
                self.places.learn(bucket, place);
                Ok(true)
            }
            (Some(Remedy::SendAgain), _) => Ok(true),
            _ => Ok(false),
        }
    }
}

async fn load_config(options: &SessionOptions, region: Option<Region>, http: Client) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(http))
        // The default, but given: left to itself, aws-config panics on an AWS_MAX_ATTEMPTS that is
        // no number. It only concerns requests for credentials.
        .retry_config(RetryConfig::standard());
    if let Some(region) = region {
        loader = loader.region(region);
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = &options.endpoint_url {
        // Variants of AWS's own endpoints, which cannot be had of a given one: a variable that asks
        // for them must not make it fail.
        loader = loader.endpoint_url(url).use_fips(false).use_dual_stack(false);
    }
    match &options.credentials {
        Credentials::Chain => {}
        Credentials::Anonymous => loader = loader.no_credentials(),
        Credentials::Static { access_key, secret_key, session_token } => {
            loader = loader.credentials_provider(aws_credential_types::Credentials::new(
                access_key,
                secret_key,
                session_token.clone(),
                None,
                "brigade session options",
            ));
        }
    }
    loader.load().await
}

/// The region, as far as it is known without asking for it. On a machine that is no instance of AWS
/// the identity service answers only by a time-out of seconds, which a store of one's own must not
/// cost.
async fn region(options: &SessionOptions) -> Option<Region> {
    // aws-config takes a variable that is set to nothing for a region of no name.
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = options.region.clone().filter(|region| !region.is_empty());
    let given = given.or_else(|| set("AWS_REGION")).or_else(|| set("AWS_DEFAULT_REGION"));
    if let Some(region) = given {
        return Some(Region::new(region));
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    let own_endpoint = options.endpoint_url.is_some()
        || set("AWS_ENDPOINT_URL_S3").is_some()
        || set("AWS_ENDPOINT_URL").is_some();
    let default = own_endpoint.then(|| Region::from_static(DEFAULT_REGION));
    profile.build().region().await.or(default)
}

fn client_config(
    config: &SdkConfig,
    keys: Option<Keys>,
    http: Client,
    endpoint_url: Option<String>,
    path_style: bool,
    options: &SessionOptions,
) -> aws_sdk_s3::config::Builder {
    let mut builder = aws_sdk_s3::config::Builder::from(config)
        .http_client(http)
        // What it keeps, it uses whatever the store says.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(path_style)
        // The SDK's retries draw on one small quota that all requests share.
        .retry_config(RetryConfig::disabled())
        // The engine watches every connection itself, and knows which requests may be silent.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        // The engine brings its own checksums, and sums what arrives.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    builder.set_credentials_provider(keys.map(SharedCredentialsProvider::new));
    // The SDK's own choice would take a variable that is set to nothing for an endpoint.
    builder.set_endpoint_url(endpoint_url);
    if config.region().is_none_or(|region| region.as_ref().is_empty()) {
        builder = builder.region(Region::from_static(DEFAULT_REGION));
    }
    if matches!(options.credentials, Credentials::Anonymous) {
        builder = builder.allow_no_auth();
    }
    builder
}

/// The endpoint in force: the one given, else S3's own variable or setting, else the general one.
/// `None` means AWS. What is set to nothing is as unset.
fn endpoint_url(config: &SdkConfig) -> Option<String> {
    let for_s3 = config.service_config().and_then(|settings| {
        let key = ServiceConfigKey::builder()
            .service_id("s3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        settings.load_config(key).filter(|url| !url.is_empty())
    });
    let general = || config.endpoint_url().filter(|url| !url.is_empty()).map(str::to_owned);
    // An explicit one is marked as such by aws-config and must not lose against a variable.
    match config.get_origin("endpoint_url") {
        origin if origin.is_client_config() => general(),
        _ => for_s3.or_else(general),
    }
}

/// An endpoint of one's own, as far as this crate cares.
struct Endpoint {
    host: String,
    is_https: bool,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::InvalidInput, "read the endpoint", url, why)
                .advise("write it as http://host:port or https://host")
        };
        let uri: http::Uri = url.parse().map_err(|_| refuse("it is not a URL"))?;
        // Not by the text: a scheme may be written in any case.
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("it must start with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| refuse("it names no host"))?.to_ascii_lowercase();
        Ok(Self { host, is_https })
    }

    /// Whether it is one of AWS's own names, private endpoints included: there the bucket belongs
    /// into the host name.
    fn is_of_aws(&self) -> bool {
        let host = self.host.trim_end_matches('.');
        [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|suffix| host.ends_with(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_host() {
        let read = |url| Endpoint::parse(url).map(|endpoint| (endpoint.host, endpoint.is_https));
        assert_eq!(read("http://127.0.0.1:9000").expect("a host"), ("127.0.0.1".into(), false));
        assert_eq!(read("HTTP://Store").expect("a host"), ("store".into(), false));
        assert_eq!(read("Https://store").expect("a host"), ("store".into(), true));
        for bad in ["127.0.0.1:9000", "ftp://x", "http://", "not a url"] {
            let said = read(bad).expect_err("refused").to_string();
            assert!(said.contains("http://host:port"), "{said}");
        }
    }

    #[test]
    fn an_address_is_written_down_without_secrets() {
        for (url, written) in [
            ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
            ("HTTPS://user:pass@Store.example/path/", "https://store.example/path"),
        ] {
            assert_eq!(without_user(url), written);
        }
    }

    #[test]
    fn private_endpoints_of_aws_are_told_from_others() {
        let is_of_aws = |url| Endpoint::parse(url).expect("an endpoint").is_of_aws();
        assert!(is_of_aws("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com"));
        assert!(is_of_aws("https://s3.cn-north-1.amazonaws.com.cn"));
        assert!(!is_of_aws("https://amazonaws.com.example.org"));
    }
}
