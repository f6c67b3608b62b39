//! One range, to its last byte: a broken body goes on from the byte it reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{AttemptBytes, Flow};
use crate::limits::MIB;
use crate::plan::Part;
use crate::progress::Event;
use crate::schedule::{LaneId, Memory, RetryScope};
use crate::transport::Pin;
use crate::turn::Turn;
use crate::url::S3Url;

/// An attempt that moved this much was no wasted one: a long range over a path that breaks every
/// few hundred megabytes must not use up its attempts.
const PROGRESS_BYTES: u64 = MIB;

/// What all ranges of a download have in common.
pub(crate) struct Request {
    pub(crate) engine: Engine,
    pub(crate) url: S3Url,
    pub(crate) pin: Arc<Pin>,
    pub(crate) total_bytes: u64,
    pub(crate) scope: RetryScope,
    pub(crate) flow: Flow,
}

impl Request {
    /// Tells of a part that [`fetch_again`] brought, of whose bytes nobody was told.
    pub(super) fn tell_again(&self, part: Part) {
        self.flow.events().moved(part.len_bytes);
        let size_bytes = part.len_bytes;
        self.flow.events().emit(|| Event::PartDone {
            part: part.number,
            size_bytes,
            elapsed_ms: 0,
        });
    }
}

/// Where the bytes of a range go.
pub(crate) trait Sink: Send {
    /// Takes the next ones.
    fn take(&mut self, chunk: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Waits until all of them are where they go.
    fn end(&mut self) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

impl<F: FnMut(Bytes) -> Result<()> + Send> Sink for F {
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self(chunk)
    }
}

/// Fetches `part` over the connections of `lane`, and gives every chunk, in order and exactly
/// once, to `sink`; nothing more is received before that is done with it.
pub(crate) async fn fetch(
    request: &Request,
    lane: LaneId,
    part: Part,
    sink: &mut impl Sink,
) -> Result<()> {
    let started = Instant::now();
    request
        .flow
        .events()
        .emit(|| Event::PartStarted { part: part.number, size_bytes: part.len_bytes });
    let mut attempts = request.engine.retry().attempts(&request.scope, Some(part.number));
    let mut told = request.flow.attempt();
    let mut reached = 0;
    while reached < part.len_bytes {
        attempts.turn().await;
        let before = reached;
        let Err(error) = fetch_once(request, lane, part, &mut reached, &mut told, sink).await
        else {
            break;
        };
        if reached - before >= PROGRESS_BYTES {
            attempts.progressed();
        }
        let waited = attempts.failed(error).await;
        waited.map_err(|error| error.in_part(part.number))?;
    }
    attempts.succeeded();
    sink.end().await?;
    told.keep();
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    request.flow.events().emit(|| Event::PartDone {
        part: part.number,
        size_bytes: part.len_bytes,
        elapsed_ms,
    });
    Ok(())
}

/// One more attempt at the same part beside the first one, over another connection, into memory: of two
/// that write to the same place, the one that is given up might write last. Nobody is told of its bytes.
pub(super) async fn fetch_again(
    request: &Request,
    lane: LaneId,
    part: Part,
    mut sink: impl FnMut(&Bytes) + Send,
) -> Result<(Vec<Bytes>, Memory)> {
    let window = request.scope.window();
    let memory = window.spare(part.len_bytes).ok_or_else(|| {
        Error::new(ErrorKind::Io, super::OPERATION, request.url.to_string(), "no memory is left")
    })?;
    let mut told = request.flow.unheard().attempt();
    let (mut chunks, mut reached) = (Vec::new(), 0);
    fetch_once(request, lane, part, &mut reached, &mut told, &mut |chunk: Bytes| {
        sink(&chunk);
        chunks.push(chunk);
        Ok(())
    })
    .await?;
    Ok((chunks, memory))
}

/// One attempt, from the byte reached to the end of the part.
async fn fetch_once(
    request: &Request,
    lane: LaneId,
    part: Part,
    reached: &mut u64,
    told: &mut AttemptBytes,
    sink: &mut impl Sink,
) -> Result<()> {
    let (url, pin) = (&request.url, &request.pin);
    let broken = |detail: String| {
        Error::new(ErrorKind::Unreachable, super::OPERATION, url.to_string(), detail)
    };
    let (offset, rest) = (part.offset_bytes + *reached, part.len_bytes - *reached);
    let calls = request.engine.calls_on(lane);
    let asked = Instant::now();
    let mut range = calls.get_range(url, pin, offset, rest, request.total_bytes).await?;
    let answered = Instant::now();
    request.flow.answered(Duration::ZERO, answered - asked);
    let mut taking = Duration::ZERO;
    let turn = Turn::mine();
    loop {
        if let Some(turn) = &turn {
            let waiting = Instant::now();
            turn.comes().await;
            taking += waiting.elapsed();
        }
        let Some(chunk) = range.next().await? else { break };
        let len = chunk.len() as u64;
        if len > part.len_bytes - *reached {
            return Err(broken("the store sent more bytes than it was asked for".into()));
        }
        let given = Instant::now();
        sink.take(chunk).await?;
        taking += given.elapsed();
        *reached += len;
        told.moved(len);
        request.flow.limited(len).await;
    }
    if *reached < part.len_bytes {
        return Err(broken(format!("the body ended {} bytes early", part.len_bytes - *reached)));
    }
    request.flow.received(answered.elapsed().saturating_sub(taking));
    Ok(())
}
