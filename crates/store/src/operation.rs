//! Which S3 operation a request is, from its method, path and query alone.
//!
//! Needed in front of the S3 service, where nothing has been parsed yet: to count requests, and for whatever
//! else must act on a request by name.

use http::request::Parts;
use http::{HeaderMap, Method, Uri};

use crate::access::bucket_of_host;

/// All names there are.
pub(crate) const NAMES: [&str; 24] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateBucket",
    "CreateMultipartUpload",
    "DeleteBucket",
    "DeleteObject",
    "DeleteObjects",
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectAttributes",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListMultipartUploads",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "Other",
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
];

/// The operation's name as in the S3 API; `"Other"` for those the store does not have.
pub(crate) fn name(request: &Parts) -> &'static str {
    name_of(&request.method, &request.uri, &request.headers)
}

/// The same, of a request's pieces.
pub(crate) fn name_of(method: &Method, uri: &Uri, headers: &HeaderMap) -> &'static str {
    let query = uri.query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let copies = headers.contains_key("x-amz-copy-source");
    match (method, resource(uri, headers)) {
        (&Method::GET, Resource::Service) => "ListBuckets",
        (&Method::GET, Resource::Bucket) if has("location") => "GetBucketLocation",
        (&Method::GET, Resource::Bucket) if has("versioning") => "GetBucketVersioning",
        (&Method::GET, Resource::Bucket) if has("uploads") => "ListMultipartUploads",
        (&Method::GET, Resource::Bucket) if query.split('&').any(|pair| pair == "list-type=2") => {
            "ListObjectsV2"
        }
        (&Method::GET, Resource::Bucket) if !query.split('&').any(unknown_listing) => "ListObjects",
        (&Method::HEAD, Resource::Bucket) => "HeadBucket",
        (&Method::PUT, Resource::Bucket) if query.is_empty() => "CreateBucket",
        (&Method::DELETE, Resource::Bucket) if query.is_empty() => "DeleteBucket",
        (&Method::POST, Resource::Bucket) if has("delete") => "DeleteObjects",
        (&Method::GET, Resource::Object) if has("attributes") => "GetObjectAttributes",
        (&Method::GET, Resource::Object) if has("tagging") => "GetObjectTagging",
        (&Method::GET, Resource::Object) if has("uploadId") => "ListParts",
        (&Method::GET, Resource::Object) => "GetObject",
        (&Method::HEAD, Resource::Object) => "HeadObject",
        (&Method::PUT, Resource::Object) if has("uploadId") && copies => "UploadPartCopy",
        (&Method::PUT, Resource::Object) if has("uploadId") => "UploadPart",
        (&Method::PUT, Resource::Object) if copies => "CopyObject",
        (&Method::PUT, Resource::Object) if !has("tagging") && !has("acl") => "PutObject",
        (&Method::POST, Resource::Object) if has("uploads") => "CreateMultipartUpload",
        (&Method::POST, Resource::Object) if has("uploadId") => "CompleteMultipartUpload",
        (&Method::DELETE, Resource::Object) if has("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, Resource::Object) if !has("tagging") => "DeleteObject",
        _ => "Other",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Service,
    Bucket,
    Object,
}

/// The bucket and the key that a request is for, decoded; empty where it names none.
pub(crate) fn bucket_and_key(request: &Parts) -> (String, String) {
    let path = request.uri.path();
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = match host_bucket(&request.headers) {
        Some(bucket) => (bucket, path),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    (bucket.to_owned(), decoded(key))
}

fn host_bucket(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::HOST)?.to_str().ok().and_then(bucket_of_host)
}

/// Text without its percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn resource(uri: &Uri, headers: &HeaderMap) -> Resource {
    let path = uri.path().trim_start_matches('/');
    if host_bucket(headers).is_some() {
        return if path.is_empty() { Resource::Bucket } else { Resource::Object };
    }
    match path.split_once('/') {
        _ if path.is_empty() => Resource::Service,
        None | Some((_, "")) => Resource::Bucket,
        Some(_) => Resource::Object,
    }
}

/// Whether a query asks for something else of a bucket than its objects.
fn unknown_listing(pair: &str) -> bool {
    const OF_LISTINGS: [&str; 6] =
        ["prefix", "delimiter", "marker", "max-keys", "encoding-type", "x-id"];
    let name = pair.split('=').next().unwrap_or_default();
    !name.is_empty()
        && !OF_LISTINGS.contains(&name)
        && !name.to_ascii_lowercase().starts_with("x-amz-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let ask = |line: &str, copies: bool| {
            let (method, uri) = line.split_once(' ').unwrap();
            let mut request = http::Request::builder().method(method).uri(uri);
            if copies {
                request = request.header("x-amz-copy-source", "b/k");
            }
            name(&request.body(()).unwrap().into_parts().0)
        };
        for (line, expected) in [
            ("GET /", "ListBuckets"),
            ("GET /b", "ListObjects"),
            ("GET /b/?list-type=2&prefix=x", "ListObjectsV2"),
            ("GET /b?uploads", "ListMultipartUploads"),
            ("GET /b?acl", "Other"),
            ("PUT /b", "CreateBucket"),
            ("POST /b?delete", "DeleteObjects"),
            ("GET /b/k", "GetObject"),
            ("GET /b/k?partNumber=1", "GetObject"),
            ("GET /b//", "GetObject"),
            ("GET /b/k?uploadId=1", "ListParts"),
            ("HEAD /b/k", "HeadObject"),
            ("PUT /b/k?x-id=PutObject", "PutObject"),
            ("PUT /b/k?partNumber=1&uploadId=2", "UploadPart"),
            ("POST /b/k?uploads=", "CreateMultipartUpload"),
            ("POST /b/k?uploadId=2", "CompleteMultipartUpload"),
            ("DELETE /b/k?uploadId=2", "AbortMultipartUpload"),
            ("DELETE /b/k", "DeleteObject"),
            ("PATCH /b/k", "Other"),
        ] {
            assert_eq!(ask(line, false), expected, "{line}");
            assert!(NAMES.contains(&expected), "{expected}");
        }
        assert_eq!(ask("PUT /b/k", true), "CopyObject");
        assert_eq!(ask("PUT /b/k?partNumber=1&uploadId=2", true), "UploadPartCopy");
    }

    #[test]
    fn buckets_and_keys() {
        for (host, path, bucket, key) in [
            ("x", "/", "", ""),
            ("x", "/b", "b", ""),
            ("x", "/b/a%20b/%C3%A4", "b", "a b/ä"),
            ("x", "/b//k%2", "b", "/k%2"),
            ("b.localhost:80", "/k/l", "b", "k/l"),
        ] {
            let request = http::Request::builder().uri(path).header("host", host);
            let parts = request.body(()).unwrap().into_parts().0;
            assert_eq!(bucket_and_key(&parts), (bucket.to_owned(), key.to_owned()), "{path}");
        }
    }
}
