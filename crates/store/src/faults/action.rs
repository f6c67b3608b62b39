//! What can become of a request: the actions of a rule.
//!
//! Few and orthogonal: answering in the store's place, breaking off or stopping somewhere, damaging bytes,
//! editing what the store is asked and what it replies, and doing things late. Together they make every way
//! of misbehaving that is known of real stores.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::script::fits;

/// What becomes of a request. A rule's actions are carried out in the order of a request's life (what
/// concerns the request, then asking the store or answering, then what concerns the response), and in the
/// order they were given where they concern the same.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answers in the store's place.
    Answer(Answer),
    /// Ends the connection there. Before the response, the store was asked only if the place is
    /// [`Place::Response`] or later.
    Cut {
        /// Where.
        at: Place,
        /// With a TCP reset; otherwise with an orderly end.
        reset: bool,
    },
    /// Stops there for a while.
    Stall {
        /// Where.
        at: Place,
        /// For how long; `None`: until [`FaultHandle::release`](super::FaultHandle::release), or for ever.
        time: Option<Duration>,
    },
    /// Flips one bit; the length stays what it was. A body that is shorter than that is left alone.
    Flip {
        /// Whose.
        body: Side,
        /// Of which byte of the body, from 0.
        byte: u64,
        /// Which bit of it, from 0 to 7.
        bit: u8,
    },
    /// Shortens the response's body to this many bytes and says so in `Content-Length`: a well-formed
    /// response that is not what was asked for. All other headers stay, such as `Content-Range`.
    Truncate(u64),
    /// Carries out the request later, when something else was answered: by [`Action::Answer`], else by an end
    /// of the connection before the response. The body is kept in memory. `None`: when
    /// [`FaultHandle::release`](super::FaultHandle::release) says so.
    ApplyLate(Option<Duration>),
    /// Answers 200 at once, sends white space every `every` for at least `time` and until the store is done,
    /// and only then the body, be it of a success or an error: as S3 does for what takes long.
    Trickle {
        /// For how long.
        time: Duration,
        /// How often.
        every: Duration,
    },
    /// Sets headers of the request before the store sees it. Signatures are checked without that, as for
    /// all edits of requests.
    SetRequestHeaders(Pairs),
    /// Removes headers of the request before the store sees it; with a `*` at the end, all that begin so.
    RemoveRequestHeaders(Vec<String>),
    /// Sets parameters of the request's query before the store sees it. Values are taken as they are, so
    /// they come percent-encoded.
    SetQuery(Pairs),
    /// Removes parameters of the request's query before the store sees it.
    RemoveQuery(Vec<String>),
    /// Of a `DeleteObjects`, the store refuses these keys and deletes the others: a success that tells of
    /// failures.
    RefuseKeys(RefuseKeys),
    /// Sets the response's status.
    SetStatus(u16),
    /// Sets headers of the response.
    SetHeaders(Pairs),
    /// Removes headers of the response; with a `*` at the end, all that begin so.
    RemoveHeaders(Vec<String>),
    /// Sets the text of every XML element of the name in the response; where there is none, one is added at
    /// the end of the document.
    SetElements(Pairs),
    /// Removes every XML element of the name from the response, with all that is inside; with a `*` at the
    /// end, all whose name begins so.
    RemoveElements(Vec<String>),
    /// Reverses the order of the XML elements of the name in the response, such as the entries of a list.
    ReverseElements(Vec<String>),
    /// Replaces text in the response's body, wherever it occurs.
    Replace(Pairs),
    /// Adds the whole object's checksums, as `HeadObject` has them, to the response's headers.
    WholeChecksum,
    /// Takes the number of parts (`-N`) off of composite checksums in the response, be they in headers or
    /// elements.
    StripChecksumSuffix,
    /// The store's clock is off by so many seconds: `Date` says so, and signed requests that are more than
    /// 15 minutes from it get 403 `RequestTimeTooSkewed`.
    ShiftClock(i64),
    /// Whatever else there is to do to a response. Only in code, not in a file.
    Edit(Edit),
}

