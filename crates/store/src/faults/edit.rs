//! Editing messages: headers, queries, and the XML of responses.
//!
//! The XML is edited as text. What the store writes is plain: no attributes that matter, no comments, no
//! CDATA; a parser would buy nothing.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::action::Pairs;
use super::script::fits;

/// Sets headers; those that cannot be headers were refused with the script.
pub(super) fn set_headers(headers: &mut HeaderMap, pairs: &Pairs) {
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

/// Removes headers by name or, with a `*` at the end, by how they begin.
pub(super) fn remove_headers(headers: &mut HeaderMap, patterns: &[String]) {
    for pattern in patterns {
        let pattern = pattern.to_ascii_lowercase();
        let fitting: Vec<_> =
            headers.keys().filter(|name| fits(&pattern, name.as_str())).cloned().collect();
        for name in fitting {
            headers.remove(name);
        }
    }
}

/// A target with other parameters: `set` in the place of what has the same name, without `removed`.
pub(super) fn with_query(uri: &Uri, set: &Pairs, removed: &[String]) -> Uri {
    let gone = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        set.iter().any(|(other, _)| other == name) || removed.iter().any(|other| other == name)
    };
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let kept = kept.filter(|pair| !gone(pair)).map(str::to_owned);
    let query: Vec<String> =
        kept.chain(set.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let target = format!("{}{mark}{}", uri.path(), query.join("&"));
    target.parse().unwrap_or_else(|_| uri.clone())
}

/// Sets the text of every element called `name`; adds one at the end of the document where there is none.
pub(super) fn set_element(xml: &mut String, name: &str, text: &str) {
    let element = format!("<{name}>{}</{name}>", escape(text));
    let mut from = 0;
    let mut found = false;
    while let Some((start, end)) = element_at(xml, from, name) {
        xml.replace_range(start..end, &element);
        from = start + element.len();
        found = true;
    }
    if !found && let Some(end) = xml.rfind("</") {
        xml.insert_str(end, &element);
    }
}

/// Removes every element called so or, with a `*` at the end, whose name begins so.
pub(super) fn remove_element(xml: &mut String, pattern: &str) {
    let mut from = 0;
    while let Some(open) = xml[from..].find('<').map(|at| from + at) {
        let name: String =
            xml[open + 1..].chars().take_while(char::is_ascii_alphanumeric).collect();
        from = open + 1;
        if !name.is_empty()
            && fits(pattern, &name)
            && let Some((start, end)) = element_at(xml, open, &name)
        {
            xml.replace_range(start..end, "");
            from = start;
        }
    }
}

/// Reverses the order of all elements called so, wherever they are.
pub(super) fn reverse_elements(xml: &mut String, name: &str) {
    let mut places = Vec::new();
    while let Some(place) = element_at(xml, places.last().map_or(0, |(_, end)| *end), name) {
        places.push(place);
    }
    let elements: Vec<String> =
        places.iter().map(|(start, end)| xml[*start..*end].to_owned()).collect();
    // From the last place on, so that those before stay where they are.
    for ((start, end), element) in places.into_iter().rev().zip(elements) {
        xml.replace_range(start..end, &element);
    }
}

/// Where the next element of the name is, from its first to behind its last character.
fn element_at(xml: &str, from: usize, name: &str) -> Option<(usize, usize)> {
    let open = format!("<{name}");
    let mut from = from;
    loop {
        let start = from + xml[from..].find(&open)?;
        let after = start + open.len();
        from = after;
        let rest = &xml[after..];
        // Not another element whose name begins so.
        if !rest.starts_with(['>', ' ', '/']) {
            continue;
        }
        let tag_end = after + rest.find('>')? + 1;
        if xml[..tag_end].ends_with("/>") {
            return Some((start, tag_end));
        }
        let close = format!("</{name}>");
        return Some((start, tag_end + xml[tag_end..].find(&close)? + close.len()));
    }
}

/// Takes `-N` off of composite checksums in elements.
pub(super) fn strip_suffixes(xml: &mut String) {
    for name in
        ["ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"]
    {
        let mut from = 0;
        while let Some((start, end)) = element_at(xml, from, name) {
            let text = xml[start..end].split(['<', '>']).nth(2).unwrap_or_default();
            let element = format!("<{name}>{}</{name}>", without_suffix(text));
            xml.replace_range(start..end, &element);
            from = start + element.len();
        }
    }
}

/// Takes `-N` off of composite checksums in headers.
pub(super) fn strip_header_suffixes(headers: &mut HeaderMap) {
    for (name, value) in headers {
        let is_sum = name.as_str().starts_with(CHECKSUM) && name != "x-amz-checksum-type";
        let text = value.to_str().map(without_suffix);
        if is_sum && let Some(bare) = text.ok().and_then(|text| HeaderValue::from_str(text).ok()) {
            *value = bare;
        }
    }
}

/// What the names of all headers with checksums begin with.
pub(super) const CHECKSUM: &str = "x-amz-checksum-";

/// The usual base64 has no `-`.
fn without_suffix(sum: &str) -> &str {
    sum.split('-').next().unwrap_or_default()
}

/// Text as XML has it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "<?xml version=\"1.0\"?><List xmlns=\"x\"><Part><ETag>a</ETag>\
                        <ETagX>keep</ETagX></Part><Part><ETag>b</ETag><Sum/></Part></List>";

    #[test]
    fn elements_are_set_everywhere_or_added() {
        let mut xml = LIST.to_owned();
        set_element(&mut xml, "ETag", "<c>");
        assert_eq!(xml.matches("<ETag>&lt;c&gt;</ETag>").count(), 2);
        assert!(xml.contains("<ETagX>keep</ETagX>"), "{xml}");
        set_element(&mut xml, "IsTruncated", "true");
        assert!(xml.ends_with("</Part><IsTruncated>true</IsTruncated></List>"), "{xml}");
    }

    #[test]
    fn elements_are_removed() {
        for (pattern, expected) in [
            ("Sum", LIST.replace("<Sum/>", "")),
            ("ETag", LIST.replace("<ETag>a</ETag>", "").replace("<ETag>b</ETag>", "")),
            ("None", LIST.to_owned()),
            ("Part", "<?xml version=\"1.0\"?><List xmlns=\"x\"></List>".to_owned()),
        ] {
            let mut xml = LIST.to_owned();
            remove_element(&mut xml, pattern);
            assert_eq!(xml, expected, "{pattern}");
        }
        let mut xml = LIST.to_owned();
        remove_element(&mut xml, "ETag*");
        assert!(xml.ends_with("<Part></Part><Part><Sum/></Part></List>"), "{xml}");
    }

    #[test]
    fn elements_are_reversed() {
        let mut xml = "<L><K>longest</K>1<K>mid</K>2<K/>3</L>".to_owned();
        reverse_elements(&mut xml, "K");
        assert_eq!(xml, "<L><K/>1<K>mid</K>2<K>longest</K>3</L>");
    }

    #[test]
    fn suffixes_are_stripped() {
        let mut xml = "<A><ChecksumCRC32>AAAA==-3</ChecksumCRC32><ETag>x-3</ETag></A>".to_owned();
        strip_suffixes(&mut xml);
        assert_eq!(xml, "<A><ChecksumCRC32>AAAA==</ChecksumCRC32><ETag>x-3</ETag></A>");
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-checksum-crc32", HeaderValue::from_static("AAAA==-3"));
        headers.insert("x-amz-mp-parts-count", HeaderValue::from_static("a-3"));
        strip_header_suffixes(&mut headers);
        assert_eq!(headers["x-amz-checksum-crc32"], "AAAA==");
        assert_eq!(headers["x-amz-mp-parts-count"], "a-3");
    }

    #[test]
    fn queries() {
        let edited = |uri: &str, set: &[(&str, &str)], removed: &[&str]| {
            let set = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let removed: Vec<_> = removed.iter().map(|name| (*name).to_owned()).collect();
            with_query(&uri.parse().unwrap(), &set, &removed).to_string()
        };
        assert_eq!(
            edited("/b/k?uploadId=1", &[("max-parts", "2")], &[]),
            "/b/k?uploadId=1&max-parts=2"
        );
        assert_eq!(edited("/b?a=1&b=2", &[("a", "3")], &["b"]), "/b?a=3");
        assert_eq!(edited("/b?a=1", &[], &["a"]), "/b");
    }
}
