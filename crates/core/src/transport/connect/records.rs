//! The records of a TLS connection whose hands are shaken: sealing and opening them, no I/O.
//!
//! rustls hands over the keys of a finished handshake, as it does for a kernel that encrypts by
//! itself. What is gained is copies: rustls copies every record once before it seals it and once
//! after it opened it. Here a record is sealed from where its bytes lie, a mapped file for one, into
//! the buffer that is sent, and opened where it was received.
//!
//! The three ciphers that rustls offers are known here, in the two versions of the protocol that it
//! speaks. A record's nonce is its number, and so never repeats under one key.

use std::io;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

/// What a record holds, as its first byte says (RFC 8446, 5.1).
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// The most bytes one record may hold.
pub(super) const MAX_PLAINTEXT: usize = 1 << 14;

/// Kind, version and length.
pub(super) const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
/// The part of a nonce that TLS 1.2 sends along with AES-GCM.
const EXPLICIT_NONCE_LEN: usize = 8;
/// What sealing adds at most: 1.2 adds the part of the nonce, 1.3 the byte with the real kind.
const MAX_OVERHEAD: usize = HEADER_LEN + EXPLICIT_NONCE_LEN + TAG_LEN;
/// The longest record that is sent.
pub(super) const MAX_SEALED: usize = MAX_PLAINTEXT + MAX_OVERHEAD;
/// The longest record that is taken; 1.2 lets ciphers add 2 KiB (RFC 5246, 6.2.3).
pub(super) const MAX_RECORD: usize = HEADER_LEN + MAX_PLAINTEXT + 2048;

/// The records that may be sealed with one key of AES-GCM, 2^24.5 by RFC 8446, 5.5: 256 GiB. Tests do
/// not send as much.
const MAX_SEALED_RECORDS: u64 = if cfg!(test) { 1 << 9 } else { 1 << 24 };

/// Why a record was not taken. Each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("a record did not arrive as it was sent")]
    Damaged,
    #[error("a record is longer than TLS allows")]
    TooLong,
    #[error("a record is none of TLS, or came at the wrong time")]
    Unexpected,
}

impl BadRecord {
    /// What the peer is told (RFC 8446, 6).
    pub(super) fn alert(self) -> u8 {
        match self {
            Self::Damaged => 20,
            Self::TooLong => 22,
            Self::Unexpected => 10,
        }
    }
}

impl From<BadRecord> for io::Error {
    fn from(bad: BadRecord) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}

/// One direction's key, and the number of its next record.
struct Key {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    next: u64,
    version: Version,
}

/// What a record looks like around its ciphertext.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The kind is inside, behind the bytes.
    Tls13,
    /// The kind is outside, and half of the nonce.
    Tls12Gcm,
    /// The kind is outside.
    Tls12Chacha,
}

impl Key {
    fn new(
        version: ProtocolVersion,
        (next, secrets): (u64, ConnectionTrafficSecrets),
    ) -> io::Result<Self> {
        let key = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                Self::of(version, &AES_128_GCM, key.as_ref(), iv.as_ref(), next)
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                Self::of(version, &AES_256_GCM, key.as_ref(), iv.as_ref(), next)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                Self::of(version, &CHACHA20_POLY1305, key.as_ref(), iv.as_ref(), next)
            }
            _ => None,
        };
        key.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "a cipher nobody knows"))
    }

    fn of(
        version: ProtocolVersion,
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: &[u8],
        next: u64,
    ) -> Option<Self> {
        let version = match version {
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            ProtocolVersion::TLSv1_2 if algorithm == &CHACHA20_POLY1305 => Version::Tls12Chacha,
            ProtocolVersion::TLSv1_2 => Version::Tls12Gcm,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(Self { aead: LessSafeKey::new(key), iv: iv.try_into().ok()?, next, version })
    }

    /// The nonce of the record `number`, when nothing of it is sent along.
    fn nonce(&self, number: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        nonce
    }
}

/// What TLS 1.2 authenticates beside the bytes.
fn additional_data(number: u64, header: [u8; HEADER_LEN], len: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data[8..11].copy_from_slice(&header[..3]);
    data[11..].copy_from_slice(&as_u16(len).to_be_bytes());
    data
}

fn header(kind: u8, len: usize) -> [u8; HEADER_LEN] {
    let [high, low] = as_u16(len).to_be_bytes();
    [kind, 3, 3, high, low]
}

