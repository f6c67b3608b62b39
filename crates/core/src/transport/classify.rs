//! What a failed request means: the one place where status codes, S3's error codes and connection
//! errors become an [`Error`] with a kind, a sentence and an advice.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::date_time::{DateTime, Format};

use super::connect;
use crate::error::{Error, ErrorKind};

/// Classifies what went wrong with `operation` on `target`.
pub(super) fn classify<E>(
    operation: &'static str,
    target: &str,
    failure: SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let make = |kind, detail: String| Error::new(kind, operation, target, detail);
    match &failure {
        SdkError::ServiceError(service) => {
            let answer = Answer::new(service.raw(), service.err());
            let error = answer.explain(operation, target);
            without_answer(error, failure)
        }
        SdkError::ResponseError(_) if is_too_long(&failure) => {
            let detail = "the store's answer is too long to be one to this request";
            without_answer(make(ErrorKind::Unsupported, detail.into()), failure)
        }
        // The answer came but could not be read: cut short, or not XML.
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            let detail = format!("the store's answer (status {status}) could not be read");
            without_answer(make(ErrorKind::ServerFailure, detail), failure)
        }
        SdkError::TimeoutError(_) => {
            make(ErrorKind::Unreachable, "timed out".into()).caused_by(failure)
        }
        SdkError::DispatchFailure(_) if connect::is_certificate_problem(&failure) => {
            make(ErrorKind::Untrusted, connect::describe(&failure))
                .advise("give the authority's certificate with --ca-bundle or AWS_CA_BUNDLE")
                .caused_by(failure)
        }
        SdkError::DispatchFailure(_) if connect::is_proxy_credentials_problem(&failure) => {
            make(ErrorKind::AccessDenied, connect::describe(&failure)).caused_by(failure)
        }
        SdkError::DispatchFailure(dispatch) => {
            let detail = connect::describe(&failure);
            if let Some(error) = credentials_problem(operation, target, &failure) {
                return error.caused_by(failure);
            }
            let kind =
                if dispatch.is_user() { ErrorKind::InvalidInput } else { ErrorKind::Unreachable };
            make(kind, detail).advise("check the endpoint and the network").caused_by(failure)
        }
        _ => match credentials_problem(operation, target, &failure) {
            Some(error) => error.caused_by(failure),
            None => make(ErrorKind::InvalidInput, root_cause(&failure)).caused_by(failure),
        },
    }
}

/// Keeps the cause without the answer it came in: that may repeat the request's headers, session
/// token included, and an error is printed.
fn without_answer<E>(error: Error, failure: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    match failure.into_source() {
        Ok(source) => error.caused_by(source),
        Err(_) => error,
    }
}

