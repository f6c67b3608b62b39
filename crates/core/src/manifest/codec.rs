//! The manifest's lines: `brigade manifest 1` (or another version), then `CRC32 JSON` for each record.
//!
//! Text, so that a person who lost something can read it; a CRC for every line, so that a line that was
//! half written when the power went, or damaged since, is never taken for a record. What follows the
//! last good line is a torn tail, and dropped; a bad line with good ones behind it is damage, and an
//! error: appended lines cannot look like that.

use super::{Manifest, Record};

/// The newest version of the format. Older ones are read, newer ones refused; what older programs
/// understand is written as the version that they read.
pub const FORMAT_VERSION: u32 = 2;

const FIRST_LINE: &str = "brigade manifest ";

/// The longest manifest that is read: 100,000 parts of a line of a few hundred bytes, several times.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// Why bytes are no manifest that can be used. Each message says what is wrong, not what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It does not begin as one.
    #[error("it is not a manifest")]
    NotOne,
    /// It was written by a later version of this program.
    #[error("it has format {version}, and this version reads up to {FORMAT_VERSION}")]
    Newer {
        /// The format's version.
        version: u32,
    },
    /// A line in it is not as it was written.
    #[error("line {line} is damaged: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// Everything up to the last good line; `None` where not even the first record is there, as in
    /// an empty file.
    pub manifest: Option<Manifest>,
    /// How many bytes that is. What follows is a torn tail, to be cut off before the next line is
    /// appended.
    pub valid_bytes: usize,
}

/// Reads a manifest.
///
/// # Errors
/// [`Damage`], unless all that is wrong is that its end is missing.
///
/// ```
/// let decoded = brigade::manifest::decode(b"brigade mani")?; // a file that was just begun
/// assert!(decoded.manifest.is_none());
/// # Ok::<(), brigade::manifest::Damage>(())
/// ```
pub fn decode(bytes: &[u8]) -> Result<Decoded, Damage> {
    let nothing = Decoded { manifest: None, valid_bytes: 0 };
    let Some(first) = Lines::new(bytes).next() else {
        let torn = |version| first_line(version).as_bytes().starts_with(bytes);
        let is_begun = (1..=FORMAT_VERSION).any(torn) || is_blank(bytes);
        return if is_begun { Ok(nothing) } else { Err(Damage::NotOne) };
    };
    let version = std::str::from_utf8(first.text)
        .ok()
        .and_then(|line| line.strip_prefix(FIRST_LINE)?.parse::<u32>().ok())
        .ok_or(Damage::NotOne)?;
    if version > FORMAT_VERSION {
        return Err(Damage::Newer { version });
    }
    let mut manifest: Option<Manifest> = None;
    let mut valid_bytes = first.end;
    let mut lines = Lines { bytes, offset: first.end, number: 1 };
    while let Some(line) = lines.next() {
        let damaged = |why: &str| Damage::Line { line: line.number, why: why.to_owned() };
        let Some(json) = line.checked() else {
            let more = lines.any(|line| line.checked().is_some());
            if more {
                return Err(damaged("its checksum does not match"));
            }
            break;
        };
        // What has its checksum was written so: no accident explains what is wrong with it now.
        let record: Record = serde_json::from_slice(json).map_err(|e| damaged(&e.to_string()))?;
        match (&mut manifest, record) {
            (None, Record::Transfer(transfer)) => {
                let begun = Manifest::new(*transfer);
                manifest = Some(begun.ok_or_else(|| damaged("its sizes make no plan"))?);
            }
            (None, _) => return Err(damaged("it comes before the transfer it is of")),
            (Some(manifest), record) => manifest.replay(record).map_err(damaged)?,
        }
        valid_bytes = line.end;
    }
    Ok(match manifest {
        Some(manifest) => Decoded { manifest: Some(manifest), valid_bytes },
        None => nothing,
    })
}

/// The first lines of a manifest.
pub(crate) fn encode_first(transfer: &Record) -> Vec<u8> {
    let version = match transfer {
        Record::Transfer(transfer) => transfer.side.format_version(),
        _ => FORMAT_VERSION,
    };
    let mut lines = first_line(version).into_bytes();
    lines.extend(encode(transfer));
    lines
}

/// A record as a line.
pub(crate) fn encode(record: &Record) -> Vec<u8> {
    // Maps with text for keys, and nothing that can fail.
    let json = serde_json::to_vec(record).unwrap_or_default();
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    line
}

fn first_line(version: u32) -> String {
    format!("{FIRST_LINE}{version}\n")
}

/// Whether a file was made longer and the power went before anything was written to it.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Complete lines: what follows the last line feed is none.
struct Lines<'a> {
    bytes: &'a [u8],
    offset: usize,
    number: usize,
}

struct Line<'a> {
    /// From 1.
    number: usize,
    /// Without its line feed.
    text: &'a [u8],
    /// The offset behind its line feed.
    end: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, number: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.bytes[self.offset..];
        let len = rest.iter().position(|byte| *byte == b'\n')?;
        self.offset += len + 1;
        self.number += 1;
        Some(Line { number: self.number, text: &rest[..len], end: self.offset })
    }
}

impl<'a> Line<'a> {
    /// The JSON in it, if its checksum is right.
    fn checked(&self) -> Option<&'a [u8]> {
        let (sum, json) = self.text.split_at_checked(8)?;
        let json = json.strip_prefix(b" ")?;
        // `from_str_radix` would take a sign.
        let is_hex = sum.iter().all(u8::is_ascii_hexdigit);
        let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
        (is_hex && crc32fast::hash(json) == sum).then_some(json)
    }
}
