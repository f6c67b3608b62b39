//! Which bytes of an object a GET or HEAD asks for.
//!
//! `Range` and `partNumber` both end in one byte range of the object; the answer to either is 206 with a
//! `Content-Range`. A range that starts behind the end cannot be satisfied (416), one that ends behind it
//! is cut.

use std::ops::Range as Bytes;

use s3s::dto::Range;
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The part of an object to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Offsets in the object.
    pub(crate) bytes: Bytes<u64>,
    /// `Content-Range`, where a part was asked for.
    pub(crate) content_range: Option<String>,
    /// The number of the part this is exactly, if one was asked for or if the range happens to be one.
    pub(crate) part: Option<u32>,
}

/// Resolves a request's range or part number against an object of `size` bytes, made of parts of `parts`
/// bytes (empty where it was not a multipart upload).
pub(crate) fn select(
    size: u64,
    parts: &[u64],
    range: Option<&Range>,
    part_number: Option<i32>,
) -> S3Result<Selection> {
    let bytes = match (range, part_number) {
        (Some(_), Some(_)) => {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        (None, None) => return Ok(Selection { bytes: 0..size, content_range: None, part: None }),
        (Some(range), None) => resolve(range, size).ok_or_else(|| unsatisfiable(size))?,
        (None, Some(number)) => part_bytes(size, parts, number)?,
    };
    let part = u32::try_from(part_number.unwrap_or(0))
        .ok()
        .filter(|number| *number > 0)
        .or_else(|| exact_part(parts, &bytes));
    // An empty object answers `partNumber=1` as a whole: there is no byte a range could name.
    let content_range =
        (!bytes.is_empty()).then(|| format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1));
    Ok(Selection { bytes, content_range, part })
}

/// A copy source's range: `bytes=first-last`, which must lie within the source.
pub(crate) fn select_copy(size: u64, header: Option<&str>) -> S3Result<Bytes<u64>> {
    let Some(header) = header else { return Ok(0..size) };
    let malformed = || {
        S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last \
             are the zero-based offsets of the first and last bytes to copy",
        )
    };
    match Range::parse(header).map_err(|_| malformed())? {
        Range::Int { first, last: Some(last) } if last < size => Ok(first..last + 1),
        Range::Int { last: Some(_), .. } => Err(S3Error::with_message(
            S3ErrorCode::InvalidRange,
            format!("Range specified is not valid for source object of size: {size}"),
        )),
        _ => Err(malformed()),
    }
}

/// `None` where no byte of the object is in the range.
fn resolve(range: &Range, size: u64) -> Option<Bytes<u64>> {
    match *range {
        Range::Int { first, last } => {
            let end = last.map_or(size, |last| size.min(last.saturating_add(1)));
            (first < end).then_some(first..end)
        }
        Range::Suffix { length } => {
            let start = size.saturating_sub(length);
            (start < size).then_some(start..size)
        }
    }
}

fn part_bytes(size: u64, parts: &[u64], number: i32) -> S3Result<Bytes<u64>> {
    let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).ok_or_else(|| {
        S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive",
        )
    })?;
    if parts.is_empty() && index == 0 {
        return Ok(0..size);
    }
    let length = parts.get(index).ok_or_else(|| {
        let mut error = S3Error::with_message(
            S3ErrorCode::Custom("InvalidPartNumber".into()),
            "The requested partnumber is not satisfiable",
        );
        error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
        error
    })?;
    let start = parts[..index].iter().sum();
    Ok(start..start + length)
}

fn exact_part(parts: &[u64], bytes: &Bytes<u64>) -> Option<u32> {
    let mut start = 0;
    for (number, length) in (1..).zip(parts) {
        if start == bytes.start {
            return (start + length == bytes.end).then_some(number);
        }
        if start > bytes.start {
            return None;
        }
        start += length;
    }
    None
}

fn unsatisfiable(size: u64) -> S3Error {
    let mut error =
        S3Error::with_message(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = format!("bytes */{size}").parse() {
        headers.insert(http::header::CONTENT_RANGE, value);
    }
    // What is set here replaces the headers of the error's XML body.
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/xml"));
    error.set_headers(headers);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(size: u64, range: &str) -> Option<Bytes<u64>> {
        select(size, &[], Some(&Range::parse(range).unwrap()), None).ok().map(|s| s.bytes)
    }

    #[test]
    fn ranges() {
        assert_eq!(ask(10, "bytes=0-"), Some(0..10));
        assert_eq!(ask(10, "bytes=3-4"), Some(3..5));
        assert_eq!(ask(10, "bytes=3-400"), Some(3..10));
        assert_eq!(ask(10, "bytes=-3"), Some(7..10));
        assert_eq!(ask(10, "bytes=-30"), Some(0..10));
        assert_eq!(ask(10, "bytes=10-"), None);
        assert_eq!(ask(10, "bytes=-0"), None);
        assert_eq!(ask(0, "bytes=0-"), None);
        assert_eq!(ask(0, "bytes=-1"), None);
    }

    #[test]
    fn parts() {
        let part = |number| select(25, &[10, 10, 5], None, Some(number));
        assert_eq!(part(1).unwrap().bytes, 0..10);
        let third = part(3).unwrap();
        assert_eq!((third.bytes, third.part), (20..25, Some(3)));
        assert_eq!(third.content_range.unwrap(), "bytes 20-24/25");
        assert_eq!(
            part(4).unwrap_err().status_code(),
            Some(http::StatusCode::RANGE_NOT_SATISFIABLE)
        );
        assert!(part(0).is_err());
        assert_eq!(select(7, &[], None, Some(1)).unwrap().bytes, 0..7);
        assert_eq!(select(0, &[], None, Some(1)).unwrap().content_range, None);
        let exact =
            select(25, &[10, 10, 5], Some(&Range::parse("bytes=10-19").unwrap()), None).unwrap();
        assert_eq!(exact.part, Some(2));
    }

    #[test]
    fn copy_ranges_must_lie_within_the_source() {
        assert_eq!(select_copy(10, None).unwrap(), 0..10);
        assert_eq!(select_copy(10, Some("bytes=0-9")).unwrap(), 0..10);
        assert!(select_copy(10, Some("bytes=0-10")).is_err());
        assert!(select_copy(10, Some("bytes=5-")).is_err());
        assert!(select_copy(10, Some("0-5")).is_err());
    }

    proptest! {
        #[test]
        fn a_satisfied_range_lies_within_the_object(size in 0_u64..100, first in 0_u64..120, length in 1_u64..120) {
            let last = first + length - 1;
            match ask(size, &format!("bytes={first}-{last}")) {
                Some(bytes) => {
                    prop_assert_eq!(bytes.start, first);
                    prop_assert!(!bytes.is_empty() && bytes.end <= size && bytes.end <= last + 1);
                    prop_assert!(bytes.end == size || bytes.end == last + 1);
                }
                None => prop_assert!(first >= size),
            }
        }
    }
}
