//! Waiting for the engine: events to the printer, signals to the engine.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use brigade::progress::{CANNOT_BE_RESUMED, Event, Operation};
use brigade::{Cancel, S3Url};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::{self, MissedTickBehavior};

use crate::exit::Exit;
use crate::failure::Resumable;
use crate::printer::Printer;
use crate::signals::{Signals, Stopped};

/// Events are looked at this often and not as they come: chunks move by the thousand a second, and
/// the engine's threads have better use for the cores than waking this one.
const TICK: Duration = Duration::from_millis(100);

/// How long the engine may take to stop after a signal: less than the two seconds after which a
/// person gets impatient and a supervisor may kill. Parts in flight get a part of it to end; an upload
/// that is not recorded gets it to be aborted.
const CLEAN_UP: Duration = Duration::from_millis(1_500);

/// A person's eyes and hands while the engine works.
pub(super) struct Watch<'a> {
    pub(super) printer: &'a mut Printer,
    signals: Signals,
    /// The command that goes on where a transfer stopped.
    again: Option<String>,
    /// How the process ends, once a signal asked for it.
    stopped: Option<Exit>,
    under_way: UnderWay,
}

/// What is known of the transfer under way.
#[derive(Default)]
struct UnderWay {
    /// The bucket that an upload goes to, as a URL.
    bucket: Option<String>,
    is_unrecorded: bool,
}

impl<'a> Watch<'a> {
    /// Needs a tokio runtime around it. From now on, signals no longer end the process by themselves.
    /// `again` is the command that goes on where a transfer stopped.
    pub(super) fn new(printer: &'a mut Printer, again: Option<String>) -> Result<Self> {
        let under_way = UnderWay::default();
        Ok(Self { printer, signals: Signals::watch()?, again, stopped: None, under_way })
    }

    /// Whether a signal came: a transfer that was done before it could be stopped is a success, but
    /// nothing further is to be begun.
    pub(super) fn stopped(&self) -> Option<Exit> {
        self.stopped
    }

    /// Waits for what needs no clean-up; a signal just drops it.
    pub(super) async fn until<T, E: Into<anyhow::Error>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        tokio::select! {
            result = work => result.map_err(Into::into),
            exit = self.signals.next() => {
                self.stopped = Some(exit);
                Err(Stopped { exit, message: "stopped as asked".into() }.into())
            }
        }
    }

    /// Waits for a transfer whose options hold `cancel` and the other end of `events`. A signal
    /// cancels it and waits for its clean-up; a second one, or one that takes too long, ends it
    /// at once.
    pub(super) async fn transfer<T>(
        &mut self,
        work: impl Future<Output = brigade::Result<T>>,
        cancel: &Cancel,
        events: impl Stream<Item = Event> + Unpin,
    ) -> Result<T> {
        self.job(work, cancel, events, futures::stream::empty(), |_, ()| {}).await
    }

    /// The same for a job of many things, each of which `outcomes` tells of: `tell` is called with it. All of
    /// them are told before this ends.
    pub(super) async fn job<T, O>(
        &mut self,
        work: impl Future<Output = brigade::Result<T>>,
        cancel: &Cancel,
        mut events: impl Stream<Item = Event> + Unpin,
        outcomes: impl Stream<Item = O>,
        mut tell: impl FnMut(&mut Printer, O),
    ) -> Result<T> {
        let mut work = pin!(work);
        let mut outcomes = pin!(outcomes.fuse());
        self.under_way = UnderWay::default();
        // The first look comes after a tick, so that a transfer shorter than that shows no bar.
        let mut ticks = time::interval_at(time::Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = None;
        loop {
            let too_late = async {
                match stopping {
                    Some((_, deadline)) => time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(outcome) = outcomes.next() => tell(self.printer, outcome),
                result = &mut work => {
                    while let Some(Some(outcome)) = outcomes.next().now_or_never() {
                        tell(self.printer, outcome);
                    }
                    self.tell(&mut events);
                    return match (result, stopping) {
                        // Done before it could be stopped: it is as good as any.
                        (Ok(value), _) => Ok(value),
                        (Err(error), Some((exit, _))) => {
                            Err(Stopped { exit, message: self.with_command(&error) }.into())
                        }
                        (Err(error), None) if error.is_resumable() => {
                            let message = self.with_command(&error);
                            Err(Resumable { error, message }.into())
                        }
                        (Err(error), None) => Err(error.into()),
                    };
                }
                exit = self.signals.next() => {
                    if let Some((first, _)) = stopping {
                        self.tell(&mut events);
                        let message = self.abandoned("on a second signal");
                        return Err(Stopped { exit: first, message }.into());
                    }
                    stopping = Some((exit, time::Instant::now() + CLEAN_UP));
                    self.stopped = Some(exit);
                    cancel.cancel();
                    self.printer.notice("stopping; a second signal ends it at once");
                }
                () = too_late => {
                    let exit = stopping.map_or(Exit::INTERRUPTED, |(exit, _)| exit);
                    let why = format!("after {} s of cleaning up", CLEAN_UP.as_secs_f32());
                    self.tell(&mut events);
                    return Err(Stopped { exit, message: self.abandoned(&why) }.into());
                }
                _ = ticks.tick() => {
                    self.tell(&mut events);
                    self.printer.tick(Instant::now());
                }
            }
        }
    }

    /// The error, and the command that goes on from there.
    fn with_command(&self, error: &brigade::Error) -> String {
        match &self.again {
            Some(again) if error.is_resumable() => format!("{error}: {again}"),
            _ => error.to_string(),
        }
    }

    /// Hands on all events that are there by now.
    fn tell(&mut self, events: &mut (impl Stream<Item = Event> + Unpin)) {
        let now = Instant::now();
        while let Some(Some(event)) = events.next().now_or_never() {
            self.under_way.learn(&event);
            self.printer.event(&event, now);
        }
    }

    /// What is said of a transfer that is left without its clean-up.
    fn abandoned(&self, why: &str) -> String {
        let UnderWay { bucket, is_unrecorded } = &self.under_way;
        let again = self.again.as_deref().unwrap_or("the same command");
        match (bucket, is_unrecorded) {
            (Some(bucket), true) => format!(
                "left {why}; nothing of it is recorded, and an unfinished upload may remain on the store: \
                 see brigade uploads list {bucket}"
            ),
            (None, true) => format!(
                "left {why}; nothing of it is recorded, and a partial file may remain beside the target"
            ),
            (_, false) => format!(
                "left {why}; what is recorded of it is kept, and running it again goes on from there: \
                 {again}"
            ),
        }
    }
}

impl UnderWay {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Started { operation: Operation::Upload, target, .. } => {
                self.bucket =
                    target.parse::<S3Url>().ok().map(|url| format!("s3://{}", url.bucket()));
            }
            Event::Warning { message } => {
                self.is_unrecorded |= message.starts_with(CANNOT_BE_RESUMED);
            }
            _ => {}
        }
    }
}
