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

/// The records that may be sealed with one key of AES-GCM, 2^24.5 by RFC 8446, 5.5: 256 GiB.
const MAX_SEALED_RECORDS: u64 = 1 << 24;

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
        let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "a cipher nobody knows");
        let (algorithm, key, iv): (&Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(unsupported()),
        };
        let version = match version {
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            ProtocolVersion::TLSv1_2 if algorithm == &CHACHA20_POLY1305 => Version::Tls12Chacha,
            ProtocolVersion::TLSv1_2 => Version::Tls12Gcm,
            _ => return Err(unsupported()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unsupported())?;
        let iv = iv.as_ref().try_into().map_err(|_| unsupported())?;
        Ok(Self { aead: LessSafeKey::new(key), iv, next, version })
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
fn additional_data(number: u64, kind: u8, len: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data[8..11].copy_from_slice(&[kind, 3, 3]);
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
        let of_12 = additional_data(number, kind, bytes.len());
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
        let (header, body) = record.split_at_mut(HEADER_LEN);
        let kind = header[0];
        let mut nonce = key.nonce(number);
        let explicit = if key.version == Version::Tls12Gcm { EXPLICIT_NONCE_LEN } else { 0 };
        let Some(len) = body.len().checked_sub(explicit + TAG_LEN) else {
            return Err(BadRecord::Damaged);
        };
        nonce[NONCE_LEN - explicit..].copy_from_slice(&body[..explicit]);
        let of_12 = additional_data(number, kind, len);
        let is_13 = key.version == Version::Tls13;
        if is_13 && kind != APPLICATION_DATA {
            return Err(BadRecord::Unexpected);
        }
        let aad = Aad::from(if is_13 { &header[..] } else { &of_12[..] });
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.aead.open_in_place(nonce, aad, &mut body[explicit..]);
        let opened = opened.map_err(|_| BadRecord::Damaged)?;
        let (kind, len) = if is_13 {
            // Behind the bytes stands what they are, and behind that any number of zeroes.
            let last = opened.iter().rposition(|byte| *byte != 0).ok_or(BadRecord::Unexpected)?;
            (opened[last], last)
        } else {
            (kind, opened.len())
        };
        if len > MAX_PLAINTEXT {
            return Err(BadRecord::TooLong);
        }
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