/// Names and values.
pub type Pairs = Vec<(String, String)>;

/// A place in a request's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After this many bytes of the request's body, as sent; 0 is before any is read. A body that is shorter
    /// counts as reaching it at its end.
    RequestBody(u64),
    /// When all of the request's body is there.
    RequestEnd,
    /// When the store did what was asked, before anything of the response is sent.
    Response,
    /// After the response's head and this many bytes of its body. A body with a `Content-Length` that is not
    /// longer does not reach it.
    ResponseBody(u64),
}

/// Whose body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request's, as sent (with the framing of `aws-chunked` bodies).
    Request,
    /// The response's.
    Response,
}

/// An answer in the store's place.
///
/// ```
/// use brigade_store::faults::{Action, Answer, Rule};
///
/// Rule::on("CompleteMultipartUpload").nth(1).then(Answer {
///     headers: vec![("Retry-After".into(), "1".into())],
///     applied: true,
///     ..Answer::new(500, "InternalError")
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The code of the `<Error>` in the body; without one, the body is empty.
    pub code: String,
    /// Its message. Default: that the fault was asked for.
    pub message: String,
    /// More elements of the `<Error>`.
    pub elements: Pairs,
    /// Headers.
    pub headers: Pairs,
    /// The whole body, instead of an `<Error>`.
    pub body: Option<String>,
    /// Whether the request's body is read off first, as the store itself does. Default: true.
    pub read_body: bool,
    /// Whether the store does what was asked first, and only its response is lost. Default: false.
    pub applied: bool,
}

impl Answer {
    /// An error as S3 words it.
    pub fn new(status: u16, code: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: "A fault that was asked for.".to_owned(),
            elements: Vec::new(),
            headers: Vec::new(),
            body: None,
            read_body: true,
            applied: false,
        }
    }

    /// This very body.
    pub fn with_body(status: u16, body: &str) -> Self {
        Self { body: Some(body.to_owned()), ..Self::new(status, "") }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// After the store did what was asked.
    #[must_use]
    pub fn after_applying(mut self) -> Self {
        self.applied = true;
        self
    }
}

/// Keys of a list that are refused one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefuseKeys {
    /// Which; with a `*` at the end, all that begin so.
    pub keys: Vec<String>,
    /// The code each is refused with.
    pub code: String,
}

impl RefuseKeys {
    pub(crate) fn holds(&self, key: &str) -> bool {
        self.keys.iter().any(|pattern| fits(pattern, key))
    }
}

impl From<Answer> for Action {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// A change to a response, in code.
#[derive(Clone)]
pub struct Edit(pub(crate) Arc<EditFn>);

pub(crate) type EditFn = dyn Fn(&mut http::response::Parts, &mut String) + Send + Sync;

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Edit(..)")
    }
}

/// The usual ones, in a few words.
impl Action {
    /// An error as S3 words it; the store is not asked.
    pub fn answer(status: u16, code: &str) -> Self {
        Answer::new(status, code).into()
    }

    /// The connection ends, with a reset, after so many bytes of the request's body. Nothing is applied.
    pub fn cut_request_body(bytes: u64) -> Self {
        Self::Cut { at: Place::RequestBody(bytes), reset: true }
    }

    /// The store does what was asked, and the connection ends without a response.
    pub fn swallow_response() -> Self {
        Self::Cut { at: Place::Response, reset: false }
    }

    /// The connection ends after so many bytes of the response's body, all of which arrive.
    pub fn cut_response_body(bytes: u64) -> Self {
        Self::Cut { at: Place::ResponseBody(bytes), reset: false }
    }

    /// Nothing more happens, until [`FaultHandle::release`](super::FaultHandle::release).
    pub fn stall(at: Place) -> Self {
        Self::Stall { at, time: None }
    }

