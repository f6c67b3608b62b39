//! An object's headers: from requests into records and back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::checksum;

/// Header prefix of the customer's key of the object itself.
pub(super) const OWN_KEY: &str = "x-amz-server-side-encryption-customer-";

/// Header prefix of the customer's key of the object that is copied.
pub(super) const SOURCE_KEY: &str = "x-amz-copy-source-server-side-encryption-customer-";

/// Collects the attributes of any input that has them.
macro_rules! attributes_of {
    ($input:expr, $headers:expr) => {
        $crate::record::Attributes {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input
                .content_encoding
                .take()
                .and_then(|value| $crate::s3::attributes::without_aws_chunked(&value)),
            content_language: $input.content_language.take(),
            expires: $input.expires.take().map(Into::into),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
            storage_class: $input.storage_class.take().map(|class| class.as_str().to_owned()),
            encryption: $input.server_side_encryption.take().map(|sse| sse.as_str().to_owned()),
            kms_key_id: $input.ssekms_key_id.take(),
            customer_key_md5: $crate::s3::attributes::customer_key_md5(
                $headers,
                $crate::s3::attributes::OWN_KEY,
            )?,
            tagging: $input.tagging.take(),
            website_redirect: $input.website_redirect_location.take(),
        }
    };
}
pub(super) use attributes_of;

/// Says on any output how the object is encrypted.
macro_rules! set_encryption {
    ($output:expr, $attributes:expr) => {
        let attributes: &$crate::record::Attributes = $attributes;
        $output.server_side_encryption = attributes.encryption.clone().map(Into::into);
        $output.ssekms_key_id = attributes.kms_key_id.clone();
        if let Some(md5) = &attributes.customer_key_md5 {
            $output.sse_customer_algorithm = Some("AES256".to_owned().into());
            $output.sse_customer_key_md5 = Some(md5.clone());
        }
    };
}
pub(super) use set_encryption;

/// Sets the headers of a stored object on the output of `GetObject` or `HeadObject`.
macro_rules! set_headers {
    ($output:expr, $record:expr) => {
        let record: &$crate::record::ObjectRecord = $record;
        let attributes = &record.attributes;
        $output.accept_ranges = Some("bytes".to_owned());
        $output.e_tag = Some($crate::etag::to_dto(&record.etag));
        $output.last_modified = Some(record.modified.into());
        $output.content_type = Some(
            attributes.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()),
        );
        $output.cache_control = attributes.cache_control.clone();
        $output.content_disposition = attributes.content_disposition.clone();
        $output.content_encoding = attributes.content_encoding.clone();
        $output.content_language = attributes.content_language.clone();
        $output.expires = attributes.expires.map(Into::into);
        $output.metadata = Some(attributes.metadata.clone().into_iter().collect());
        // As S3 does, not said for the default class.
        $output.storage_class =
            attributes.storage_class.clone().filter(|class| class != "STANDARD").map(Into::into);
        $output.website_redirect_location = attributes.website_redirect.clone();
        $crate::s3::attributes::set_encryption!($output, attributes);
    };
}
pub(super) use set_headers;

/// `Content-Encoding` without the transfer's own `aws-chunked`; `None` where nothing else is left.
pub(super) fn without_aws_chunked(value: &str) -> Option<String> {
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The MD5 of the customer's key that a request brings, once the three headers were found to agree.
pub(super) fn customer_key_md5(headers: &HeaderMap, prefix: &str) -> S3Result<Option<String>> {
    let header = |name: &str| {
        headers.get(format!("{prefix}{name}").as_str()).and_then(|value| value.to_str().ok())
    };
    let invalid =
        |message: &'static str| S3Error::with_message(S3ErrorCode::InvalidArgument, message);
    match (header("algorithm"), header("key"), header("key-md5")) {
        (None, None, None) => Ok(None),
        (Some("AES256"), Some(key), Some(md5)) => {
            let key = STANDARD.decode(key).ok().filter(|key| key.len() == 32).ok_or_else(|| {
                invalid("The secret key was invalid for the specified algorithm.")
            })?;
            if STANDARD.encode(checksum::md5_of(&key)) != md5 {
                return Err(invalid(
                    "The calculated MD5 hash of the key did not match the hash that was provided.",
                ));
            }
            Ok(Some(md5.to_owned()))
        }
        (Some(algorithm), ..) if algorithm != "AES256" => Err(S3Error::with_message(
            S3ErrorCode::InvalidEncryptionAlgorithmError,
            "The encryption request that you specified is not valid. Supported value: AES256.",
        )),
        _ => Err(invalid(
            "Requests specifying Server Side Encryption with Customer provided keys must provide an \
             algorithm, a key and the key's MD5.",
        )),
    }
}

/// Checks that a request brought the key an object or upload was stored with.
pub(super) fn check_customer_key(
    stored: Option<&str>,
    headers: &HeaderMap,
    prefix: &str,
) -> S3Result<()> {
    let given = customer_key_md5(headers, prefix)?;
    match (stored, given.as_deref()) {
        (None, None) => Ok(()),
        (Some(stored), Some(given)) if stored == given => Ok(()),
        (Some(_), Some(_)) => {
            Err(S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied"))
        }
        (Some(_), None) => Err(S3Error::with_message(
            S3ErrorCode::InvalidRequest,
            "The object was stored using a form of Server Side Encryption. The correct parameters must be \
             provided to retrieve the object.",
        )),
        (None, Some(_)) => Err(S3Error::with_message(
            S3ErrorCode::InvalidRequest,
            "The encryption parameters are not applicable to this object.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(key: [u8; 32], md5: Option<[u8; 32]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let name = |part: &str| http::HeaderName::try_from(format!("{OWN_KEY}{part}")).unwrap();
        headers.insert(name("algorithm"), "AES256".parse().unwrap());
        headers.insert(name("key"), STANDARD.encode(key).parse().unwrap());
        let md5 = STANDARD.encode(checksum::md5_of(&md5.unwrap_or(key)));
        headers.insert(name("key-md5"), md5.parse().unwrap());
        headers
    }

    #[test]
    fn customer_keys() {
        let headers = with_key([1; 32], None);
        let md5 = customer_key_md5(&headers, OWN_KEY).unwrap();
        check_customer_key(md5.as_deref(), &headers, OWN_KEY).unwrap();
        let code = |stored: Option<&str>, headers: &HeaderMap| {
            check_customer_key(stored, headers, OWN_KEY).unwrap_err().code().clone()
        };
        assert_eq!(code(md5.as_deref(), &with_key([2; 32], None)), S3ErrorCode::AccessDenied);
        assert_eq!(code(md5.as_deref(), &HeaderMap::new()), S3ErrorCode::InvalidRequest);
        assert_eq!(code(None, &headers), S3ErrorCode::InvalidRequest);
        assert_eq!(code(None, &with_key([1; 32], Some([2; 32]))), S3ErrorCode::InvalidArgument);
    }

    #[test]
    fn the_transfer_coding_is_not_stored() {
        assert_eq!(without_aws_chunked("aws-chunked"), None);
        assert_eq!(without_aws_chunked("aws-chunked, gzip").as_deref(), Some("gzip"));
        assert_eq!(without_aws_chunked("gzip,br").as_deref(), Some("gzip,br"));
    }
}
