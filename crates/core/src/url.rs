//! The names of objects as people type them: `s3://bucket/key`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The longest key S3 takes, in bytes of UTF-8 (Amazon S3 User Guide, "Naming objects").
pub(crate) const MAX_KEY_BYTES: usize = 1024;

/// A parsed `s3://bucket/key`. The key is taken as it stands: nothing is decoded, `?` and `#` are
/// ordinary characters, and slashes are kept as they are.
///
/// ```
/// use brigade::S3Url;
///
/// let url: S3Url = "s3://logs/2026/a b.gz".parse()?;
/// assert_eq!((url.bucket(), url.key()), ("logs", "2026/a b.gz"));
/// assert_eq!(url.to_string(), "s3://logs/2026/a b.gz");
/// assert!("s3:/logs".parse::<S3Url>().is_err());
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Url {
    bucket: String,
    key: String,
}

impl S3Url {
    /// From a bucket and a key that a program has apart.
    pub(crate) fn of(bucket: &str, key: impl Into<String>) -> Self {
        Self { bucket: bucket.to_owned(), key: key.into() }
    }

    /// Whether `text` means a place in a store rather than a file: it starts with `s3:`, in any
    /// case. A file of such a name is written `./s3:…`.
    pub fn looks_like(text: &str) -> bool {
        text.get(..3).is_some_and(|scheme| scheme.eq_ignore_ascii_case("s3:"))
    }

    /// The bucket's name, or an access point's ARN; never empty.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key; empty when the URL names the bucket alone.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the URL names a bucket or a prefix rather than one object.
    pub fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// The part of the key after the last slash; empty for a prefix.
    pub fn basename(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or("")
    }

    /// The same bucket with another key.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self { bucket: self.bucket.clone(), key: key.into() }
    }
}

impl FromStr for S3Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::InvalidInput, "read the S3 URL", text, why)
                .advise("write it as s3://bucket/key")
        };
        if !Self::looks_like(text) {
            return Err(refuse("it does not start with s3://"));
        }
        let Some(rest) = text[3..].strip_prefix("//") else {
            return Err(refuse("two slashes must follow s3:"));
        };
        let (bucket, key) = if rest.starts_with("arn:") {
            let mut slashes = rest.match_indices('/').map(|(at, _)| at);
            match slashes.nth(slashes_in_arn(rest)) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, ""),
            }
        } else {
            rest.split_once('/').unwrap_or((rest, ""))
        };
        if bucket.is_empty() {
            return Err(refuse("the bucket's name is missing"));
        }
        if !bucket.starts_with("arn:") {
            if let Some(bad) = bucket
                .chars()
                .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
            {
                return Err(refuse(&format!("a bucket's name cannot hold {bad:?}")));
            }
            // Names of 2 characters and up to 255 exist on older and other stores.
            if bucket.len() > 255 {
                return Err(refuse("the bucket's name is longer than 255 bytes"));
            }
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(refuse(&format!("the key has {} bytes of at most 1024", key.len())));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

/// How many slashes the ARN at the start of `text` holds itself. An access point has one,
/// `arn:aws:s3:region:account:accesspoint/name`; on an outpost it has three,
/// `arn:aws:s3-outposts:region:account:outpost/id/accesspoint/name`.
fn slashes_in_arn(text: &str) -> usize {
    let mut fields = text.splitn(6, ':').skip(2);
    let (service, resource) = (fields.next(), fields.nth(2));
    let on_outpost = resource.is_some_and(|resource| resource.starts_with("outpost/"));
    if service == Some("s3-outposts") && on_outpost { 3 } else { 1 }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_they_stand() {
        let url: S3Url = "s3://b/a//b/../%2F?x#y ü".parse().expect("a fine key");
        assert_eq!(url.key(), "a//b/../%2F?x#y ü");
        let url: S3Url = "S3://b".parse().expect("a bucket alone");
        assert!(url.is_prefix());
        assert_eq!(url.basename(), "");
        let url: S3Url = "s3://b/dir/".parse().expect("a prefix");
        assert!(url.is_prefix());
    }

    #[test]
    fn an_access_point_keeps_its_own_slashes() {
        let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/ap";
        let url: S3Url = format!("s3://{arn}/a/b").parse().expect("an access point");
        assert_eq!((url.bucket(), url.key()), (arn, "a/b"));
        let url: S3Url = format!("s3://{arn}").parse().expect("an access point alone");
        assert_eq!((url.bucket(), url.key()), (arn, ""));
        let arn = "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/accesspoint/ap";
        let url: S3Url = format!("s3://{arn}/a/b").parse().expect("one on an outpost");
        assert_eq!((url.bucket(), url.key()), (arn, "a/b"));
        let url: S3Url = format!("s3://{arn}").parse().expect("one on an outpost alone");
        assert_eq!((url.bucket(), url.key()), (arn, ""));
    }

    #[test]
    fn what_is_malformed_is_said_in_one_line() {
        let said = |text: &str| text.parse::<S3Url>().expect_err("malformed").to_string();
        assert_eq!(
            said("s3:/b/k"),
            "read the S3 URL s3:/b/k: two slashes must follow s3:; write it as s3://bucket/key"
        );
        assert!(said("s3:///k").contains("bucket's name is missing"));
        assert!(said("s3://b c/k").contains("cannot hold ' '"));
        assert!(said(&format!("s3://b/{}", "k".repeat(1025))).contains("1025 bytes"));
        assert!(said("http://b/k").contains("does not start with s3://"));
    }
}
