//! What a store recorded of an object that the downloaded bytes can be held against.
//!
//! In order of preference: a checksum of the whole object that ranges can be combined into, a
//! composite one over the parts, then the ones that need the bytes in order, then an `ETag` that
//! may be an MD5. Composites and multipart MD5s need the sizes of the parts, which are asked for
//! only then: the first part's size and the number of parts mostly say it all, in one request.

use super::sums::{Need, Segmented, Segments, Sums};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{
    Algorithm, Checksum, ChecksumType, Md5ETag, Mismatch, Verified, compare, compare_md5,
};
use crate::plan::{self, Plan};
use crate::schedule::RetryScope;
use crate::transport::{ObjectInfo, Pin};
use crate::url::S3Url;

/// What the end of a download is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Expectation {
    /// A recorded checksum. `maybe_composite`: the store did not say whether it is over all bytes
    /// or over the parts.
    Recorded { checksum: Checksum, maybe_composite: bool },
    /// An `ETag` that looks like an MD5. `vouched`: it certainly is one, and so a mismatch means
    /// other bytes.
    ETag { etag: Md5ETag, vouched: bool },
    /// Nothing, for this reason.
    Nothing { why: String },
}

/// Where the sizes of the parts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The object has no parts, or the store listed them all.
    Certain,
    /// The store told the first one and how many there are.
    FirstPart,
    /// A whole number of MiB that fits.
    Guess,
}

/// What to compare with, and what to sum for it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) expectation: Expectation,
    sum: Option<Segmented>,
    origin: Origin,
    // Ranges that follow the object's own parts are read from one place.
    part_size_hint: Option<u64>,
    size_bytes: u64,
    /// Why the parts could not be listed, where they were asked for and it was refused.
    unlisted: Option<String>,
}

impl Found {
    /// Nothing is to be compared, and nothing summed.
    pub(crate) fn unasked(info: &ObjectInfo) -> Self {
        let why = "verification is off".to_owned();
        Self { sum: None, ..Self::nothing(info, why) }
    }

    fn nothing(info: &ObjectInfo, why: String) -> Self {
        Self {
            expectation: Expectation::Nothing { why },
            // For the report: the next to look at the file can compare with it.
            sum: Some(Segmented {
                algorithm: Algorithm::Crc32,
                segments: Segments::whole(info.size_bytes),
            }),
            origin: Origin::Certain,
            part_size_hint: hint(info),
            size_bytes: info.size_bytes,
            unlisted: None,
        }
    }

    fn new(
        info: &ObjectInfo,
        expectation: Expectation,
        algorithm: Algorithm,
        segments: Segments,
        origin: Origin,
    ) -> Self {
        Self {
            expectation,
            sum: Some(Segmented { algorithm, segments }),
            origin,
            part_size_hint: hint(info),
            size_bytes: info.size_bytes,
            unlisted: None,
        }
    }

    fn refused(self, unlisted: Option<String>) -> Self {
        Self { unlisted, ..self }
    }

    /// ` (why)`, where it was refused to list the parts.
    pub(crate) fn why_unlisted(&self) -> String {
        in_brackets(self.unlisted.as_deref())
    }

    /// Size of the object's own parts, where they are equal and it is known or easily guessed.
    pub(crate) fn part_size_bytes(&self) -> Option<u64> {
        match &self.sum {
            Some(Segmented { segments: Segments::Equal { each_bytes, total_bytes }, .. })
                if each_bytes < total_bytes =>
            {
                Some(*each_bytes)
            }
            _ => self.part_size_hint,
        }
    }

    /// Whether a mismatch may also mean that the parts are not all of the first one's size: the
    /// store did not list them.
    pub(crate) fn assumes_equal_parts(&self) -> bool {
        self.origin == Origin::FirstPart
    }

    /// What to sum over the ranges of `plan`.
    pub(crate) fn need(&self, plan: &Plan) -> Need {
        Need::over_ranges(self.sum.clone(), plan)
    }

    /// What to sum over bytes that come in order.
    pub(crate) fn need_in_order(&self) -> Need {
        Need::over_stream(self.sum.clone())
    }

