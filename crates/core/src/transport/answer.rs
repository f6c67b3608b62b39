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

/// How an answer to the completion ends. An error counts: it is one, and the SDK reads which.
const ENDS: [&[u8]; 3] = [b"CompleteMultipartUploadResult>", b"Error>", b"Error/>"];

/// The longest of [`ENDS`].
const END_BYTES: usize = ENDS[0].len();

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
        *response.body_mut() = if operation == "CompleteMultipartUpload" && is_success {
            SdkBody::from_body_1_x(Limited::new(Whole::new(body), MAX_ANSWER_BYTES))
        } else {
            SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER_BYTES))
        };
        Ok(())
    }
}

/// The answer to a completion, without the blanks that a store sends while it is at work, which an
/// XML declaration must not follow; an error if it ends before its end.
struct Whole {
    answer: SdkBody,
    has_begun: bool,
    /// The last bytes that are no blanks.
    tail: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[error("it ends too early")]
struct CutShort;

impl Whole {
    fn new(answer: SdkBody) -> Self {
        Self { answer, has_begun: false, tail: Vec::new() }
    }

    fn remember(&mut self, bytes: &[u8]) {
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
                let is_whole = ENDS.iter().any(|end| self.tail.ends_with(end));
                return Poll::Ready((!is_whole).then(|| Err(CutShort.into())));
            };
            // Trailers say nothing here.
            let Ok(mut bytes) = frame?.into_data() else { continue };
            if !self.has_begun {
                bytes = bytes.slice_ref(bytes.trim_ascii_start());
                self.has_begun = !bytes.is_empty();
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

    /// What is read of an answer that comes in these pieces.
    fn read(pieces: &[&'static str]) -> Option<String> {
        let frames: Vec<Result<_, BoxError>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        let body = SdkBody::from_body_1_x(StreamBody::new(futures::stream::iter(frames)));
        let read = futures::executor::block_on(Whole::new(body).collect()).ok()?;
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
}
