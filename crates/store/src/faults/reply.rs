//! The response's side of a fault: answers in the store's place, and edits to what the store replied.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, response};
use http_body::Body as _;
use http_body_util::BodyExt;
use s3s::Body;

use super::action::{Action, Answer};
use super::clock;
use super::edit::{
    escape, remove_element, remove_headers, reverse_elements, set_element, set_headers,
    strip_header_suffixes, strip_suffixes,
};

/// Longest body that is edited. Larger ones are objects' content, and go unedited.
const MAX_EDITED_BYTES: u64 = 64 << 20;

impl Answer {
    /// As it goes to the connection.
    pub(crate) fn response(&self) -> Response<Body> {
        let body = match &self.body {
            Some(body) => body.clone(),
            None if self.code.is_empty() => String::new(),
            None => self.document(),
        };
        let mut response = Response::new(Body::from(body));
        // Checked with the script.
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let xml = HeaderValue::from_static("application/xml");
        response.headers_mut().insert(header::CONTENT_TYPE, xml);
        set_headers(response.headers_mut(), &self.headers);
        response
    }

    fn document(&self) -> String {
        let mut elements = String::new();
        for (name, text) in &self.elements {
            elements.extend(["<", name, ">", &escape(text), "</", name, ">"]);
        }
        format!(
            "{DECLARATION}\n<Error><Code>{}</Code><Message>{}</Message>{elements}</Error>",
            escape(&self.code),
            escape(&self.message)
        )
    }
}

/// What a document of XML begins with.
pub(super) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/// Edits a response's status and headers.
pub(super) fn edit_head(actions: &[Action], head: &mut response::Parts) {
    for action in actions {
        match action {
            Action::SetStatus(status) => {
                head.status = StatusCode::from_u16(*status).unwrap_or(head.status);
            }
            Action::SetHeaders(pairs) => set_headers(&mut head.headers, pairs),
            Action::RemoveHeaders(names) => remove_headers(&mut head.headers, names),
            Action::StripChecksumSuffix => strip_header_suffixes(&mut head.headers),
            Action::ShiftClock(seconds) => {
                let date = clock::http_date(clock::shifted(*seconds));
                if let Ok(date) = HeaderValue::try_from(date) {
                    head.headers.insert(header::DATE, date);
                }
            }
            _ => {}
        }
    }
}

/// Edits a response's body, as text.
pub(super) async fn edit_body(
    actions: &[Action],
    method: &Method,
    head: &mut response::Parts,
    body: Body,
) -> Body {
    let edits = |action: &Action| {
        use Action::{
            Edit, RemoveElements, Replace, ReverseElements, SetElements, StripChecksumSuffix,
        };
        matches!(
            action,
            SetElements(_)
                | RemoveElements(_)
                | ReverseElements(_)
                | Replace(_)
                | StripChecksumSuffix
                | Edit(_)
        )
    };
    if !actions.iter().any(edits) {
        return body;
    }
    let too_long = body.size_hint().lower() > MAX_EDITED_BYTES;
    if too_long || method == Method::HEAD {
        // What has no text to edit may still have its head edited.
        edit_text(actions, head, &mut String::new());
        return body;
    }
    let Some(bytes) = gather(body, usize::MAX).await else { return Body::empty() };
    let (edited, bytes) = match String::from_utf8(bytes.into()) {
        Ok(mut text) => {
            let before = text.clone();
            edit_text(actions, head, &mut text);
            (text != before, text.into_bytes())
        }
        Err(binary) => {
            edit_text(actions, head, &mut String::new());
            (false, binary.into_bytes())
        }
    };
    if edited && head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    Body::from(bytes)
}

fn edit_text(actions: &[Action], head: &mut response::Parts, text: &mut String) {
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let is_xml = text.starts_with("<?xml")
        && content_type.is_none_or(|kind| kind.to_str().is_ok_and(|kind| kind.contains("xml")));
    for action in actions {
        match action {
            Action::SetElements(pairs) if is_xml => {
                for (name, value) in pairs {
                    set_element(text, name, value);
                }
            }
            Action::RemoveElements(names) if is_xml => {
                for name in names {
                    remove_element(text, name);
                }
            }
            Action::ReverseElements(names) if is_xml => {
                for name in names {
                    reverse_elements(text, name);
                }
            }
            Action::StripChecksumSuffix if is_xml => strip_suffixes(text),
            Action::Replace(pairs) => {
                for (from, to) in pairs {
                    *text = text.replace(from.as_str(), to);
                }
            }
            Action::Edit(edit) => (edit.0)(head, text),
            _ => {}
        }
    }
}

/// All of a body; `None` where it breaks off or is longer than that.
pub(super) async fn gather(mut body: Body, limit: usize) -> Option<Bytes> {
    let mut gathered = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            gathered.extend_from_slice(&data);
            if gathered.len() > limit {
                return None;
            }
        }
    }
    Some(gathered.into())
}

/// Reads a body until its end or this many bytes.
pub(super) async fn read_off(body: &mut Body, bytes: u64) {
    let mut read = 0;
    while read < bytes
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}