fn as_u16(len: usize) -> u16 {
    u16::try_from(len).expect("records are shorter than 64 KiB")
}

/// Seals what is sent.
pub(super) struct Sealer(Key);

impl Sealer {
    pub(super) fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
    ) -> io::Result<Self> {
        Key::new(version, secrets).map(Self)
    }

    /// Whether the key has sealed as much as it should. There is a record left to say so with.
    pub(super) fn is_worn(&self) -> bool {
        self.0.next >= MAX_SEALED_RECORDS - 1
    }

    /// Writes a record with all of `bytes`, at most [`MAX_PLAINTEXT`], to the front of `out`, which
    /// has room for [`MAX_SEALED`]. Gives the record's length.
    pub(super) fn seal(&mut self, kind: u8, bytes: &[u8], out: &mut [u8]) -> io::Result<usize> {
        let key = &mut self.0;
        let number = key.next;
        key.next += 1;
        let nonce = key.nonce(number);
        let (explicit, inner): (&[u8], &[u8]) = match key.version {
            Version::Tls13 => (&[], &[kind]),
            Version::Tls12Gcm => (&nonce[NONCE_LEN - EXPLICIT_NONCE_LEN..], &[]),
            Version::Tls12Chacha => (&[], &[]),
        };
        let body = HEADER_LEN + explicit.len();
        let tail = body + bytes.len();
        let end = tail + inner.len() + TAG_LEN;
        let outer = if inner.is_empty() { kind } else { APPLICATION_DATA };
        let header = header(outer, end - HEADER_LEN);
        out[..HEADER_LEN].copy_from_slice(&header);
        out[HEADER_LEN..body].copy_from_slice(explicit);
        let of_12 = additional_data(number, header, bytes.len());
        let aad = Aad::from(if inner.is_empty() { &of_12[..] } else { &header[..] });
        let (ciphertext, tag) = out[body..end].split_at_mut(bytes.len());
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.aead
            .seal_out_of_place_scatter(nonce, aad, bytes, ciphertext, inner, tag)
            .map_err(|_| io::Error::other("a record could not be sealed"))?;
        Ok(end)
    }
}

/// What was in a record, and where in the buffer its bytes lie now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) kind: u8,
    pub(super) bytes: Range<usize>,
}

/// Opens what arrives.
pub(super) struct Opener(Key);

impl Opener {
    pub(super) fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
    ) -> io::Result<Self> {
        Key::new(version, secrets).map(Self)
    }

    /// Opens `record`, exactly one as [`record_len`] has it, where it lies.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, BadRecord> {
        let key = &mut self.0;
        let number = key.next;
        key.next += 1;
        let Some((&mut header, body)) = record.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(BadRecord::Damaged);
        };
        let kind = header[0];
        let is_13 = key.version == Version::Tls13;
        if is_13 && kind != APPLICATION_DATA {
            return Err(BadRecord::Unexpected);
        }
        let mut nonce = key.nonce(number);
        let explicit = if key.version == Version::Tls12Gcm { EXPLICIT_NONCE_LEN } else { 0 };
        let Some(len) = body.len().checked_sub(explicit + TAG_LEN) else {
            return Err(BadRecord::Damaged);
        };
        nonce[NONCE_LEN - explicit..].copy_from_slice(&body[..explicit]);
        let of_12 = additional_data(number, header, len);
        let aad = Aad::from(if is_13 { &header[..] } else { &of_12[..] });
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.aead.open_in_place(nonce, aad, &mut body[explicit..]);
        let opened = opened.map_err(|_| BadRecord::Damaged)?;
        // One byte more for the kind.
        if opened.len() > MAX_PLAINTEXT + usize::from(is_13) {
            return Err(BadRecord::TooLong);
        }
        let (kind, len) = if is_13 {
            // Behind the bytes stands what they are, and behind that any number of zeroes.
            let last = opened.iter().rposition(|byte| *byte != 0).ok_or(BadRecord::Unexpected)?;
            (opened[last], last)
        } else {
            (kind, opened.len())
        };
        let start = HEADER_LEN + explicit;
        Ok(Opened { kind, bytes: start..start + len })
    }
}

