//! What a failed request means: the one place where status codes, S3's error codes and connection
//! errors become an [`Error`] with a kind, a sentence and an advice.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::{DateTime, Format};

use super::connect;
use super::place::{Asked, element, is_region};
use crate::error::{CHECK_PERMISSIONS, Error, ErrorKind, Remedy};

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

/// What a code means that a store gives for one of many keys, inside a success.
pub(super) fn of_key(
    operation: &'static str,
    target: &str,
    code: Option<&str>,
    message: Option<&str>,
) -> Error {
    // The status that such a refusal has by itself.
    let status = match code.unwrap_or_default() {
        "AccessDenied" | "AllAccessDisabled" => 403,
        "MethodNotAllowed" => 405,
        "NotImplemented" => 501,
        _ => 400,
    };
    let known = status.try_into().map(|status| HttpResponse::new(status, SdkBody::empty()));
    match known {
        Ok(response) => {
            Answer { response: &response, status, code, message }.explain(operation, target)
        }
        // These are statuses.
        Err(_) => Error::new(ErrorKind::Rejected, operation, target, code.unwrap_or_default()),
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
pub(super) fn credentials_problem(
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
        let error = Error::new(kind, operation, target, detail)
            .coded(self.code)
            .retry_after(self.retry_after())
            .remedied_by(self.remedy());
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
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => say(
                Kind::AccessDenied,
                "the temporary credentials have expired",
                "get new ones (aws sso login, or a new AWS_SESSION_TOKEN) and start again",
            ),
            "InvalidToken" | "InvalidTokenId" => {
                say(Kind::AccessDenied, "the session token is not valid", "check AWS_SESSION_TOKEN")
            }
            "RequestTimeTooSkewed" => self.skewed(),
            "InvalidObjectState" => say(
                Kind::Archived,
                "the object is archived",
                "restore it first, with: aws s3api restore-object",
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
            code if is_elsewhere(code) => self.elsewhere(),
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
            _ if self.is_elsewhere_by_status() => return self.elsewhere(),
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
            Kind::AccessDenied => Some(CHECK_PERMISSIONS.into()),
            Kind::NotFound => Some("check the bucket, the key and the endpoint".into()),
            _ => None,
        };
        (kind, said, advice)
    }

    fn elsewhere(&self) -> (ErrorKind, String, Option<String>) {
        if let Some(region) = self.bucket_region() {
            return (
                ErrorKind::InvalidInput,
                format!("wrong region: the store expects {region}"),
                Some(format!("use --region {region} or AWS_REGION={region}")),
            );
        }
        (
            ErrorKind::InvalidInput,
            "the bucket is in another region or at another endpoint".into(),
            Some("find out with: aws s3api get-bucket-location".into()),
        )
    }

    /// The right region, from the header AWS sends or from the error's own text.
    fn bucket_region(&self) -> Option<String> {
        let header = self.response.headers().get("x-amz-bucket-region").map(str::to_owned);
        header.or_else(|| element(self.response, "Region")).filter(|region| is_region(region))
    }

    /// What may help without anybody's doing.
    fn remedy(&self) -> Option<Remedy> {
        let asked: &Asked = self.response.extension()?;
        match self.code.unwrap_or_default() {
            // The second is what a store says that forgets keys with their expiry, or once they were
            // rotated.
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId" => {
                Some(Remedy::OtherCredentials { refused: asked.signed_with? })
            }
            "InvalidToken" | "InvalidTokenId" if asked.has_session_token => {
                Some(Remedy::OtherCredentials { refused: asked.signed_with? })
            }
            code if is_elsewhere(code) || self.is_elsewhere_by_status() => {
                let place = asked.sent_to(self.bucket_region().as_deref(), self.response)?;
                Some(Remedy::OtherPlace { bucket: asked.bucket.clone(), place })
            }
            _ => None,
        }
    }

    fn is_elsewhere_by_status(&self) -> bool {
        match self.status {
            301 | 307 | 308 => true,
            // What a HEAD says of an object in the wrong region is 400 with the right one.
            400 => self.code.is_none() && self.bucket_region().is_some(),
            _ => false,
        }
    }

    /// How long to leave the store alone, in seconds or as a date, which is held against the store's
    /// own clock.
    fn retry_after(&self) -> Option<Duration> {
        if !matches!(self.status, 429 | 503) {
            return None;
        }
        let text = self.response.headers().get("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = DateTime::from_str(text, Format::HttpDate).ok()?;
        let now = self.date().unwrap_or_else(|| std::time::SystemTime::now().into());
        Some(Duration::from_secs(u64::try_from(until.secs() - now.secs()).unwrap_or(0)))
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
        Some(DateTime::from(std::time::SystemTime::now()).secs() - self.date()?.secs())
    }

    /// The store's clock.
    fn date(&self) -> Option<DateTime> {
        DateTime::from_str(self.response.headers().get("date")?, Format::HttpDate).ok()
    }
}

/// Whether a message is its code in words: `Access Denied` for `AccessDenied`.
fn spells_out(message: &str, code: &str) -> bool {
    message.split_whitespace().collect::<String>().eq_ignore_ascii_case(code)
}

fn is_elsewhere(code: &str) -> bool {
    matches!(
        code,
        "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException"
    )
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    #[test]
    fn a_store_may_say_in_two_ways_how_long_it_wants_to_be_left_alone() {
        let asked = |status: u16, headers: &[(&'static str, &'static str)]| {
            let status = status.try_into().expect("a status");
            let mut response = HttpResponse::new(status, SdkBody::empty());
            for (name, value) in headers {
                response.headers_mut().insert(*name, *value);
            }
            let metadata = ErrorMetadata::builder().build();
            Answer::new(&response, &metadata).explain("send", "x").asked_pause()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(503, &[("retry-after", "7")]), seconds(7));
        assert_eq!(asked(429, &[("retry-after", " 8 ")]), seconds(8));
        // The store's clock counts, not this machine's.
        let date = ("date", "Thu, 01 Jan 2015 00:00:00 GMT");
        assert_eq!(
            asked(503, &[date, ("retry-after", "Thu, 01 Jan 2015 00:02:00 GMT")]),
            seconds(120)
        );
        assert_eq!(
            asked(503, &[date, ("retry-after", "Wed, 31 Dec 2014 00:02:00 GMT")]),
            seconds(0)
        );
        for (status, text) in [(500, "7"), (503, "soon"), (503, "-1"), (503, "")] {
            assert_eq!(asked(status, &[("retry-after", text)]), None);
        }
    }
}
