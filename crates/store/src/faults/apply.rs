//! One request that a rule fired for, from its first byte to its response's last.
//!
//! The order is that of any request: its body comes in, the store is asked (or answered for), the response
//! goes out. Each action is looked for where it belongs.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use s3s::{Body, StdError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Release;
use super::action::{Action, Answer, Place, Side};
use super::body::{Event, Faulty};
use super::clock;
use super::edit::CHECKSUM;
use super::reply::{DECLARATION, edit_body, edit_head, gather, read_off};
use super::route::Rewrite;
use super::rule::Rule;
use super::wire::Fuse;
use crate::front::Front;

/// Longest body of a request that is applied late.
const MAX_LATE_BYTES: usize = 1 << 30;

/// The connection is to end, without a response to this request.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends here, as a fault that was asked for")]
pub(crate) struct Ended;

/// Attached to a response: whether what is left of its request's body is read off.
#[derive(Clone, Copy)]
pub(crate) struct ReadOff(pub(crate) bool);

/// A request, the rule that fired for it, and the means to end its connection.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) rule: Arc<Rule>,
    pub(crate) release: Release,
    pub(crate) fuse: Arc<Fuse>,
}

impl Exchange {
    /// The response to a request.
    pub(crate) async fn answer(
        self,
        front: Arc<Front>,
        mut parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Ended> {
        let method = parts.method.clone();
        if let Some(rewrite) = Rewrite::of(&self.rule) {
            parts.extensions.insert(rewrite);
        }
        let refused = self.actions().iter().find_map(|action| match action {
            Action::RefuseKeys(refused) => Some(refused.clone()),
            _ => None,
        });
        if let Some(refused) = refused {
            parts.extensions.insert(refused);
        }
        let trickle = self.actions().iter().find_map(|action| match action {
            Action::Trickle { time, every } => Some((*time, *every)),
            _ => None,
        });
        let response = match trickle {
            Some((time, every)) => self.clone().trickle(front, parts, body, time, every),
            None => self.reply(front, parts, body).await?,
        };
        Ok(self.damage(&method, response))
    }

    fn actions(&self) -> &[Action] {
        &self.rule.actions
    }

    /// What is replied, edited.
    async fn reply(
        &self,
        front: Arc<Front>,
        parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Ended> {
        let (method, whole) = (parts.method.clone(), self.whole_checksum(&parts));
        let response = self.ask(&front, parts, body).await?;
        let (mut head, mut body) = response.into_parts();
        if let Some(request) = whole
            && head.status.is_success()
            && let Ok(known) = front.open.call(request).await
        {
            let sums =
                known.headers().iter().filter(|(name, _)| name.as_str().starts_with(CHECKSUM));
            head.headers.extend(sums.map(|(name, value)| (name.clone(), value.clone())));
        }
        edit_head(self.actions(), &mut head);
        body = edit_body(self.actions(), &method, &mut head, body).await;
        for action in self.actions() {
            match action {
                Action::Stall { at: Place::Response, time } => {
                    self.release.clone().wait(*time).await;
                }
                Action::Cut { at: Place::Response, reset } => {
                    if method != Method::GET {
                        // What takes long may go on while its response is under way.
                        read_off(&mut body, u64::MAX).await;
                    }
                    return Err(self.end(*reset));
                }
                _ => {}
            }
        }
        Ok(Response::from_parts(head, body))
    }

    /// Asks the store, or answers for it.
    async fn ask(
        &self,
        front: &Arc<Front>,
        parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Ended> {
        let mut body = self.incoming(body).await;
        for action in self.actions() {
            match action {
                Action::Cut { at: Place::RequestBody(bytes), reset } => {
                    read_off(&mut body, *bytes).await;
                    return Err(self.end(*reset));
                }
                Action::Cut { at: Place::RequestEnd, reset } if self.late().is_none() => {
                    read_off(&mut body, u64::MAX).await;
                    return Err(self.end(*reset));
                }
                _ => {}
            }
        }
        let skewed = self.actions().iter().find_map(|action| match action {
            Action::ShiftClock(seconds) => clock::refusal(&parts, clock::shifted(*seconds)),
            _ => None,
        });
        let given = self.actions().iter().find_map(|action| match action {
            Action::Answer(answer) => Some(answer),
            _ => None,
        });
        let answer = skewed.as_ref().or(given);
        if let Some(due) = self.late() {
            let Some(bytes) = gather(body, MAX_LATE_BYTES).await else {
                return Err(self.end(true));
            };
            let front = Arc::clone(front);
            tokio::spawn(async move {
                due.await;
                let mut response = front.serve(parts, Body::from(bytes)).await;
                read_off(response.body_mut(), u64::MAX).await;
            });
            return answer.map(Answer::response).ok_or_else(|| self.end(self.resets()));
        }
        let Some(answer) = answer else { return Ok(front.serve(parts, body).await) };
        if answer.applied {
            read_off(front.serve(parts, body).await.body_mut(), u64::MAX).await;
        } else if answer.read_body && self.actions().iter().any(reads_body) {
            // What stalls it does so as it is read; and a response under way is too late to read it after.
            read_off(&mut body, u64::MAX).await;
        }
        let mut response = answer.response();
        response.extensions_mut().insert(ReadOff(answer.read_body));
        Ok(response)
    }

    /// A request's body with what is to happen to it.
    async fn incoming(&self, body: Body) -> Body {
        let waits = |time: &Option<Duration>| self.release.clone().wait(*time);
        if body.is_end_stream() {
            for action in self.actions() {
                if let Action::Stall { at: Place::RequestBody(_) | Place::RequestEnd, time } =
                    action
                {
                    waits(time).await;
                }
            }
            return body;
        }
        let mark = |action: &Action| match action {
            Action::Stall { at: Place::RequestBody(bytes), time } => {
                Some((*bytes, Event::Wait(Box::pin(waits(time)))))
            }
            Action::Stall { at: Place::RequestEnd, time } => {
                Some((u64::MAX, Event::Wait(Box::pin(waits(time)))))
            }
            Action::Flip { body: Side::Request, byte, bit } => Some((*byte, Event::Flip(*bit))),
            _ => None,
        };
        Faulty::wrap(body, self.actions().iter().filter_map(mark).collect())
    }

    /// A response's body with what is to happen to it.
    fn damage(&self, method: &Method, mut response: Response<Body>) -> Response<Body> {
        if method == Method::HEAD {
            return response;
        }
        let mut marks = Vec::new();
        for action in self.actions() {
            match action {
                Action::Stall { at: Place::ResponseBody(bytes), time } => {
                    marks.push((*bytes, Event::Wait(Box::pin(self.release.clone().wait(*time)))));
                }
                Action::Flip { body: Side::Response, byte, bit } => {
                    marks.push((*byte, Event::Flip(*bit)));
                }
                Action::Cut { at: Place::ResponseBody(bytes), reset } => {
                    marks.push((*bytes, Event::Cut(Arc::clone(&self.fuse), *reset)));
                }
                Action::Truncate(bytes) => {
                    marks.push((*bytes, Event::End));
                    shorten(&mut response, *bytes);
                }
                _ => {}
            }
        }
        response.map(|body| Faulty::wrap(body, marks))
    }

    /// Answers at once, with white space until there is more to say.
    fn trickle(
        self,
        front: Arc<Front>,
        parts: Parts,
        body: Body,
        time: Duration,
        every: Duration,
    ) -> Response<Body> {
        // One frame at a time: what is cut off at a byte counts what was sent.
        let (sender, mut frames) = mpsc::channel::<Result<Frame<bytes::Bytes>, StdError>>(1);
        let actions = Arc::clone(&self.rule);
        // On its own, because S3 carries out what it was asked even when the client is gone.
        tokio::spawn(async move {
            let text = |text: String| Ok(Frame::data(text.into()));
            // Whether the client is still there is not looked at.
            let _ = sender.send(text(DECLARATION.to_owned())).await;
            let began = Instant::now();
            let mut work = Box::pin(async {
                let replied = self.reply(front, parts, body).await?;
                gather(replied.into_body(), usize::MAX).await.ok_or(Ended)
            });
            let mut done = None;
            while done.is_none() || began.elapsed() < time {
                tokio::select! {
                    result = &mut work, if done.is_none() => done = Some(result),
                    // Left out where the connection takes no more: the work goes on all the same.
                    () = tokio::time::sleep(every) => drop(sender.try_send(text(" ".to_owned()))),
                }
            }
            let last = match done {
                Some(Ok(bytes)) => {
                    let document = String::from_utf8_lossy(&bytes);
                    text(document.strip_prefix(DECLARATION).unwrap_or(&document).to_owned())
                }
                // Breaks the body off, and with it the connection.
                _ => Err(Ended.into()),
            };
            let _ = sender.send(last).await;
        });
        let stream = futures::stream::poll_fn(move |cx| frames.poll_recv(cx));
        let response = Response::new(Body::http_body_unsync(StreamBody::new(stream)));
        let (mut head, body) = response.into_parts();
        head.status = StatusCode::OK;
        let xml = HeaderValue::from_static("application/xml");
        head.headers.insert(header::CONTENT_TYPE, xml);
        edit_head(&actions.actions, &mut head);
        Response::from_parts(head, body)
    }

    /// What to wait for before the request is applied, if not nothing.
    fn late(&self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        self.actions().iter().find_map(|action| match action {
            Action::ApplyLate(time) => Some(self.release.clone().wait(*time)),
            _ => None,
        })
    }

    /// Whether the connection is to end with a reset, where it ends without a response.
    fn resets(&self) -> bool {
        self.actions().iter().any(|action| matches!(action, Action::Cut { reset: true, .. }))
    }

    fn end(&self, reset: bool) -> Ended {
        self.fuse.blow(reset);
        Ended
    }

    /// Asks for what the object's whole checksums are, where the response is to have them.
    fn whole_checksum(&self, parts: &Parts) -> Option<Request<Body>> {
        self.actions().iter().find(|action| matches!(action, Action::WholeChecksum))?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = parts.uri.path().parse().ok()?;
        let needed = |name: &str| {
            name == "host" || name.starts_with("x-amz-server-side-encryption-customer-")
        };
        let kept = parts.headers.iter().filter(|(name, _)| needed(name.as_str()));
        request.headers_mut().extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        let enabled = HeaderValue::from_static("ENABLED");
        request.headers_mut().insert("x-amz-checksum-mode", enabled);
        Some(request)
    }
}

/// Whether the request's body is to be read by whoever answers it.
fn reads_body(action: &Action) -> bool {
    matches!(
        action,
        Action::Stall { at: Place::RequestBody(_) | Place::RequestEnd, .. }
            | Action::Trickle { .. }
    )
}

/// Makes `Content-Length` what is left of a body.
fn shorten(response: &mut Response<Body>, bytes: u64) {
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length {
        let shorter = HeaderValue::from(length.min(bytes));
        response.headers_mut().insert(header::CONTENT_LENGTH, shorter);
    }
}
