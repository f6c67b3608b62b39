//! An [`Entry`] as bytes, for runs on disk. Nothing keeps them beyond the process, so there is no version.

use std::time::{Duration, SystemTime};

use super::entry::Entry;

/// Appends `entry` to `to`.
pub(super) fn encode(entry: &Entry, to: &mut Vec<u8>) {
    // Named one by one, so that a new field is not forgotten here.
    let Entry { name, size_bytes, modified, etag, storage_class } = entry;
    text(name, to);
    to.extend_from_slice(&size_bytes.to_le_bytes());
    let modified = modified.map(|modified| match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (1, after),
        Err(before) => (2, before.duration()),
    });
    let (kind, far) = modified.unwrap_or((0, Duration::ZERO));
    to.push(kind);
    if kind != 0 {
        to.extend_from_slice(&far.as_secs().to_le_bytes());
        to.extend_from_slice(&far.subsec_nanos().to_le_bytes());
    }
    for optional in [etag, storage_class] {
        to.push(u8::from(optional.is_some()));
        if let Some(optional) = optional {
            text(optional, to);
        }
    }
}

/// No text here is near 4 GiB: keys have 1024 bytes, headers some thousands.
fn text(text: &str, to: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// The entry at the begin of `from`, and how many bytes it took; nothing where it is no entry.
pub(super) fn decode(from: &[u8]) -> Option<(Entry, usize)> {
    let mut rest = Rest(from);
    let name = rest.text()?;
    let size_bytes = rest.u64()?;
    let modified = match rest.take::<1>()? {
        [0] => None,
        [kind] => {
            let far =
                Duration::new(rest.u64()?, rest.u32().filter(|nanos| *nanos < 1_000_000_000)?);
            let base = SystemTime::UNIX_EPOCH;
            Some(if kind == 1 { base.checked_add(far) } else { base.checked_sub(far) }?)
        }
    };
    let etag = rest.optional()?;
    let storage_class = rest.optional()?;
    let length = from.len() - rest.0.len();
    Some((Entry { name, size_bytes, modified, etag, storage_class }, length))
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// The outer option says whether it could be read.
    #[expect(clippy::option_option, reason = "read or not, there or not")]
    fn optional(&mut self) -> Option<Option<String>> {
        match self.take::<1>()? {
            [0] => Some(None),
            _ => self.text().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_that_is_cut_is_none() {
        let entry = Entry {
            name: "é/ü".into(),
            size_bytes: u64::MAX,
            modified: Some(SystemTime::UNIX_EPOCH - Duration::new(3, 999_999_999)),
            etag: Some("\"e-2\"".into()),
            storage_class: Some("GLACIER".into()),
        };
        let mut bytes = Vec::new();
        encode(&entry, &mut bytes);
        assert_eq!(decode(&bytes), Some((entry, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