fn is_too_long(failure: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(failure), |error| error.source())
        .any(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

const SET_CREDENTIALS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile \
                               with --profile, or use --no-sign-request for a public bucket";

/// The credentials' providers fail inside the request that first needs them.
fn credentials_problem(
    operation: &'static str,
    target: &str,
    failure: &(dyn std::error::Error + 'static),
) -> Option<Error> {
    use aws_credential_types::provider::error::CredentialsError;
    let mut next = Some(failure);
    while let Some(error) = next {
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            if let CredentialsError::ProviderTimedOut(_) = credentials {
                let detail = "the service that gives the credentials did not answer in time";
                return Some(Error::new(ErrorKind::Unreachable, operation, target, detail));
            }
            let (detail, advice) = match credentials {
                CredentialsError::CredentialsNotLoaded(_) => {
                    ("no credentials found".to_owned(), SET_CREDENTIALS)
                }
                CredentialsError::InvalidConfiguration(_) => (
                    format!("the credentials' configuration is wrong: {}", root_cause(credentials)),
                    "check the profile in the AWS configuration",
                ),
                // The last resort of the chain, an instance's own identity, is asked everywhere and
                // fails in many ways where there is none.
                other => (format!("no credentials found ({})", root_cause(other)), SET_CREDENTIALS),
            };
            return Some(
                Error::new(ErrorKind::AccessDenied, operation, target, detail).advise(advice),
            );
        }
        next = error.source();
    }
    None
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // Some end in a full stop, and a message goes on after it.
    deepest.to_string().trim_end_matches('.').to_owned()
}

/// Signatures hold for 15 minutes to either side (AWS General Reference, "Signature Version 4").
const MAX_SKEW_S: i64 = 15 * 60;

/// The parts of a refusal that tell what it means.
struct Answer<'a> {
    response: &'a HttpResponse,
    status: u16,
    code: Option<&'a str>,
    message: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn new(response: &'a HttpResponse, metadata: &'a impl ProvideErrorMetadata) -> Self {
        Self {
            response,
            status: response.status().as_u16(),
            code: metadata.code(),
            message: metadata.message(),
        }
    }

    fn explain(&self, operation: &'static str, target: &str) -> Error {
        let (kind, detail, advice) = self.meaning();
        let error = Error::new(kind, operation, target, detail).coded(self.code);
        match advice {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }

    fn meaning(&self) -> (ErrorKind, String, Option<String>) {
        use ErrorKind as Kind;
        let say = |kind, detail: &str, advice: &str| {
            (kind, detail.to_owned(), (!advice.is_empty()).then(|| advice.to_owned()))
        };
        match self.code.unwrap_or_default() {
            "NoSuchKey" => say(Kind::NotFound, "no such key", "check the key"),
            "NoSuchBucket" => {
                say(Kind::NotFound, "no such bucket", "check the bucket's name and the endpoint")
            }
            "NoSuchUpload" => say(Kind::NotFound, "no such multipart upload", ""),
            "NoSuchVersion" => say(Kind::NotFound, "no such version", "check the version id"),
            "InvalidAccessKeyId" => say(
                Kind::AccessDenied,
                "the store does not know this access key",
                "check AWS_ACCESS_KEY_ID or the profile, and that they belong to this endpoint",
            ),
            "SignatureDoesNotMatch" => say(
                Kind::AccessDenied,
                "the secret key is wrong for this access key",
                "check AWS_SECRET_ACCESS_KEY or the profile",
            ),
            "ExpiredToken" | "TokenRefreshRequired" => say(
                Kind::AccessDenied,
                "the temporary credentials have expired",
                "get new ones and start again",
            ),
            "InvalidToken" => {
                say(Kind::AccessDenied, "the session token is not valid", "check AWS_SESSION_TOKEN")
            }
            "RequestTimeTooSkewed" => self.skewed(),
            "InvalidObjectState" => say(
                Kind::Archived,
                "the object is archived",
                "restore it first: aws s3api restore-object",
            ),
            "PreconditionFailed" => say(Kind::Conflict, "the precondition does not hold", ""),
            "ConditionalRequestConflict" | "OperationAborted" => {
                say(Kind::Conflict, "somebody else is writing the same object", "try again")
            }
            "BadDigest"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch" => say(
                Kind::Integrity,
                "the store got other bytes than were sent: the checksum differs",
                "",
            ),
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => self.elsewhere(),
            "SlowDown"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "SlowDownRead"
            | "SlowDownWrite" => say(Kind::Throttled, "the store asks for fewer requests", ""),
            code if code.contains("Throttl") => {
                say(Kind::Throttled, "the store asks for fewer requests", "")
            }
            "RequestTimeout" | "IncompleteBody" => {
                say(Kind::Unreachable, "the store did not get the bytes in time", "")
            }
            "InternalError" => say(Kind::ServerFailure, "the store failed internally", ""),
            // Also as the late end of an answer that began with success.
            "ServiceUnavailable" => {
                say(Kind::ServerFailure, "the store is not available at the moment", "")
            }
            _ => self.by_status(),
        }
    }

    /// What remains when the code says nothing known; a HEAD reply has no code at all.
    fn by_status(&self) -> (ErrorKind, String, Option<String>) {
        use ErrorKind as Kind;
        let kind = match self.status {
            301 | 307 | 308 => return self.elsewhere(),
            // What a HEAD says of an object in the wrong region is 400 with the right one.
            400 if self.bucket_region().is_some() && self.code.is_none() => {
                return self.elsewhere();
            }
            // A HEAD's refusal has no words, but the store's clock.
            403 if self.code.is_none() && self.is_skewed() => return self.skewed(),
            401 | 403 => Kind::AccessDenied,
            407 => {
                return (
                    Kind::AccessDenied,
                    "the proxy asks for credentials".into(),
                    Some("give the right user and password in its URL".into()),
                );
            }
            408 => Kind::Unreachable,
            404 => Kind::NotFound,
            409 | 412 => Kind::Conflict,
            429 => Kind::Throttled,
            501 => Kind::Unsupported,
            503 if self.code.is_none() => Kind::Throttled,
            // In a success the SDK found no result, or an error without a name.
            200..=299 | 500..=599 => Kind::ServerFailure,
            _ => Kind::Rejected,
        };
        let said = match (self.code, self.message) {
            (Some(code), Some(message)) if spells_out(message, code) => message.to_lowercase(),
            (Some(code), Some(message)) => format!("{code}: {}", message.trim()),
            (Some(code), None) => code.to_owned(),
            (None, Some(message)) => message.trim().to_owned(),
            (None, None) => match kind {
                Kind::AccessDenied => "access denied".into(),
                Kind::NotFound => "no such bucket or key".into(),
                Kind::Conflict => "the precondition does not hold".into(),
                Kind::Throttled => "the store asks for fewer requests".into(),
                Kind::Unreachable => "the store did not get the request in time".into(),
                Kind::ServerFailure if self.status < 300 => {
                    "the store's answer says neither yes nor no".into()
                }
                _ => format!("the store answered with status {}", self.status),
            },
        };
        let advice = match kind {
            Kind::AccessDenied => Some("check the credentials and their permissions".into()),
            Kind::NotFound => Some("check the bucket, the key and the endpoint".into()),
            _ => None,
        };
        (kind, said, advice)
    }

    fn elsewhere(&self) -> (ErrorKind, String, Option<String>) {
        match self.bucket_region() {
            Some(region) => (
                ErrorKind::InvalidInput,
                format!("wrong region: the store expects {region}"),
                Some(format!("use --region {region} or AWS_REGION={region}")),
            ),
            None => (
                ErrorKind::InvalidInput,
                "the bucket is in another region or at another endpoint".into(),
                Some("find out with: aws s3api get-bucket-location".into()),
            ),
        }
    }

    /// The right region, from the header AWS sends or from the error's own text.
    fn bucket_region(&self) -> Option<String> {
        if let Some(region) = self.response.headers().get("x-amz-bucket-region") {
            return plausible_region(region).then(|| region.to_owned());
        }
        if let Some(body) = self.response.body().bytes() {
            let text = String::from_utf8_lossy(body);
            let region = text.split_once("<Region>")?.1.split_once("</Region>")?.0;
            return plausible_region(region).then(|| region.to_owned());
        }
        None
    }

    fn skewed(&self) -> (ErrorKind, String, Option<String>) {
        let skew = match self.seconds_ahead() {
            None | Some(0) => String::new(),
            Some(ahead @ 1..) => format!(": it is {ahead} s ahead"),
            Some(ahead) => format!(": it is {} s behind", -ahead),
        };
        (
            ErrorKind::AccessDenied,
            format!("this machine's clock differs from the store's{skew}"),
            Some("set the clock".into()),
        )
    }

    fn is_skewed(&self) -> bool {
        self.seconds_ahead().is_some_and(|ahead| ahead.abs() > MAX_SKEW_S)
    }

    /// How far this machine's clock is ahead, as far as the reply's `Date` header tells.
    fn seconds_ahead(&self) -> Option<i64> {
        let date = self.response.headers().get("date")?;
        let theirs = DateTime::from_str(date, Format::HttpDate).ok()?;
        Some(DateTime::from(std::time::SystemTime::now()).secs() - theirs.secs())
    }
}

/// Whether a message is its code in words: `Access Denied` for `AccessDenied`.
fn spells_out(message: &str, code: &str) -> bool {
    message.split_whitespace().collect::<String>().eq_ignore_ascii_case(code)
}

/// The region goes into a message that names a command to type.
fn plausible_region(region: &str) -> bool {
    !region.is_empty()
        && region.len() <= 64
        && region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
