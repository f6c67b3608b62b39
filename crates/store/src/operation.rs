//! Which S3 operation a request is, from its method, path and query alone.
//!
//! Needed in front of the S3 service, where nothing has been parsed yet: to count requests, and for whatever
//! else must act on a request by name.

use http::Method;
use http::request::Parts;

use crate::access::bucket_of_host;

/// The operation's name as in the S3 API; `"Other"` for those the store does not have.
pub(crate) fn name(request: &Parts) -> &'static str {
    let query = request.uri.query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let copies = request.headers.contains_key("x-amz-copy-source");
    match (&request.method, resource(request)) {
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

fn resource(request: &Parts) -> Resource {
    let path = request.uri.path().trim_start_matches('/');
    let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    if host.and_then(bucket_of_host).is_some() {
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
        }
        assert_eq!(ask("PUT /b/k", true), "CopyObject");
        assert_eq!(ask("PUT /b/k?partNumber=1&uploadId=2", true), "UploadPartCopy");
    }
}
