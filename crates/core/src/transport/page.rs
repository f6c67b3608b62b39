//! A page of a listing, read from its XML as it lies there.
//!
//! The SDK takes longer to read a page than a store next door takes to make one. This reads just what such a
//! page is made of: elements, one inside the other, and text with the five entities of XML. Whatever
//! else may be in an XML document (comments, sections, processing instructions, declarations) no store
//! writes into a page, and is not read: `None`, and the SDK is asked to make something of it. It never
//! recurses, so that depth costs nothing, and never looks at a byte more often than twice.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::calls::{ListPage, ListedObject, decoded};

/// Elements in one another, at most: a page has four.
const MAX_DEPTH: usize = 16;

/// Keys of one page, for the first allocation.
const PAGE_KEYS: usize = 1000;

/// The page that `xml` is, the whole of it.
pub(super) fn parse(xml: &[u8]) -> Option<ListPage> {
    let mut reader = Reader::new(std::str::from_utf8(xml).ok()?);
    reader.begin("ListBucketResult")?;
    let mut page = ListPage { objects: Vec::with_capacity(PAGE_KEYS), ..ListPage::default() };
    let (mut is_encoded, mut is_truncated) = (false, None);
    while let Tag::Enters(name) = reader.child()? {
        match name {
            "Contents" => page.objects.push(object(&mut reader)?),
            "CommonPrefixes" => {
                while let Tag::Enters(name) = reader.child()? {
                    match name {
                        "Prefix" => page.prefixes.push(reader.text()?.into_owned()),
                        _ => reader.skip()?,
                    }
                }
            }
            "IsTruncated" => {
                is_truncated = match &*reader.text()? {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => return None,
                };
            }
            "NextContinuationToken" => {
                let token = reader.text()?.into_owned();
                page.token = Some(token).filter(|token| !token.is_empty());
            }
            "EncodingType" => match &*reader.text()? {
                "url" => is_encoded = true,
                "" => {}
                _ => return None,
            },
            _ => reader.skip()?,
        }
    }
    reader.end()?;
    page.is_truncated = is_truncated.unwrap_or(page.token.is_some());
    // It may stand behind the keys that it is said of.
    if is_encoded {
        let names = page.objects.iter_mut().map(|object| &mut object.key);
        for name in names.chain(&mut page.prefixes) {
            if name.contains(['%', '+']) {
                *name = decoded(name);
            }
        }
    }
    Some(page)
}

fn object(reader: &mut Reader<'_>) -> Option<ListedObject> {
    let mut object = ListedObject::default();
    let (mut has_key, mut has_size) = (false, false);
    while let Tag::Enters(name) = reader.child()? {
        match name {
            "Key" => {
                object.key = reader.text()?.into_owned();
                has_key = true;
            }
            "Size" => {
                object.size_bytes = reader.text()?.parse().ok()?;
                has_size = true;
            }
            "LastModified" => object.modified = Some(moment(&reader.text()?)?),
            "ETag" => {
                let etag = reader.text()?.into_owned();
                object.etag = Some(etag).filter(|etag| !etag.is_empty());
            }
            "StorageClass" => match &*reader.text()? {
                "STANDARD" | "" => {}
                class => object.storage_class = Some(class.to_owned()),
            },
            _ => reader.skip()?,
        }
    }
    (has_key && has_size).then_some(object)
}

/// A way through a document, from tag to tag. What is not as it should be is `None`.
struct Reader<'a> {
    rest: &'a str,
    /// The elements around it.
    open: Vec<&'a str>,
    /// The innermost of them is empty, and was closed by its own tag.
    is_closed: bool,
}

/// What a tag does.
enum Tag<'a> {
    Enters(&'a str),
    Leaves,
}

impl<'a> Reader<'a> {
    fn new(xml: &'a str) -> Self {
        let xml = xml.strip_prefix('\u{feff}').unwrap_or(xml).trim_ascii_start();
        let rest = match xml.strip_prefix("<?xml ").and_then(|xml| xml.split_once("?>")) {
            Some((_, rest)) => rest,
            None => xml,
        };
        Self { rest, open: Vec::with_capacity(MAX_DEPTH), is_closed: false }
    }

    /// Enters the document's own element.
    fn begin(&mut self, name: &str) -> Option<()> {
        match self.child()? {
            Tag::Enters(entered) if entered == name => Some(()),
            _ => None,
        }
    }

    /// Nothing may follow the document's own element.
    fn end(&self) -> Option<()> {
        (self.open.is_empty() && self.rest.trim_ascii().is_empty()).then_some(())
    }

