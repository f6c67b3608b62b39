//! Who may do what: the store's credentials, as `s3s` asks for them.

use std::collections::BTreeMap;
use std::fmt;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::{S3Host, VirtualHost};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// A key pair that requests may be signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name of the key.
    pub access_key: String,
    /// What requests are signed with. Never printed.
    pub secret_key: String,
    /// Writes with this key get 403 `AccessDenied`.
    pub read_only: bool,
}

impl Credentials {
    /// Credentials that may read and write.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), read_only: false }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// The credentials by access key.
#[derive(Clone)]
pub(crate) struct Keys(BTreeMap<String, Credentials>);

impl Keys {
    pub(crate) fn new(credentials: &[Credentials]) -> Self {
        Self(credentials.iter().map(|c| (c.access_key.clone(), c.clone())).collect())
    }

    /// Whether the owner of a key may do that.
    pub(crate) fn allow(&self, access_key: Option<&str>, operation: &str) -> S3Result<()> {
        match access_key.and_then(|access_key| self.0.get(access_key)) {
            Some(key) if !key.read_only || reads(operation) => Ok(()),
            _ => Err(S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied")),
        }
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let found = self.0.get(access_key).map(|c| SecretKey::from(c.secret_key.as_str()));
        found.ok_or_else(|| {
            S3Error::with_message(
                S3ErrorCode::InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records.",
            )
        })
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access_key = context.credentials().map(|signed| signed.access_key.as_str());
        self.allow(access_key, context.s3_op().name())
    }
}

fn reads(operation: &str) -> bool {
    ["Get", "Head", "List"].iter().any(|verb| operation.starts_with(verb))
}

/// Buckets named by the host: `bucket.localhost`. Any other host is the store itself.
pub(crate) struct Hosts;

/// The domain whose subdomains name buckets. It needs no name server: resolvers answer it themselves.
const DOMAIN: &str = "localhost";

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let plain = VirtualHost::new(host);
        Ok(match bucket_of_host(host) {
            Some(bucket) => plain.with_bucket(bucket),
            None => plain,
        })
    }
}

/// The bucket a `Host` header names, if it names one.
pub(crate) fn bucket_of_host(host: &str) -> Option<&str> {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    name.strip_suffix(DOMAIN)?.strip_suffix('.').filter(|bucket| !bucket.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", Credentials::new("key", "hush"));
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn hosts() {
        assert_eq!(bucket_of_host("my.bucket.localhost:9000"), Some("my.bucket"));
        assert_eq!(bucket_of_host("localhost:9000"), None);
        assert_eq!(bucket_of_host("example.org"), None);
        assert_eq!(bucket_of_host("[::1]:9000"), None);
    }
}
