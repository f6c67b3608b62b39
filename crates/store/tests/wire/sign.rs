//! Signing requests, as far as tests need it.

use sha2::{Digest, Sha256};

/// The access key and the secret key of the tests.
pub const KEYS: (&str, &str) = ("me", "secret");

/// The headers of a request to host `x`, signed as AWS's Signature Version 4 has it. `body` is the hash of its
/// body, or what stands for that; `more` are headers besides those that are always signed.
pub fn signed(secret: &str, line: &str, body: &str, more: &[(&str, &str)]) -> String {
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    let date = format!("{year}{month:02}{day:02}");
    let at = format!("{date}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    let mut headers = vec![("host", "x"), ("x-amz-content-sha256", body), ("x-amz-date", &at)];
    headers.extend(more);
    headers.sort_unstable();
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort_unstable();
    let lines = |headers: &[(&str, &str)], between: &str, end: &str| -> String {
        headers.iter().flat_map(|(name, value)| [*name, between, *value, end]).collect()
    };
    let listed = lines(&headers, ":", "\n");
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let asked = format!("{method}\n{path}\n{}\n{listed}\n{names}\n{body}", query.join("&"));
    let scope = format!("{date}/us-east-1/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&Sha256::digest(asked)));
    let mut key = format!("AWS4{secret}").into_bytes();
    for step in [date.as_str(), "us-east-1", "s3", "aws4_request"] {
        key = hmac(&key, step.as_bytes());
    }
    let signature = hex(&hmac(&key, text.as_bytes()));
    headers.retain(|(name, _)| *name != "host");
    let sent = lines(&headers, ": ", "\r\n");
    format!(
        "{sent}authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, \
         Signature={signature}\r\n",
        KEYS.0
    )
}

/// HMAC-SHA-256 for keys of up to 64 bytes.
pub fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| -> Vec<u8> {
        (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect()
    };
    let inner = Sha256::digest([padded(0x36), text.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