    /// Enters the next element in this one, or leaves this one. Only blanks may stand before it.
    fn child(&mut self) -> Option<Tag<'a>> {
        let (before, tag) = self.tag()?;
        before.trim_ascii().is_empty().then_some(tag)
    }

    /// The text of the element that was entered, and leaves it. No elements may be in it.
    fn text(&mut self) -> Option<Cow<'a, str>> {
        match self.tag()? {
            (text, Tag::Leaves) => unescaped(text),
            _ => None,
        }
    }

    /// Leaves the element that was entered, whatever is in it.
    fn skip(&mut self) -> Option<()> {
        let depth = self.open.len();
        while self.open.len() >= depth {
            self.tag()?;
        }
        Some(())
    }

    /// The next tag, and the text before it.
    fn tag(&mut self) -> Option<(&'a str, Tag<'a>)> {
        if std::mem::take(&mut self.is_closed) {
            self.open.pop()?;
            return Some(("", Tag::Leaves));
        }
        let (before, rest) = self.rest.split_once('<')?;
        let (tag, rest) = rest.split_once('>')?;
        self.rest = rest;
        if let Some(name) = tag.strip_prefix('/') {
            let is_innermost = self.open.pop()? == name.trim_ascii_end();
            return is_innermost.then_some((before, Tag::Leaves));
        }
        let (tag, is_closed) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let blank = tag.find(|it: char| it.is_ascii_whitespace());
        let (name, attributes) = tag.split_at(blank.unwrap_or(tag.len()));
        // A bracket in a value would have ended the tag too early.
        let quotes = attributes.bytes().filter(|it| *it == b'"').count();
        let is_plain = quotes % 2 == 0 && !attributes.contains('\'');
        let is_name = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric());
        if !is_plain || !is_name || self.open.len() >= MAX_DEPTH {
            return None;
        }
        self.open.push(name);
        self.is_closed = is_closed;
        Some((before, Tag::Enters(name)))
    }
}

/// Text with its entities read.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    // XML makes another character of the first, and allows the second nowhere in a text.
    if text.contains('\r') || text.contains("]]>") {
        return None;
    }
    let Some((plain, mut rest)) = text.split_once('&') else { return Some(Cow::Borrowed(text)) };
    let mut whole = String::with_capacity(text.len());
    whole.push_str(plain);
    loop {
        let (entity, behind) = rest.split_once(';')?;
        whole.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            other => numbered(other.strip_prefix('#')?)?,
        });
        match behind.split_once('&') {
            Some((plain, next)) => {
                whole.push_str(plain);
                rest = next;
            }
            None => {
                whole.push_str(behind);
                return Some(Cow::Owned(whole));
            }
        }
    }
}

/// A character by its number: `38`, `x26`.
fn numbered(number: &str) -> Option<char> {
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // What a number may begin with elsewhere, it may not here.
    let is_number = digits.bytes().all(|it| it.is_ascii_hexdigit());
    char::from_u32(u32::from_str_radix(digits, radix).ok().filter(|_| is_number)?)
}

