//! Finding what is to be moved: everything the source has, or what differs from the target.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc;
use futures::stream::{self, Stream};
use futures::{SinkExt as _, StreamExt as _};

use super::side::{Listed, Role, Seen, is_nowhere};
use super::verify::content;
use super::{Job, Side};
use crate::dataset::{
    BadName, Below, Compared, Difference, Direction, Entry, Names, Pair, Sorter, check_name,
    compare, keeps_order,
};
use crate::download::Content;
use crate::engine::{Engine, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::many::Item;
use crate::progress::Event;

/// Files that are held against their objects at once.
const CHECKS_AT_ONCE: usize = 16;

/// Entries of one batch of sorted ones.
const BATCH: usize = 1024;

/// What the search came to.
pub(super) struct Searched {
    /// Whether everything of the sides that were looked at was seen.
    pub(super) is_complete: bool,
    /// Whether all of it came in order.
    pub(super) is_ordered: bool,
    /// Names that only the target has, and how many, where they are to be deleted.
    pub(super) extra: Option<(Sorter, u64)>,
}

/// Hands on everything that is to be moved.
pub(super) async fn run(engine: &Engine, job: &Job, items: mpsc::Sender<Item>) -> Result<Searched> {
    let mut out = Out { engine, job, items, local: local_names(job)? };
    let source = Seeing::default();
    let names = Listed::of(&job.source, None, &job.options, Role::Source)?;
    let (target, extra) = if let Some(compared) = job.options.compare {
        let seen = Seeing::default();
        // Of the target only what is compared is told of, and links there are what they point to.
        let theirs = Listed::of(&job.target, None, &job.options, Role::Target)?;
        let left = in_order(job, &job.source, names, &source, true);
        let right = in_order(job, &job.target, theirs, &seen, false);
        let pairs = compare(left, right);
        let extra = out.differences(pairs, compared, &seen).await?;
        (Some(seen), extra)
    } else {
        out.everything(in_batches(job, &job.source, names, &source, true)).await?;
        (None, None)
    };
    // What came too late to be compared with its like.
    for entry in source.late() {
        out.hand_on(entry, "the store lists it out of order").await;
    }
    job.emit(|| Event::AllFound);
    let sides = [Some(&source), target.as_ref()];
    let all = |is: fn(&Seeing) -> bool| sides.into_iter().flatten().all(is);
    Ok(Searched {
        is_complete: all(Seeing::is_complete),
        is_ordered: all(Seeing::is_ordered),
        extra,
    })
}

/// What is to be known of a side when it was seen, while its names pass.
#[derive(Default)]
pub(super) struct Seeing {
    is_complete: AtomicBool,
    is_unordered: AtomicBool,
    /// It was sorted from its first name on, so that none came too late.
    is_sorted: AtomicBool,
    /// A listing ended early: what follows of the other side has nothing to be compared with.
    is_cut: AtomicBool,
    late: Mutex<Vec<Entry>>,
}

impl Seeing {
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// Whether every name was put beside its like.
    fn is_ordered(&self) -> bool {
        self.comes_in_order() || self.is_sorted.load(Ordering::Relaxed)
    }

    fn comes_in_order(&self) -> bool {
        !self.is_unordered.load(Ordering::Relaxed)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    fn late(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// A side's entries that belong to the job, as they come.
fn in_batches<'a>(
    job: &'a Job,
    side: &'a Side,
    names: Listed,
    seeing: &'a Seeing,
    tells: bool,
) -> impl Stream<Item = Result<Vec<Entry>>> + 'a {
    stream::unfold(names, move |mut names| async move {
        let batch = if job.is_stopped() { None } else { names.next().await };
        let Some(batch) = batch else {
            seeing.is_complete.store(names.is_complete(), Ordering::Relaxed);
            return None;
        };
        if !names.is_ordered() {
            seeing.is_unordered.store(true, Ordering::Relaxed);
        }
        if matches!(side, Side::Objects { .. }) && batch.iter().any(Seen::is_failure) {
            seeing.is_cut.store(true, Ordering::Relaxed);
        }
        let entries = batch.into_iter().filter_map(|seen| admitted(job, side, seen, tells));
        Some((Ok(entries.collect()), names))
    })
}

/// The same in the order of their names, whatever the order in which they come. All of it is sorted where it is
/// known of the store, or seen in the first page, that it lists in another; else what follows from the page on that is out
/// of order, and what belongs before what has passed already is kept aside.
pub(super) fn in_order<'a>(
    job: &'a Job,
    side: &'a Side,
    names: Listed,
    seeing: &'a Seeing,
    tells: bool,
) -> impl Stream<Item = Result<Vec<Entry>>> + 'a {
    enum State<S> {
        Passing(S, Option<String>),
        Sorted(Box<crate::dataset::Sorted>),
        Over,
    }
    let batches = Box::pin(in_batches(job, side, names, seeing, tells));
    stream::unfold(State::Passing(batches, None), move |state| async move {
        match state {
            State::Over => None,
            State::Passing(mut batches, last) => {
                let batch: Vec<Entry> = match batches.next().await? {
                    Ok(batch) => batch,
                    Err(error) => return Some((Err(error), State::Over)),
                };
                let passes = last.is_some() || lists_in_order(side);
                if passes && seeing.comes_in_order() {
                    let last = batch.last().map(|entry| entry.name.clone()).or(last);
                    return Some((Ok(batch), State::Passing(batches, last)));
                }
                seeing.is_sorted.store(last.is_none(), Ordering::Relaxed);
                match sorted(job, batch, batches, last, seeing).await {
                    Ok(sorted) => Some((Ok(Vec::new()), State::Sorted(Box::new(sorted)))),
                    Err(error) => Some((Err(error), State::Over)),
                }
            }
            State::Sorted(mut sorted) => {
                let read = blocking("sort", move || {
                    let batch = sorted.by_ref().take(BATCH).collect::<Result<Vec<_>>>()?;
                    Ok((batch, sorted))
                });
                match read.await {
                    Ok((batch, _)) if batch.is_empty() => None,
                    Ok((batch, sorted)) => Some((Ok(batch), State::Sorted(sorted))),
                    Err(error) => Some((Err(error), State::Over)),
                }
            }
        }
    })
}

