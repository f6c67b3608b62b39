//! A store whose clock is off.

use http::request::Parts;
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::action::Answer;

/// How far a request's clock may be from the store's, as on S3.
const MAX_SKEW: Duration = Duration::minutes(15);

const SIGNED: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
const HTTP: &[FormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The time of a clock that is off.
pub(super) fn shifted(seconds: i64) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.checked_add(Duration::seconds(seconds)).unwrap_or(now)
}

/// A time as the `Date` header has it.
pub(super) fn http_date(time: OffsetDateTime) -> String {
    time.format(HTTP).unwrap_or_default()
}

/// The refusal of a request that is signed for too different a time.
pub(super) fn refusal(request: &Parts, clock: OffsetDateTime) -> Option<Answer> {
    let text = signed_time(request)?;
    let time = PrimitiveDateTime::parse(text, SIGNED).ok()?.assume_utc();
    if (time - clock).abs() <= MAX_SKEW {
        return None;
    }
    let iso = clock.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let elements = [
        ("RequestTime", text.to_owned()),
        ("ServerTime", iso),
        ("MaxAllowedSkewMilliseconds", MAX_SKEW.whole_milliseconds().to_string()),
    ];
    let message = "The difference between the request time and the current time is too large.";
    Some(Answer {
        message: message.to_owned(),
        elements: elements.map(|(name, text)| (name.to_owned(), text)).into(),
        ..Answer::new(403, "RequestTimeTooSkewed")
    })
}

fn signed_time(request: &Parts) -> Option<&str> {
    if let Some(value) = request.headers.get("x-amz-date") {
        return value.to_str().ok();
    }
    request.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Date="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_far_off_is_refused() {
        let now = OffsetDateTime::now_utc();
        let signed = now.format(SIGNED).unwrap();
        let request = http::Request::builder().header("x-amz-date", &signed).body(()).unwrap();
        let parts = request.into_parts().0;
        assert!(refusal(&parts, now + Duration::minutes(14)).is_none());
        let answer = refusal(&parts, now - Duration::minutes(16)).unwrap();
        assert_eq!((answer.status, answer.code.as_str()), (403, "RequestTimeTooSkewed"));
        assert_eq!(answer.elements[0], ("RequestTime".to_owned(), signed));
    }

    #[test]
    fn dates() {
        assert_eq!(http_date(OffsetDateTime::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