/// `2026-11-30T20:17:46.000Z`, with or without a fraction.
fn moment(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?.as_bytes();
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
        })
    };
    let (whole, fraction) = text.split_at_checked(19)?;
    let is_apart = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if is_apart.iter().any(|(at, mark)| whole[*at] != *mark) {
        return None;
    }
    let [year, month, day] = [number(&whole[..4])?, number(&whole[5..7])?, number(&whole[8..10])?];
    let [hour, minute, second] =
        [number(&whole[11..13])?, number(&whole[14..16])?, number(&whole[17..])?];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    if year < 1970 || !(1..=days).contains(&day) || !is_time {
        return None;
    }
    let nanos = match fraction.split_first() {
        None => 0,
        Some((b'.', digits)) if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_u32.pow(9 - u32::try_from(digits.len()).ok()?)
        }
        Some(_) => return None,
    };
    // Counted in years that begin in March, so that a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = u64::from(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1) - EPOCH_DAYS;
    let seconds = days * 86_400 + u64::from(hour * 3_600 + minute * 60 + second);
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Days from 1 March of the year 0 to the beginning of 1970.
const EPOCH_DAYS: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
                        xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";

    fn listing(content: &str) -> String {
        format!("{HEAD}{content}</ListBucketResult>")
    }

    fn seconds(text: &str) -> Option<u64> {
        let since = moment(text)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    #[test]
    fn a_page_is_read() {
        let page = parse(
            listing(
                "<Name>b</Name><Prefix/><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>\n \
                 <Contents><Key>a &amp; b&#x1;</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>\
                 <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><Size>434234</Size>\
                 <Owner><ID>x</ID><DisplayName></DisplayName></Owner><StorageClass>GLACIER</StorageClass>\
                 </Contents><Contents><Size>0</Size><Key>c</Key><StorageClass>STANDARD</StorageClass>\
                 </Contents><CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>\
                 <NextContinuationToken>1ueG==</NextContinuationToken>",
            )
            .as_bytes(),
        );
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_255_369_830);
        let expected = ListPage {
            objects: vec![
                ListedObject {
                    key: "a & b\u{1}".into(),
                    size_bytes: 434_234,
                    modified: Some(modified),
                    etag: Some("\"fba9dede5f27731c9771645a39863328\"".into()),
                    storage_class: Some("GLACIER".into()),
                },
                ListedObject { key: "c".into(), ..ListedObject::default() },
            ],
            prefixes: vec!["d/".into()],
            is_truncated: true,
            token: Some("1ueG==".into()),
        };
        assert_eq!(page, Some(expected));
    }

    #[test]
    fn names_are_decoded_where_the_store_says_that_it_encoded_them() {
        let keys = "<Contents><Key>a%2Bb+c%0A</Key><Size>1</Size></Contents>\
                    <CommonPrefixes><Prefix>d%25/</Prefix></CommonPrefixes>";
        let encoded = parse(listing(&format!("{keys}<EncodingType>url</EncodingType>")).as_bytes());
        let encoded = encoded.expect("a page");
        assert_eq!((encoded.objects[0].key.as_str(), &*encoded.prefixes[0]), ("a+b c\n", "d%/"));
        let plain = parse(listing(keys).as_bytes()).expect("a page");
        assert_eq!((plain.objects[0].key.as_str(), &*plain.prefixes[0]), ("a%2Bb+c%0A", "d%25/"));
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        let object = "<Contents><Key>a</Key><Size>1</Size></Contents>";
        assert!(parse(listing(object).as_bytes()).is_some());
        for content in [
            "<Contents><Key>a</Key></Contents>",
            "<Contents><Size>1</Size></Contents>",
            "<Contents><Key>a</Key><Size>-1</Size></Contents>",
            "<Contents><Key>a</Key><Size>1</Size>",
            "<Contents><Key>a</Size><Size>1</Key></Contents>",
            "<Contents><Key>a</Contents></Key>",
            "<Contents><Key><b>a</b></Key><Size>1</Size></Contents>",
            "<Contents><Key>a&bogus;</Key><Size>1</Size></Contents>",
            "<Contents><Key>a&#x110000;</Key><Size>1</Size></Contents>",
            "<Contents><Key>a&#+65;</Key><Size>1</Size></Contents>",
            "<Contents><Key>a&amp</Key><Size>1</Size></Contents>",
            "<Contents><Key>a\r\n</Key><Size>1</Size></Contents>",
            "<Contents><Key><![CDATA[a]]></Key><Size>1</Size></Contents>",
            "<Contents><!-- a --><Key>a</Key><Size>1</Size></Contents>",
            "<Contents><Key x='>'>a</Key><Size>1</Size></Contents>",
            "<Contents><Key x=\">\">a</Key><Size>1</Size></Contents>",
            "<Contents><Key>a</Key><Size>1</Size><LastModified>now</LastModified></Contents>",
            "<IsTruncated>maybe</IsTruncated>",
            "<EncodingType>base64</EncodingType>",
            "text",
            "</ListBucketResult><ListBucketResult>",
            "<?pi?>",
            "<a:b/>",
        ] {
            assert_eq!(parse(listing(content).as_bytes()), None, "{content}");
        }
        for xml in [
            "".to_owned(),
            "not xml".to_owned(),
            "<Error><Code>InternalError</Code></Error>".to_owned(),
            "<!DOCTYPE x [<!ENTITY a \"b\">]><ListBucketResult/>".to_owned(),
            listing(object).replace("</ListBucketResult>", ""),
            listing(object) + "<more/>",
            listing(&"<a>".repeat(100_000)),
        ] {
            assert_eq!(parse(xml.as_bytes()), None, "{}", &xml[..xml.len().min(80)]);
        }
        assert_eq!(parse(&[b'<', 0xff, b'>']), None);
        assert_eq!(
            parse(b"<ListBucketResult/>"),
            Some(parse(listing("").as_bytes()).expect("one"))
        );
    }

    #[test]
    fn moments_are_read_and_others_are_not() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59.999Z", Some(951_868_799)),
            ("2100-03-01T00:00:00.0Z", Some(4_107_542_400)),
            ("2026-11-30T20:17:46.123456789Z", Some(1_796_069_866)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-00T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00.0123456789Z", None),
            ("2026-01-01T00:00:00+00:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("", None),
            ("ü026-01-01T00:00:00Z", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        let fraction = moment("1970-01-01T00:00:00.25Z").expect("a moment");
        assert_eq!(fraction, SystemTime::UNIX_EPOCH + Duration::from_millis(250));
    }

    proptest::proptest! {
        /// Whatever is cut off a page or changed in it, what is read is a page or nothing, and never the
        /// end of the program.
        #[test]
        fn damage_is_survived(cut in 0_usize..600, at in 0_usize..600, byte in 0_u8..=255) {
            let object = "<Contents><Key>a&lt;b</Key><Size>12</Size>\
                          <LastModified>2009-10-12T17:50:30.000Z</LastModified></Contents>";
            let mut xml = listing(&object.repeat(3)).into_bytes();
            let whole = xml.len();
            xml.truncate(cut);
            if cut < whole {
                proptest::prop_assert_eq!(parse(&xml), None);
            }
            if let Some(damaged) = xml.get_mut(at) {
                *damaged = byte;
            }
            let _ = parse(&xml);
        }
    }
}