/// The length of the record that `received` begins with, as soon as that much of it is there.
pub(super) fn record_len(received: &[u8]) -> Result<Option<usize>, BadRecord> {
    let &[kind, major, _, high, low, ..] = received else { return Ok(None) };
    if !(20..=APPLICATION_DATA).contains(&kind) || major != 3 {
        return Err(BadRecord::Unexpected);
    }
    match HEADER_LEN + usize::from(u16::from_be_bytes([high, low])) {
        len if len > MAX_RECORD => Err(BadRecord::TooLong),
        len => Ok(Some(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends, for each cipher in each version.
    fn all() -> impl Iterator<Item = (Sealer, Opener)> {
        let versions = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];
        let ciphers = [(&AES_128_GCM, 16), (&AES_256_GCM, 32), (&CHACHA20_POLY1305, 32)];
        versions.into_iter().flat_map(move |version| {
            ciphers.map(|(cipher, len)| {
                let key = || Key::of(version, cipher, &vec![7; len], &[9; NONCE_LEN], 3).unwrap();
                (Sealer(key()), Opener(key()))
            })
        })
    }

    fn sealed(sealer: &mut Sealer, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; MAX_SEALED];
        let len = sealer.seal(APPLICATION_DATA, bytes, &mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn a_record_of_any_length_is_opened_as_it_was() {
        for (mut sealer, mut opener) in all() {
            for len in [0, 1, 100, MAX_PLAINTEXT] {
                let bytes = vec![5; len];
                let mut record = sealed(&mut sealer, &bytes);
                assert_eq!(record_len(&record), Ok(Some(record.len())));
                let opened = opener.open(&mut record).unwrap();
                assert_eq!((opened.kind, &record[opened.bytes]), (APPLICATION_DATA, &bytes[..]));
            }
        }
    }

    #[test]
    fn no_two_records_are_alike() {
        for (mut sealer, _) in all() {
            assert_ne!(sealed(&mut sealer, b"the same"), sealed(&mut sealer, b"the same"));
        }
    }

    #[test]
    fn a_record_that_was_changed_or_is_not_the_next_one_is_damaged() {
        for (index, (mut sealer, _)) in all().enumerate() {
            let opener = || all().nth(index).unwrap().1;
            let (first, second) = (sealed(&mut sealer, b"first"), sealed(&mut sealer, b"second"));
            for at in 0..first.len() {
                let mut changed = first.clone();
                changed[at] ^= 1;
                let is_refused = opener().open(&mut changed).is_err();
                // The length is what the record is cut out by. 1.2 authenticates that of its content.
                let is_length = (3..HEADER_LEN).contains(&at);
                assert!(is_refused || is_length, "byte {at} of cipher {index}");
            }
            for len in 0..first.len() {
                assert!(opener().open(&mut first[..len].to_vec()).is_err(), "{len} bytes");
            }
            assert_eq!(opener().open(&mut second.clone()), Err(BadRecord::Damaged));
            let mut opener = opener();
            assert!(opener.open(&mut first.clone()).is_ok());
            assert_eq!(opener.open(&mut first.clone()), Err(BadRecord::Damaged));
        }
    }

    #[test]
    fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
        let (mut sealer, mut opener) = all().last().unwrap();
        // What is inside a record of 1.3: the bytes, the kind, zeroes.
        let mut raw = |inner: &[u8]| {
            let (kind, bytes) = inner.split_last().unwrap();
            let mut out = vec![0; MAX_SEALED + 1];
            let len = sealer.seal(*kind, bytes, &mut out).unwrap();
            out.truncate(len);
            out
        };
        let mut padded = raw(b"text\x17\0\0\0");
        let found = opener.open(&mut padded).unwrap();
        assert_eq!((found.kind, &padded[found.bytes]), (APPLICATION_DATA, &b"text"[..]));
        assert_eq!(opener.open(&mut raw(&[0; 9])), Err(BadRecord::Unexpected));
        assert_eq!(opener.open(&mut raw(&vec![23; MAX_PLAINTEXT + 2])), Err(BadRecord::TooLong));
    }

    #[test]
    fn what_is_no_record_is_told_by_its_header() {
        assert_eq!(record_len(b"HTTP/1.1"), Err(BadRecord::Unexpected));
        assert_eq!(record_len(&[23, 2, 0, 0, 9]), Err(BadRecord::Unexpected));
        assert_eq!(record_len(&[23, 3, 3, 0x48, 1]), Err(BadRecord::TooLong));
        assert_eq!(record_len(&[23, 3, 3, 0x48, 0]), Ok(Some(MAX_RECORD)));
        assert_eq!(record_len(&[23, 3, 3, 0]), Ok(None));
    }
}