/// What is known of that once it has answered.
fn lists_in_order(side: &Side) -> bool {
    match side {
        Side::Folder(_) => true,
        Side::Objects { bucket, .. } => keeps_order(&bucket.engine, bucket.name()),
    }
}

async fn sorted(
    job: &Job,
    first: Vec<Entry>,
    mut rest: impl Stream<Item = Result<Vec<Entry>>> + Unpin,
    last: Option<String>,
    seeing: &Seeing,
) -> Result<crate::dataset::Sorted> {
    let mut sorter = Sorter::new(job.options.sort.clone());
    let mut batch = first;
    loop {
        let (early, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|it| last.as_ref().is_none_or(|last| it.name > *last));
        seeing.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(late);
        sorter = blocking("sort", move || {
            early.into_iter().try_for_each(|entry| sorter.push(entry))?;
            Ok(sorter)
        })
        .await?;
        match rest.next().await {
            Some(next) => batch = next?,
            None => break,
        }
    }
    blocking("sort", move || sorter.finish()).await
}

/// An entry that belongs to the job; what does not, and is no matter of course, is told.
fn admitted(job: &Job, side: &Side, seen: Seen, tells: bool) -> Option<Entry> {
    match seen {
        Seen::Entry(entry) => {
            // What a store's console makes of a folder: no object that could be a file.
            let is_folder = entry.name.is_empty() || entry.name.ends_with('/');
            let filter = &job.options.filter;
            // What is compared is judged by its source, once both sides are known.
            let admits = if job.compares() {
                filter.admits_name(&entry.name)
            } else {
                filter.admits(&entry)
            };
            (admits && !is_folder).then_some(entry)
        }
        Seen::Skipped(name, reason) => {
            if tells {
                job.report().skipped += 1;
                job.emit(|| Event::ObjectSkipped { source: side.place_of(&name), reason });
            }
            None
        }
        Seen::Failed(error) => {
            job.failed(error.target().to_owned(), None, &error);
            None
        }
    }
}

/// Where what was found goes.
struct Out<'a> {
    engine: &'a Engine,
    job: &'a Job,
    items: mpsc::Sender<Item>,
    /// What can be a file below the target folder, where that is one. A folder that is not there, because nothing
    /// is to be done, has no names that are in the way.
    local: Option<(Option<Names>, Below)>,
}