    /// The response comes so much later.
    pub fn delay(time: Duration) -> Self {
        Self::Stall { at: Place::Response, time: Some(time) }
    }

    /// The lowest bit of a byte of the response's body is flipped.
    pub fn flip_response(byte: u64) -> Self {
        Self::Flip { body: Side::Response, byte, bit: 0 }
    }

    /// The lowest bit of a byte of the request's body is flipped.
    pub fn flip_request(byte: u64) -> Self {
        Self::Flip { body: Side::Request, byte, bit: 0 }
    }

    /// Of a `DeleteObjects`, the store refuses this key with this code, and deletes the others; with a `*` at
    /// the end, all that begin so.
    pub fn refuse_key(key: &str, code: &str) -> Self {
        Self::RefuseKeys(RefuseKeys { keys: vec![key.to_owned()], code: code.to_owned() })
    }

    /// One header of the request never reaches the store; with a `*` at the end, all that begin so.
    pub fn remove_request_header(name: &str) -> Self {
        Self::RemoveRequestHeaders(vec![name.to_owned()])
    }

    /// The response has this header.
    pub fn set_header(name: &str, value: &str) -> Self {
        Self::SetHeaders(vec![(name.to_owned(), value.to_owned())])
    }

    /// The response has no such header; with a `*` at the end, none that begins so.
    pub fn remove_header(name: &str) -> Self {
        Self::RemoveHeaders(vec![name.to_owned()])
    }

    /// The response has this text in every XML element of the name.
    pub fn set_element(name: &str, text: &str) -> Self {
        Self::SetElements(vec![(name.to_owned(), text.to_owned())])
    }

    /// The response has no such XML element; with a `*` at the end, none that begins so.
    pub fn remove_element(name: &str) -> Self {
        Self::RemoveElements(vec![name.to_owned()])
    }

    /// The request asks the store for this parameter.
    pub fn set_query(name: &str, value: &str) -> Self {
        Self::SetQuery(vec![(name.to_owned(), value.to_owned())])
    }

    /// Whatever else there is to do to a response: its status and headers, and its body as text.
    pub fn edit(
        change: impl Fn(&mut http::response::Parts, &mut String) + Send + Sync + 'static,
    ) -> Self {
        Self::Edit(Edit(Arc::new(change)))
    }

    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Answer(answer) => {
                check_status(answer.status)?;
                check_headers("answer.headers", &answer.headers)?;
                check_names("answer.elements", &answer.elements)
            }
            Self::Flip { bit, .. } if *bit > 7 => {
                Err(format!("`flip.bit` is {bit}; it is one of 0 to 7"))
            }
            Self::Trickle { every, .. } if every.is_zero() => {
                Err("`trickle.every` is 0; give it a time such as \"100ms\"".to_owned())
            }
            Self::SetStatus(status) => check_status(*status),
            Self::SetRequestHeaders(headers) => check_headers("set_request_headers", headers),
            Self::SetHeaders(headers) => check_headers("set_headers", headers),
            Self::SetElements(elements) => check_names("set_elements", elements),
            _ => Ok(()),
        }
    }
}

fn check_status(status: u16) -> Result<(), String> {
    match StatusCode::from_u16(status) {
        Ok(status) if !status.is_informational() && status.as_u16() < 600 => Ok(()),
        _ => Err(format!("status {status}; it is one of 200 to 599")),
    }
}

fn check_headers(key: &str, headers: &Pairs) -> Result<(), String> {
    for (name, value) in headers {
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            return Err(format!("`{key}` has {name:?} = {value:?}, which no HTTP header can be"));
        }
    }
    Ok(())
}

fn check_names(key: &str, elements: &Pairs) -> Result<(), String> {
    match elements
        .iter()
        .find(|(name, _)| name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()))
    {
        Some((name, _)) => Err(format!("`{key}` has {name:?}, which is no name of an XML element")),
        None => Ok(()),
    }
}
