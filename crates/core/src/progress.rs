//! The one seam between the engine and whatever shows its work: a channel of [`Event`]s.
//!
//! The engine emits; a command, a window or a log receives. Emitting never blocks and never waits:
//! a terminal stopped with Ctrl-S must not stop a transfer. The queue stays bounded all the same:
//! moved bytes, which come by the thousand a second, are summed into one pending [`Event::Moved`]; what is
//! told of each of many objects holds up the search for more of them; and all the others are bounded by
//! parts and retries.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use futures::channel::mpsc;
use serde::Serialize;

/// Events that may wait for a listener before a job of many objects waits for it: some megabytes.
const MAX_WAITING: u64 = 20_000;

/// How long such a job waits before it looks again.
const HEARD_AFTER: std::time::Duration = std::time::Duration::from_millis(20);

/// What a transfer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// From a file into the store.
    Upload,
    /// From the store into a file or a writer.
    Download,
    /// From one object to another, on the store or through this machine.
    Copy,
}

impl Operation {
    /// The lower-case word for it, as in reports and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Copy => "copy",
        }
    }
}

/// How the [warning](Event::Warning) begins that says that nothing of a transfer is recorded.
pub const CANNOT_BE_RESUMED: &str = "this transfer cannot be resumed";

/// Something that happened during a transfer. Serialises as `{"event":"…", …}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The plan stands and the first part is about to move.
    Started {
        /// What the transfer does.
        operation: Operation,
        /// Where the bytes come from: a path or an `s3://` URL.
        source: String,
        /// Where they go.
        target: String,
        /// Payload bytes to move; of a stream, what was expected, or 0.
        size_bytes: u64,
        /// Parts to move; 0 of a stream.
        parts: u32,
        /// Size of every part but the last.
        part_size_bytes: u64,
        /// Parts allowed in flight.
        concurrency: usize,
    },
    /// A stream turned out longer than one part: this is how much its parts can hold.
    Reach {
        /// Size of the first parts.
        part_size_bytes: u64,
        /// Of all that there can be, together.
        reach_bytes: u64,
    },
    /// A part was admitted and its request is being sent.
    PartStarted {
        /// Number from 1.
        part: u32,
        /// Payload bytes of this part.
        size_bytes: u64,
    },
    /// A part that an earlier run moved was checked, and is not moved again.
    PartKept {
        /// Number from 1.
        part: u32,
        /// Payload bytes of this part.
        size_bytes: u64,
    },
    /// Payload bytes that went to, or came from, the network since the last such event.
    Moved {
        /// How many.
        bytes: u64,
    },
    /// An attempt failed, and this many bytes that were told as moved will be moved again.
    Rewound {
        /// How many.
        bytes: u64,
    },
    /// A part was acknowledged (upload) or written (download).
    PartDone {
        /// Number from 1.
        part: u32,
        /// Payload bytes of this part.
        size_bytes: u64,
        /// From its admission, retries included.
        elapsed_ms: u64,
    },
    /// An attempt failed in a way that may pass; the next one follows after a pause.
    Retrying {
        /// The part, where the request was for one.
        part: Option<u32>,
        /// Which attempt failed, from 1.
        attempt: u32,
        /// The pause before the next.
        wait_ms: u64,
        /// Why it failed, in one line.
        reason: String,
    },
    /// All parts are in; the object is being completed, or the file made durable.
    Finishing,
    /// What arrived is being compared with what was recorded.
    Verifying,
    /// Something the person should know that does not end the transfer.
    Warning {
        /// One line.
        message: String,
    },
    /// A job of many objects begins. What follows until its report is of it.
    JobStarted {
        /// What is to be done: `copy`, `move`, `sync` or `run`.
        job: &'static str,
        /// From where: a folder or an `s3://` URL.
        source: String,
        /// To where.
        target: String,
        /// Whether it is only told what would be done.
        dry_run: bool,
    },
    /// More objects were found that are to be moved.
    Found {
        /// How many.
        objects: u64,
        /// Their payload bytes.
        bytes: u64,
    },
    /// More objects were found that need not be moved: the other side has them.
    Same {
        /// How many.
        objects: u64,
        /// Their payload bytes.
        bytes: u64,
    },
    /// Everything was found; the numbers so far are the whole.
    AllFound,
    /// A large object of a job is being moved; small ones are only told when they are done.
    ObjectStarted {
        /// Where its bytes come from: a path or an `s3://` URL.
        source: String,
        /// Its payload bytes.
        size_bytes: u64,
    },
    /// An object of a job was moved.
    ObjectDone {
        /// How.
        operation: Operation,
        /// Where its bytes came from.
        source: String,
        /// Where they went.
        target: String,
        /// Its payload bytes.
        bytes: u64,
        /// Whether they were held against what the other side has.
        verified: bool,
    },
    /// An object of a job could not be moved or deleted; the rest goes on.
    ObjectFailed {
        /// Where its bytes should have come from; of what should have been deleted, where it is.
        source: String,
        /// Where they should have gone; of what should have been deleted, nothing.
        target: Option<String>,
        /// Why, in one line.
        message: String,
    },
    /// Something is not part of the job, and why.
    ObjectSkipped {
        /// Its path or URL.
        source: String,
        /// As `PATH is …` goes on.
        reason: String,
    },
    /// An object or file was deleted: by a sync, or after it was moved.
    ObjectDeleted {
        /// Its path or URL.
        target: String,
    },
    /// A file was held against its object.
    Compared {
        /// Below the folder and the prefix.
        name: String,
        /// `identical`, `different`, `missing` (no object), `extra` (no file) or `unverifiable`.
        outcome: &'static str,
        /// Why, where that is not said already.
        reason: Option<String>,
    },
    /// What a job would do, where it is only to be told.
    Planned {
        /// `upload`, `download`, `copy` or `delete`.
        action: &'static str,
        /// Where the bytes would come from; of a deletion, nothing.
        source: Option<String>,
        /// Where they would go, or what would be deleted.
        target: String,
        /// Payload bytes.
        bytes: u64,
        /// Why it is not the same on both sides.
        reason: &'static str,
    },
}