    /// Holds the sums against what is expected: what was proven, and the checksum that did it or,
    /// unproven, the one computed here.
    pub(crate) fn compare(&self, sums: &Sums) -> Result<(Verified, Option<Checksum>), Mismatch> {
        let ours = |kind| match kind {
            ChecksumType::FullObject => sums.full_object(),
            ChecksumType::Composite => sums.composite(),
        };
        let unproven = (Verified::Unverified, sums.full_object());
        match &self.expectation {
            Expectation::Nothing { .. } => Ok(unproven),
            Expectation::ETag { etag, vouched } => {
                let Some(computed) = sums.md5_etag(etag.parts.is_some()) else {
                    return Ok(unproven);
                };
                let verified = compare_md5(etag, &computed, *vouched)?;
                Ok((verified, Some(computed.into())))
            }
            Expectation::Recorded { checksum, maybe_composite } => {
                let Some(computed) = ours(checksum.kind) else { return Ok(unproven) };
                let first = compare(checksum, &computed);
                let outcome = match first {
                    Err(_) if *maybe_composite => {
                        let other =
                            Checksum { kind: ChecksumType::Composite, parts: None, ..*checksum };
                        match ours(ChecksumType::Composite) {
                            Some(composite) => {
                                compare(&other, &composite).map(|verified| (verified, composite))
                            }
                            None => first.map(|verified| (verified, computed)),
                        }
                    }
                    first => first.map(|verified| (verified, computed)),
                };
                match outcome {
                    Ok((verified, computed)) => Ok((verified, Some(computed))),
                    // Over parts of guessed sizes a mismatch only means a wrong guess.
                    Err(_) if self.origin == Origin::Guess => Ok(unproven),
                    Err(mismatch) => Err(mismatch),
                }
            }
        }
    }

    /// The same expectation over the parts as the store lists them, where the first part's size was
    /// all that was known; and what to sum for it, where that differs. `None` where nothing more is
    /// to be learnt.
    pub(crate) async fn with_listed_parts(
        &self,
        engine: &Engine,
        url: &S3Url,
        pin: &Pin,
        scope: &RetryScope,
    ) -> Option<(Self, Option<Segmented>)> {
        if self.origin != Origin::FirstPart {
            return None;
        }
        let of = self.sum.as_ref()?;
        let sizes = engine.retry().run(scope, None, |_| engine.calls().part_sizes(url, pin));
        let sizes = match sizes.await {
            Ok(sizes) => sizes,
            Err(error) => {
                let unlisted = refusal(&error)?;
                return Some((self.clone().refused(Some(unlisted)), None));
            }
        };
        if sizes.iter().sum::<u64>() != self.size_bytes {
            return None;
        }
        let certain = Self { origin: Origin::Certain, ..self.clone() };
        if of.segments.iter().map(|(_, len)| len).eq(sizes.iter().copied()) {
            return Some((certain, None));
        }
        let of = Segmented { algorithm: of.algorithm, segments: Segments::Listed(sizes) };
        Some((Self { sum: Some(of.clone()), ..certain }, Some(of)))
    }
}

