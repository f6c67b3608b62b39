//! What the SDK gets to read of a store's answer.
//!
//! It reads every answer but an object's bytes into memory, whatever its length, and believes what
//! parses. A store that ignores `?attributes` answers with the whole object; one that puts parts
//! together begins its answer before it knows the end, and may cut it short. So an answer is bounded
//! here, and the one that says a multipart object is there has to be whole. A refusal is given along
//! what was asked: by whom and where, which it says nothing of and is understood by.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Limited;

use super::direct::Patterns;
use super::place::Asked;

/// The longest answer that is read: a full page of a listing, 1,000 keys of 1,024 bytes of which
/// each may be written as three.
pub(super) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Requests whose answer a store may begin before it knows the end.
const SLOW: [&str; 3] = ["CompleteMultipartUpload", "CopyObject", "UploadPartCopy"];

/// How an answer to one of them ends. An error counts: it is one, and the SDK reads which.
const ENDS: [&[u8]; 5] = [
    b"CompleteMultipartUploadResult>",
    b"CopyObjectResult>",
    b"CopyPartResult>",
    b"Error>",
    b"Error/>",
];

/// The longest of [`ENDS`].
const END_BYTES: usize = ENDS[0].len();

/// What an answer to the deletion of many is called, at its begin and at its end.
const DELETED: &[u8] = b"DeleteResult";

/// Within so many bytes an answer says what it is, declaration and all.
const HEAD_BYTES: usize = 512;

/// Stands between the connection and the SDK in every request.
#[derive(Debug)]
pub(super) struct Answers {
    patterns: Patterns,
}

impl Answers {
    /// One that lets `patterns` look at what is asked for.
    pub(super) fn new(patterns: Patterns) -> Self {
        Self { patterns }
    }
}

impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "brigade answers"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let asked = Asked::of(context.request(), settings);
        settings.interceptor_state().store_put(asked);
        let operation = settings.load::<Metadata>().map_or("", Metadata::name);
        if matches!(operation, "PutObject" | "GetObject" | "ListObjectsV2") {
            self.patterns.learn(context.request(), settings);
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = settings.load::<Metadata>().map_or("", Metadata::name);
        let response = context.response_mut();
        let is_success = response.status().is_success();
        if !is_success && let Some(asked) = settings.load::<Asked>() {
            response.add_extension(asked.clone());
        }
        if operation == "GetObject" && is_success {
            return Ok(());
        }
        let body = response.take_body();
        let whole = match operation {
            slow if SLOW.contains(&slow) && is_success => Some(Expected::Slow),
            "DeleteObjects" if is_success => Some(Expected::Deletion),
            _ => None,
        };
        *response.body_mut() = match whole {
            Some(what) => {
                SdkBody::from_body_1_x(Limited::new(Whole::new(body, what), MAX_ANSWER_BYTES))
            }
            None => SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER_BYTES)),
        };
        Ok(())
    }
}

/// What an answer that has to be whole is of.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Of one of [`SLOW`].
    Slow,
    /// Cut short, it would tell of fewer failures than there are.
    Deletion,
}

/// Such an answer, without the blanks that a store sends while it is at work, which an XML declaration
/// must not follow; an error if it ends before its end.
struct Whole {
    answer: SdkBody,
    what: Expected,
    /// The first bytes, [`HEAD_BYTES`] at most.
    head: Vec<u8>,
    len_bytes: usize,
    /// The last bytes that are no blanks.
    tail: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[error("it ends too early")]
struct CutShort;

impl Whole {
    fn new(answer: SdkBody, what: Expected) -> Self {
        Self { answer, what, head: Vec::new(), len_bytes: 0, tail: Vec::new() }
    }

    fn is_whole(&self) -> bool {
        let ends_with = |end: &[u8]| self.tail.ends_with(end);
        match self.what {
            Expected::Slow => ENDS.iter().any(|end| ends_with(end)),
            Expected::Deletion => {
                let is_one = self.head.windows(DELETED.len()).any(|window| window == DELETED);
                // One that tells of nothing may be a single element, with its name space in it.
                let is_empty = self.len_bytes == self.head.len() && ends_with(b"/>");
                // What is no such answer is the SDK's to refuse.
                !is_one || is_empty || ends_with(b"/DeleteResult>")
            }
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.len_bytes += bytes.len();
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        let ink = bytes.iter().rev().filter(|byte| !byte.is_ascii_whitespace());
        let latest: Vec<u8> = ink.take(END_BYTES).copied().collect();
        self.tail.extend(latest.iter().rev());
        self.tail.drain(..self.tail.len().saturating_sub(END_BYTES));
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.answer).poll_frame(context)) else {
                return Poll::Ready((!self.is_whole()).then(|| Err(CutShort.into())));
            };
            // Trailers say nothing here.
            let Ok(mut bytes) = frame?.into_data() else { continue };
            if self.len_bytes == 0 {
                bytes = bytes.slice_ref(bytes.trim_ascii_start());
            }
            if !bytes.is_empty() {
                self.remember(&bytes);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// What is read of an answer to a completion that comes in these pieces.
    fn read(pieces: &[&'static str]) -> Option<String> {
        read_as(Expected::Slow, pieces)
    }

    fn read_as(what: Expected, pieces: &[&'static str]) -> Option<String> {
        let frames: Vec<Result<_, BoxError>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        let body = SdkBody::from_body_1_x(StreamBody::new(futures::stream::iter(frames)));
        let read = futures::executor::block_on(Whole::new(body, what).collect()).ok()?;
        String::from_utf8(read.to_bytes().into()).ok()
    }

    #[test]
    fn an_answer_begins_at_its_first_letter_and_has_an_end() {
        let whole = "<?xml?><CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
        assert_eq!(read(&[whole]).as_deref(), Some(whole));
        assert_eq!(read(&[" ", "\r\n", " ", whole, "\n", " "]), Some(format!("{whole}\n ")));
        let apart = ["<CompleteMultipartUploadResult></CompleteMultipart", "UploadResult>"];
        assert_eq!(read(&apart), Some(apart.concat()));
        assert!(read(&["  <Error><Code>InternalError</Code></Error>"]).is_some());
        for cut in ["", "  ", "<CompleteMultipartUploadResult><ETag>\"e", &whole[..whole.len() - 1]]
        {
            assert_eq!(read(&[cut]), None, "{cut}");
        }
    }

    #[test]
    fn an_answer_to_a_deletion_is_whole_or_none() {
        let read = |pieces: &[&'static str]| read_as(Expected::Deletion, pieces);
        for whole in [
            "<DeleteResult/>",
            "<?xml version=\"1.0\"?>\n<DeleteResult xmlns=\"http://s3.amazonaws.com/x/\"/>\n",
            "<DeleteResult><Error><Key>a</Key></Error></DeleteResult>",
            // Whatever else it is, it is no such answer.
            "<Error><Code>SlowDown</Code></Error>",
            "",
        ] {
            assert_eq!(read(&[whole]).as_deref(), Some(whole));
        }
        let long: &'static str = Box::leak("<a/>".repeat(HEAD_BYTES).into_boxed_str());
        for cut in [
            &["<DeleteResult>"][..],
            &["<DeleteResult><Error><Key>a</Key></Error>"],
            &["<Delete", "Result><Error><Key>a</Key></Err"],
            &["<DeleteResult>", long],
        ] {
            assert_eq!(read(cut), None, "{cut:?}");
        }
    }
}
