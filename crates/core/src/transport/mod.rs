//! The few S3 calls the engine makes, over `aws-sdk-s3`.
//!
//! One place builds the client, as the fast path needs it: the body is a slice of a mapping and
//! goes out without a copy; the checksum is the engine's own, in a header; the payload is not
//! hashed for the signature; the SDK's retries, stall protection and response checksums are off,
//! because the engine has its own of each. One place ([`classify`]) says what a failure means.
//!
//! A [`Store`] holds one set of [`Calls`] for every lane, each with connections of its own, so that
//! a socket is only ever touched by one thread.

mod body;
mod calls;
mod classify;
pub(crate) mod connect;
mod info;

use std::sync::{Arc, OnceLock};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    Config, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

pub(crate) use calls::{Calls, PartReceipt, Payload, Pin, Receipt, TOKEN_NAME};
pub use info::ObjectInfo;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::StoreProfile;
use crate::options::{Credentials, SessionOptions};
use connect::{Client, ConnectOptions, SharedTls};

/// Signed for when nothing names a region: what AWS's own tools and most stores take.
const DEFAULT_REGION: &str = "us-east-1";

/// A store as one session reaches it.
#[derive(Debug)]
pub(crate) struct Store {
    calls: Vec<Calls>,
    endpoint: Option<String>,
    settled_profile: Option<Arc<StoreProfile>>,
    answered_profile: OnceLock<Arc<StoreProfile>>,
    http: Vec<Client>,
}

impl Store {
    /// Resolves the configuration and builds a client for each of `lanes` lanes. Must run inside
    /// a tokio runtime; no request is made, but the shared configuration is read.
    pub(crate) async fn connect(options: &SessionOptions, lanes: usize) -> Result<Self> {
        let connect = ConnectOptions {
            connect_timeout: options.connect_timeout,
            ca_bundle: options.ca_bundle.clone(),
            verify_tls: options.verify_tls,
            proxies: options.proxies.clone(),
            ..ConnectOptions::default()
        };
        let tls = SharedTls::new(&connect)?;
        // A client apart for credentials: what an identity service calls itself says nothing of the
        // store.
        let config = load_config(options, connect::http_client(&connect, &tls)?).await;
        let endpoint = endpoint_url(&config);
        let host = endpoint.as_deref().map(host_of).transpose()?;
        let settled_profile = match (&options.store_profile, &host) {
            (Some(profile), _) => Some(profile.clone()),
            (None, None) => Some(StoreProfile::aws()),
            (None, Some(host)) => StoreProfile::for_endpoint(host),
        };
        let by_profile = settled_profile.as_ref().and_then(|profile| profile.path_style);
        let path_style = options.force_path_style.or(by_profile).unwrap_or(endpoint.is_some());
        let http = (0..lanes.max(1))
            .map(|_| connect::http_client(&connect, &tls))
            .collect::<Result<Vec<_>>>()?;
        let calls = http
            .iter()
            .map(|http| client_config(&config, http.clone(), path_style, options))
            .map(|config| Calls::new(aws_sdk_s3::Client::from_conf(config), options.stall_timeout))
            .collect();
        Ok(Self {
            calls,
            endpoint,
            settled_profile: settled_profile.map(Arc::new),
            answered_profile: OnceLock::new(),
            http,
        })
    }

    /// The requests, over the connections of `lane`.
    pub(crate) fn on(&self, lane: usize) -> &Calls {
        &self.calls[lane % self.calls.len()]
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

    /// Whether requests go over TLS. AWS's own endpoints always do.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|url| !url.starts_with("http://"))
    }
}

async fn load_config(options: &SessionOptions, http: Client) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(http))
        // The default, but given: left to itself, aws-config panics on an AWS_MAX_ATTEMPTS that is
        // no number. It only concerns requests for credentials.
        .retry_config(RetryConfig::standard());
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
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

fn client_config(
    config: &SdkConfig,
    http: Client,
    path_style: bool,
    options: &SessionOptions,
) -> Config {
    let mut builder = aws_sdk_s3::config::Builder::from(config)
        .http_client(http)
        .force_path_style(path_style)
        // The SDK's retries draw on one small quota that all requests share.
        .retry_config(RetryConfig::disabled())
        // The engine watches every connection itself, and knows which requests may be silent.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        // The engine brings its own checksums, and sums what arrives.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    // An endpoint given in the options wins over the service's own variable.
    if let Some(url) = &options.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    if config.region().is_none() {
        builder = builder.region(Region::from_static(DEFAULT_REGION));
    }
    if matches!(options.credentials, Credentials::Anonymous) {
        builder = builder.allow_no_auth();
    }
    builder.build()
}

/// The endpoint in force: the one given, else S3's own variable or setting, else the general one.
/// `None` means AWS.
fn endpoint_url(config: &SdkConfig) -> Option<String> {
    let for_s3 = config.service_config().and_then(|settings| {
        let key = ServiceConfigKey::builder()
            .service_id("s3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        settings.load_config(key)
    });
    // An explicit one is marked as such by aws-config and must not lose against a variable.
    match config.get_origin("endpoint_url") {
        origin if origin.is_client_config() => config.endpoint_url().map(str::to_owned),
        _ => for_s3.or_else(|| config.endpoint_url().map(str::to_owned)),
    }
}

fn host_of(url: &str) -> Result<String> {
    let refuse = |why: &str| {
        Error::new(ErrorKind::InvalidInput, "read the endpoint", url, why)
            .advise("write it as http://host:port or https://host")
    };
    let uri: http::Uri = url.parse().map_err(|_| refuse("it is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("it must start with http:// or https://"));
    }
    uri.host().map(str::to_owned).ok_or_else(|| refuse("it names no host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_host() {
        assert_eq!(host_of("http://127.0.0.1:9000").expect("a host"), "127.0.0.1");
        for bad in ["127.0.0.1:9000", "ftp://x", "http://", "not a url"] {
            let said = host_of(bad).expect_err("refused").to_string();
            assert!(said.contains("http://host:port"), "{said}");
        }
    }
}