impl Event {
    /// Whether it is of the stages of a single object's transfer.
    fn is_of_one_object(&self) -> bool {
        matches!(
            self,
            Self::Started { .. }
                | Self::Reach { .. }
                | Self::PartStarted { .. }
                | Self::PartKept { .. }
                | Self::PartDone { .. }
                | Self::Finishing
                | Self::Verifying
        )
    }
}

/// The engine's end of the channel. Cheap to clone; the default one has no listener.
#[derive(Clone, Default)]
pub struct Emitter {
    shared: Option<Arc<Shared>>,
    /// Of one object among many, whose parts and beginnings nobody follows.
    is_of_many: bool,
}

/// The listener's end of the channel: a [`Stream`] that ends when the last [`Emitter`] is gone.
pub struct Events {
    queue: mpsc::UnboundedReceiver<Event>,
    counter: Arc<Counter>,
}

struct Shared {
    queue: mpsc::UnboundedSender<Event>,
    counter: Arc<Counter>,
}

#[derive(Default)]
struct Counter {
    /// Events that nobody has taken yet.
    waiting: AtomicU64,
    moved: AtomicU64,
    // Whether a `Moved` marker is in the queue already.
    pending: AtomicBool,
}

/// Makes a channel: give the [`Emitter`] to a transfer's options, read the [`Events`].
///
/// ```
/// use brigade::progress;
///
/// let (emitter, events) = progress::channel();
/// let options = brigade::UploadOptions { events: emitter, ..Default::default() };
/// # drop((options, events));
/// ```
pub fn channel() -> (Emitter, Events) {
    let (sender, queue) = mpsc::unbounded();
    let counter = Arc::new(Counter::default());
    let shared = Shared { queue: sender, counter: Arc::clone(&counter) };
    (Emitter { shared: Some(Arc::new(shared)), is_of_many: false }, Events { queue, counter })
}

impl Emitter {
    /// Tells one event; without a listener it is dropped.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if let Some(shared) = &self.shared {
            let event = event();
            if self.is_of_many && event.is_of_one_object() {
                return;
            }
            shared.counter.waiting.fetch_add(1, Ordering::Relaxed);
            // A listener that went away is no reason to stop a transfer.
            let _ = shared.queue.unbounded_send(event);
        }
    }

    /// Waits until whoever listens is not far behind. A job of millions of objects tells of each.
    pub(crate) async fn until_heard(&self) {
        let Some(shared) = &self.shared else { return };
        while shared.counter.waiting.load(Ordering::Relaxed) > MAX_WAITING
            && !shared.queue.is_closed()
        {
            tokio::time::sleep(HEARD_AFTER).await;
        }
    }

    /// For one object of a job of many: its bytes count, what is tried again and what there is to know is
    /// told, but not its stages, which would be taken for the job's.
    pub(crate) fn for_one_of_many(&self) -> Self {
        Self { shared: self.shared.clone(), is_of_many: true }
    }

    /// Tells moved payload bytes; called for every chunk, so it is two atomic operations.
    pub(crate) fn moved(&self, bytes: u64) {
        if let Some(shared) = &self.shared {
            shared.counter.moved.fetch_add(bytes, Ordering::AcqRel);
            if !shared.counter.pending.swap(true, Ordering::AcqRel) {
                let _ = shared.queue.unbounded_send(Event::Moved { bytes: 0 });
            }
        }
    }
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emitter(listener: {})", self.shared.is_some())
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match Pin::new(&mut self.queue).poll_next(context) {
            Poll::Ready(Some(Event::Moved { .. })) => {
                // First the flag, then the sum: bytes added in between are either in this sum or
                // announced by a marker of their own.
                self.counter.pending.store(false, Ordering::Release);
                let bytes = self.counter.moved.swap(0, Ordering::AcqRel);
                Poll::Ready(Some(Event::Moved { bytes }))
            }
            Poll::Ready(Some(event)) => {
                self.counter.waiting.fetch_sub(1, Ordering::Relaxed);
                Poll::Ready(Some(event))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn moved_bytes_are_summed_and_none_is_lost() {
        let (emitter, mut events) = channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let emitter = emitter.clone();
                std::thread::spawn(move || (0..10_000).for_each(|_| emitter.moved(3)))
            })
            .collect();
        drop(emitter);
        let mut total = 0;
        let mut seen = 0;
        while let Some(event) = block_on(events.next()) {
            let Event::Moved { bytes } = event else { panic!("only moved bytes were told") };
            total += bytes;
            seen += 1;
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(total, 120_000);
        assert!(seen <= 40_000);
    }

    #[test]
    fn an_unread_queue_holds_one_entry_for_any_number_of_chunks() {
        let (emitter, mut events) = channel();
        (0..1_000).for_each(|_| emitter.moved(1));
        drop(emitter);
        assert_eq!(block_on(events.next()), Some(Event::Moved { bytes: 1_000 }));
        assert_eq!(block_on(events.next()), None);
    }
}