impl Out<'_> {
    async fn everything(&mut self, batches: impl Stream<Item = Result<Vec<Entry>>>) -> Result<()> {
        let mut batches = std::pin::pin!(batches);
        while let Some(batch) = batches.next().await {
            let found = batch?;
            self.job.options.events.until_heard().await;
            self.tell_found(&found);
            for entry in found {
                if !self.hand_on(entry, "it is to be copied").await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Hands on what differs, and gives what only the target has.
    async fn differences(
        &mut self,
        pairs: impl Stream<Item = Result<Vec<Pair>>>,
        compared: Compared,
        target: &Seeing,
    ) -> Result<Option<(Sorter, u64)>> {
        let direction = match (&self.job.source, &self.job.target) {
            (Side::Folder(_), _) => Direction::Up,
            (_, Side::Folder(_)) => Direction::Down,
            _ => Direction::Between,
        };
        let wants_extra = self.job.options.delete;
        let (mut extra, mut extras) = (Sorter::new(self.job.options.sort.clone()), 0);
        let mut pairs = std::pin::pin!(pairs);
        while let Some(batch) = pairs.next().await {
            let batch = batch?;
            if target.is_cut() {
                break;
            }
            self.job.options.events.until_heard().await;
            let (mut same, mut same_bytes, mut found) = (0, 0, Vec::new());
            for (difference, pair) in self.judged(batch, direction, compared).await {
                match (difference, pair.left, pair.right) {
                    (Difference::Extra, _, Some(right)) if wants_extra => {
                        extras += 1;
                        extra.push(right)?;
                    }
                    (Difference::Same, Some(left), _) => {
                        same += 1;
                        same_bytes += left.size_bytes;
                    }
                    (_, Some(left), _) if difference.is_to_be_moved() => {
                        found.push((left, reason(difference)));
                    }
                    _ => {}
                }
            }
            if same > 0 {
                self.job.report().same += same;
                self.job.emit(|| Event::Same { objects: same, bytes: same_bytes });
            }
            if !found.is_empty() {
                let bytes = found.iter().map(|(entry, _)| entry.size_bytes).sum();
                self.job.emit(|| Event::Found { objects: found.len() as u64, bytes });
            }
            for (entry, reason) in found {
                if !self.hand_on(entry, reason).await {
                    return Ok(None);
                }
            }
        }
        Ok(wants_extra.then_some((extra, extras)))
    }

    /// How each pair differs.
    async fn judged(
        &self,
        batch: Vec<Pair>,
        direction: Direction,
        compared: Compared,
    ) -> Vec<(Difference, Pair)> {
        let judge = |pair: Pair| async move {
            let mut difference = pair.difference(direction, compared);
            if self.job.options.checksum
                && difference != Difference::Size
                && let (Some(left), Some(right)) = (&pair.left, &pair.right)
            {
                difference = match content(self.engine, self.job, &left.name).await {
                    Ok(Content::Same(_)) => Difference::Same,
                    // What could not be read is tried, and tells better what is wrong.
                    Ok(Content::Different(_)) | Err(_) => Difference::Content,
                    // Of two objects with one ETag the contents are the same, wherever it comes from.
                    Ok(Content::Unknown(_)) if left.etag.is_some() && left.etag == right.etag => {
                        Difference::Same
                    }
                    Ok(Content::Unknown(_)) => pair.difference(direction, Compared::SizeAndTime),
                };
            }
            (difference, pair)
        };
        let filter = &self.job.options.filter;
        let batch: Vec<_> = batch.into_iter().filter(|pair| filter.admits_pair(pair)).collect();
        if !self.job.options.checksum {
            let plain = |pair: Pair| {
                let difference = match pair.difference(direction, compared) {
                    Difference::Same if !self.is_of_an_earlier_run(&pair) => Difference::Newer,
                    difference => difference,
                };
                (difference, pair)
            };
            return batch.into_iter().map(plain).collect();
        }
        stream::iter(batch.into_iter().map(judge)).buffered(CHECKS_AT_ONCE).collect().await
    }

    /// Whether the target's entry may be what this very job brought there before.
    fn is_of_an_earlier_run(&self, pair: &Pair) -> bool {
        let modified = pair.right.as_ref().and_then(|entry| entry.modified);
        self.job.may_have_left(modified)
    }

    /// Whether the target can have a file of this name. Keys are text from a store, and must not lead
    /// anywhere else.
    fn check_name(&mut self, name: &str) -> Result<(), Refusal> {
        let Some((names, below)) = &mut self.local else { return Ok(()) };
        let Some(names) = names else {
            check_name(name).map_err(Refusal::Name)?;
            return below.take(name).map_err(Refusal::Name);
        };
        let path = names.path_of(name).map_err(Refusal::Failed)?.map_err(Refusal::Name)?;
        if path.is_symlink() {
            let (kind, shown) = (ErrorKind::InvalidInput, path.display().to_string());
            let detail = "a symbolic link is in its place, which is not written through";
            let error = Error::new(kind, "download to", shown, detail).advise("remove it first");
            return Err(Refusal::Failed(error));
        }
        below.take(name).map_err(Refusal::Name)
    }

    fn refused(&self, source: String, refusal: Refusal) -> bool {
        let job = self.job;
        match refusal {
            Refusal::Name(bad) if bad.is_only_a_note() => {
                job.report().skipped += 1;
                job.emit(|| Event::ObjectSkipped { source, reason: bad.to_string() });
            }
            Refusal::Name(bad) => {
                let detail = format!("it cannot be a file: {bad}");
                let error = Error::new(ErrorKind::InvalidInput, "download", &source, detail);
                job.failed(source, None, &error);
            }
            Refusal::Failed(error) => job.failed(source, None, &error),
        }
        true
    }

    fn tell_found(&self, found: &[Entry]) {
        if !found.is_empty() {
            let (objects, bytes) = (found.len() as u64, found.iter().map(|it| it.size_bytes).sum());
            self.job.emit(|| Event::Found { objects, bytes });
        }
    }

    /// Puts one into the queue, or tells that it would be. False where nobody takes them any more, and
    /// tells why.
    async fn hand_on(&mut self, entry: Entry, reason: &'static str) -> bool {
        let job = self.job;
        let (source, bytes) = (job.source.place_of(&entry.name), entry.size_bytes);
        if let Err(bad) = self.check_name(&entry.name) {
            return self.refused(source, bad);
        }
        let (action, target, item) = match item_of(job, entry) {
            Ok(item) => item,
            Err(error) => {
                job.failed(source, None, &error);
                return true;
            }
        };
        if !job.options.dry_run {
            return self.items.send(item).await.is_ok();
        }
        {
            let mut report = job.report();
            report.objects += 1;
            report.bytes += bytes;
        }
        job.emit(|| Event::Planned { action, source: Some(source), target, bytes, reason });
        true
    }
}

/// Why a name cannot be a file below the target folder.
enum Refusal {
    Name(BadName),
    Failed(Error),
}

/// The target folder's names, where it is one; it is made for that, unless nothing is to be done.
fn local_names(job: &Job) -> Result<Option<(Option<Names>, Below)>> {
    let Side::Folder(folder) = &job.target else { return Ok(None) };
    if !job.options.dry_run {
        std::fs::create_dir_all(folder).map_err(|source| Error::io("make", folder, source))?;
    } else if is_nowhere(folder) {
        return Ok(Some((None, Below::default())));
    }
    Ok(Some((Some(Names::new(folder)?), Below::default())))
}

fn reason(difference: Difference) -> &'static str {
    match difference {
        Difference::Missing => "the target does not have it",
        Difference::Size => "the sizes differ",
        Difference::Newer => "the times differ",
        Difference::Content => "the contents differ",
        Difference::Same | Difference::Extra => "",
    }
}

/// What is done with an entry, where it goes, and the item for it.
fn item_of(job: &Job, entry: Entry) -> Result<(&'static str, String, Item)> {
    let Entry { name, size_bytes, modified, .. } = entry;
    let target = job.target.place_of(&name);
    let item = Item { size_bytes: Some(size_bytes), modified, ..Item::default() };
    let key = |prefix: &str| {
        let key = format!("{prefix}{name}");
        if key.len() <= crate::url::MAX_KEY_BYTES {
            return Ok(key);
        }
        let detail = format!("the key has {} bytes of at most 1024", key.len());
        Err(Error::new(ErrorKind::InvalidInput, "upload to", target.clone(), detail))
    };
    match (&job.source, &job.target) {
        (Side::Folder(folder), Side::Objects { prefix, .. }) => {
            let content_type = job.options.content_type.and_then(|of| of(&name));
            let (file, key) = (folder.join(&name), key(prefix)?);
            Ok(("upload", target, Item { file, key, content_type, ..item }))
        }
        (Side::Objects { prefix, .. }, Side::Folder(folder)) => {
            let (file, key) = (folder.join(&name), format!("{prefix}{name}"));
            Ok(("download", target, Item { file, key, ..item }))
        }
        (Side::Objects { prefix: from, .. }, Side::Objects { prefix: to, .. }) => {
            let (target_key, key) = (key(to)?, format!("{from}{name}"));
            Ok(("copy", target, Item { key, target_key, ..item }))
        }
        (Side::Folder(_), Side::Folder(_)) => unreachable!("one side is in a store"),
    }
}
