//! Heads of HTTP/1.1 messages, as far as a store and its clients look at them.

/// The head of a request or an answer: its first line and its headers.
pub(crate) struct Head(String);

impl Head {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A word of the first line, from 0.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.0.lines().next().and_then(|line| line.split(' ').nth(index)).unwrap_or("")
    }

    /// The value of a header; names are compared in any case.
    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.0.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    /// Whether a header's value holds this word, in any case.
    pub(crate) fn says(&self, header: &str, word: &str) -> bool {
        self.header(header).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    pub(crate) fn content_length(&self) -> u64 {
        self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// How the body that follows is delimited.
    pub(crate) fn body(&self) -> Body {
        if self.says("transfer-encoding", "chunked") {
            Body::Chunked
        } else {
            Body::Length(self.content_length())
        }
    }
}

/// How a body is delimited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
}

/// The bytes a `Range` header asks for, as first and one past the last; `None` where there is none.
pub(crate) fn range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) => (first, size),
        (Err(_), Ok(length)) => (size.saturating_sub(length), size),
        (Err(_), Err(_)) => return None,
    };
    (start < end).then_some((start, end))
}

/// Undoes percent-encoding; in a query, `+` stands for a blank.
pub(crate) fn decoded(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                plain.push(code);
                at += 2;
            }
            (b'+', _) if query => plain.push(b' '),
            _ => plain.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Percent-encoding, as listings use it where a client asks for it.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => {
                use std::fmt::Write as _;
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = Head::new(b"PUT /b/k?x=1 HTTP/1.1\r\nHost: h\r\ncontent-LENGTH: 17\r\n\r\n");
        assert_eq!((head.word(0), head.word(1)), ("PUT", "/b/k?x=1"));
        assert_eq!(head.body(), Body::Length(17));
        assert_eq!(head.header("host"), Some("h"));
        let head = Head::new(b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert_eq!(head.body(), Body::Chunked);
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        assert_eq!(range("bytes=0-0", 10), Some((0, 1)));
        assert_eq!(range("bytes=5-", 10), Some((5, 10)));
        assert_eq!(range("bytes=-3", 10), Some((7, 10)));
        assert_eq!(range("bytes=8-100", 10), Some((8, 10)));
        assert_eq!(range("bytes=10-", 10), None);
        assert_eq!(range("lines=1-2", 10), None);
    }

    #[test]
    fn encoding_goes_there_and_back() {
        assert_eq!(decoded(&encoded("a b/+ü%"), true), "a b/+ü%");
        assert_eq!(decoded("a+b%20c", true), "a b c");
        assert_eq!(decoded("a+b%", false), "a+b%");
    }
}