/// Finds the best thing to compare with.
pub(crate) async fn find(
    engine: &Engine,
    url: &S3Url,
    info: &ObjectInfo,
    pin: &Pin,
    scope: &RetryScope,
) -> Result<Found> {
    let mut recorded: Vec<_> = info.checksums.iter().map(|c| read_as(*c, info)).collect();
    recorded.sort_by_key(|(checksum, maybe_composite)| {
        let in_order = !checksum.algorithm.is_combinable();
        let composite = checksum.kind == ChecksumType::Composite || *maybe_composite;
        (in_order, composite)
    });
    let (whole, mut unlisted) = (Segments::whole(info.size_bytes), None);
    for (checksum, maybe_composite) in recorded {
        let expectation = Expectation::Recorded { checksum, maybe_composite };
        let algorithm = checksum.algorithm;
        if checksum.kind == ChecksumType::FullObject && !maybe_composite {
            return Ok(Found::new(info, expectation, algorithm, whole, Origin::Certain));
        }
        let count = checksum.parts.or_else(|| info.parts()).unwrap_or(1);
        let parts = parts_of(engine, url, info, pin, scope, count, &mut unlisted).await?;
        if let Some((segments, origin)) = parts {
            let found = Found::new(info, expectation, algorithm, segments, origin);
            return Ok(found.refused(unlisted));
        }
    }
    let Some(etag) = info.md5_etag().filter(|_| info.etag_may_be_md5()) else {
        let why = if info.checksums.is_empty() {
            "the store recorded no checksum, and its ETag is not an MD5"
        } else {
            "the recorded checksum is over parts whose sizes the store does not tell"
        };
        return Ok(Found::nothing(info, format!("{why}{}", in_brackets(unlisted.as_deref()))));
    };
    let parts = match etag.parts {
        None => Some((whole, Origin::Certain)),
        Some(count) => parts_of(engine, url, info, pin, scope, count, &mut unlisted).await?,
    };
    let Some((segments, origin)) = parts else {
        let why = "the store recorded no checksum, and does not tell the sizes of the parts";
        return Ok(Found::nothing(info, format!("{why}{}", in_brackets(unlisted.as_deref()))));
    };
    let vouched = engine.store().profile().etag_is_md5 && origin != Origin::Guess;
    let expectation = Expectation::ETag { etag, vouched };
    Ok(Found::new(info, expectation, Algorithm::Md5, segments, origin).refused(unlisted))
}

/// Reads a checksum for what it must be where the store did not say: of an object in parts, the
/// hashes exist over the parts only, and a CRC may be either.
fn read_as(checksum: Checksum, info: &ObjectInfo) -> (Checksum, bool) {
    let silent = info.checksum_type.is_none() && checksum.parts.is_none();
    if !silent || info.parts().is_none() || checksum.kind == ChecksumType::Composite {
        return (checksum, false);
    }
    if checksum.algorithm.supports_full_object() {
        (checksum, checksum.algorithm.supports_composite())
    } else {
        (Checksum { kind: ChecksumType::Composite, ..checksum }, false)
    }
}

/// The sizes of the object's `count` parts. `None` where they cannot be found out. A refusal to list
/// them goes into `unlisted`.
async fn parts_of(
    engine: &Engine,
    url: &S3Url,
    info: &ObjectInfo,
    pin: &Pin,
    scope: &RetryScope,
    count: u32,
    unlisted: &mut Option<String>,
) -> Result<Option<(Segments, Origin)>> {
    let total_bytes = info.size_bytes;
    if count <= 1 {
        return Ok(Some((Segments::whole(total_bytes), Origin::Certain)));
    }
    let equal = |each_bytes| Segments::Equal { each_bytes, total_bytes };
    let retry = engine.retry();
    let first = retry.run(scope, None, |_| engine.calls().first_part_size(url, pin)).await;
    if let Some(each) = usable(first)?.flatten()
        && each > 0
        && total_bytes.div_ceil(each) == u64::from(count)
    {
        return Ok(Some((equal(each), Origin::FirstPart)));
    }
    let listed = retry.run(scope, None, |_| engine.calls().part_sizes(url, pin)).await;
    *unlisted = listed.as_ref().err().and_then(refusal);
    if let Some(sizes) = usable(listed)?
        && sizes.len() as u64 == u64::from(count)
        && sizes.iter().sum::<u64>() == total_bytes
    {
        return Ok(Some((Segments::Listed(sizes), Origin::Certain)));
    }
    Ok(plan::infer_part_size(total_bytes, count).map(|each| (equal(each), Origin::Guess)))
}

/// A store without such a request, or that forbids it, only tells less; one that cannot be
/// reached, or an object that changed meanwhile, ends the download.
fn usable<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind().is_retryable()
                || matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Changed) =>
        {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}

fn refusal(error: &Error) -> Option<String> {
    (error.kind() == ErrorKind::AccessDenied).then(|| error.detail().to_owned())
}

fn in_brackets(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

fn hint(info: &ObjectInfo) -> Option<u64> {
    info.parts().and_then(|count| plan::infer_part_size(info.size_bytes, count))
}
