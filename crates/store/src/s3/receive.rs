//! Taking a body in: summed and stored chunk by chunk as it arrives, checked once it ended.
//!
//! Nothing of a body becomes visible before it was received whole and agreed with every checksum the client
//! sent, in a header or in a trailer. A client that goes away, or sends something else than it announced,
//! leaves nothing behind: the sink is dropped unfinished.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, StdError, TrailingHeaders};

use super::Api;
use crate::checksum::{Algorithm, Hashers, Sum};
use crate::chunked::Trailers;
use crate::etag;
use crate::storage::{Content, Sink};

/// Largest single `PutObject` and largest part: 5 GiB.
pub(crate) const MAX_BODY_BYTES: u64 = 5 << 30;

/// A body as announced by its request's headers.
pub(crate) struct Announced {
    sums: Vec<Sum>,
    trailing: Vec<Algorithm>,
    md5: Option<[u8; 16]>,
    pub(crate) length: Option<u64>,
    signed_trailers: Option<TrailingHeaders>,
    plain_trailers: Option<Trailers>,
}

/// A body that was received whole and is what it was announced to be.
pub(crate) struct Received {
    pub(crate) content: Content,
    pub(crate) sums: Vec<Sum>,
    pub(crate) size_bytes: u64,
    /// Without quotes.
    pub(crate) etag: String,
}

impl Announced {
    /// Reads what a request says of its body, and refuses bodies above 5 GiB.
    pub(crate) fn new<T>(request: &S3Request<T>, content_length: Option<i64>) -> S3Result<Self> {
        let length = content_length.and_then(|length| u64::try_from(length).ok());
        if length.is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(too_large());
        }
        Ok(Self {
            sums: header_sums(&request.headers)?,
            trailing: trailing_algorithms(&request.headers),
            md5: content_md5(&request.headers)?,
            length,
            signed_trailers: request
                .trailing_headers
                .clone()
                .or_else(|| request.extensions.get::<TrailingHeaders>().cloned()),
            plain_trailers: request.extensions.get::<Trailers>().cloned(),
        })
    }

    /// A body that is read from the store itself.
    pub(crate) fn within_the_store(length: u64) -> Self {
        Self {
            sums: Vec::new(),
            trailing: Vec::new(),
            md5: None,
            length: Some(length),
            signed_trailers: None,
            plain_trailers: None,
        }
    }

    /// The algorithms the client itself summed the body with.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        self.sums.iter().map(|sum| sum.algorithm).chain(self.trailing.iter().copied()).collect()
    }

    /// The sums the client sent, now that the body has ended.
    fn claims(&self) -> S3Result<Vec<Sum>> {
        let mut claims = self.sums.clone();
        let mut add = |headers: &HeaderMap| header_sums(headers).map(|sums| claims.extend(sums));
        if let Some(trailers) = &self.signed_trailers {
            trailers.read(&mut add).transpose()?;
        }
        if let Some(trailers) = &self.plain_trailers {
            trailers.read(add)?;
        }
        if let Some(missing) =
            self.trailing.iter().find(|a| !claims.iter().any(|c| c.algorithm == **a))
        {
            let message =
                format!("The trailer {} was announced and did not come", missing.header());
            return Err(bad_request("MalformedTrailerError", message));
        }
        Ok(claims)
    }
}

impl Api {
    /// Takes a body in, computing the given algorithms' sums besides those the client sent.
    pub(crate) async fn receive(
        &self,
        announced: Announced,
        body: Option<StreamingBlob>,
        mut sink: Box<dyn Sink>,
        algorithms: Vec<Algorithm>,
    ) -> S3Result<Received> {
        let md5_etag = self.index.storage.md5_etags();
        let all = algorithms.into_iter().chain(announced.algorithms());
        let mut hashers = Hashers::new(all, md5_etag || announced.md5.is_some());
        let mut length = 0;
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| broken_body(&error))?;
                length += chunk.len() as u64;
                if length > MAX_BODY_BYTES {
                    return Err(too_large());
                }
                hashers.update(&chunk);
                sink.write(chunk).map_err(S3Error::internal_error)?;
            }
        }
        let sums = hashers.finish();
        if announced.length.is_some_and(|announced| announced != sums.length_bytes) {
            return Err(S3Error::with_message(
                S3ErrorCode::IncompleteBody,
                "You did not provide the number of bytes specified by the Content-Length HTTP header",
            ));
        }
        if announced.md5.is_some() && announced.md5 != sums.md5 {
            return Err(S3Error::with_message(
                S3ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ));
        }
        for claim in announced.claims()? {
            if !sums.checksums.contains(&claim) {
                return Err(S3Error::with_message(
                    S3ErrorCode::BadDigest,
                    format!(
                        "The {} you specified did not match the calculated checksum.",
                        claim.algorithm.name()
                    ),
                ));
            }
        }
        let content = self.commit(move |_| sink.finish().map_err(S3Error::internal_error)).await?;
        let etag = match (sums.md5, sums.checksums.first()) {
            (Some(digest), _) if md5_etag => etag::md5(&digest),
            (_, Some(sum)) => etag::opaque(sum, sums.length_bytes),
            // Every caller asks for at least one algorithm; an ETag is due all the same.
            (digest, None) => etag::md5(&digest.unwrap_or_default()),
        };
        Ok(Received { content, sums: sums.checksums, size_bytes: sums.length_bytes, etag })
    }
}

fn header_sums(headers: &HeaderMap) -> S3Result<Vec<Sum>> {
    let mut sums = Vec::new();
    for algorithm in Algorithm::ALL {
        if let Some(value) = headers.get(algorithm.header()) {
            let sum = value.to_str().ok().and_then(|text| Sum::parse(algorithm, text));
            sums.push(sum.ok_or_else(|| {
                S3Error::with_message(
                    S3ErrorCode::InvalidRequest,
                    format!("Value for {} header is invalid.", algorithm.header()),
                )
            })?);
        }
    }
    Ok(sums)
}

fn trailing_algorithms(headers: &HeaderMap) -> Vec<Algorithm> {
    let named: Vec<String> = headers
        .get_all("x-amz-trailer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    Algorithm::ALL.into_iter().filter(|a| named.iter().any(|name| name == a.header())).collect()
}

fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let digest = value
        .to_str()
        .ok()
        .and_then(|text| STANDARD.decode(text.trim()).ok())
        .and_then(|bytes| bytes.try_into().ok());
    digest.map(Some).ok_or_else(|| {
        S3Error::with_message(
            S3ErrorCode::InvalidDigest,
            "The Content-MD5 you specified is not valid.",
        )
    })
}

/// The errors of the streams that `s3s` puts around a body have no public types; their texts are stable.
fn broken_body(error: &StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("SignatureMismatch") {
        S3Error::new(S3ErrorCode::SignatureDoesNotMatch)
    } else if text.contains("Sha256Mismatch") {
        bad_request(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed."
                .to_owned(),
        )
    } else if text.contains("FormatError") || text.contains("TooLarge") {
        S3Error::with_message(S3ErrorCode::InvalidRequest, "The aws-chunked body is malformed")
    } else {
        S3Error::with_message(
            S3ErrorCode::IncompleteBody,
            "The request body terminated unexpectedly",
        )
    }
}

fn too_large() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::EntityTooLarge,
        "Your proposed upload exceeds the maximum allowed size",
    )
}

/// A 400 with a code that `s3s` does not know.
fn bad_request(code: &'static str, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}
