//! A list of transfers and deletions as one job: each names its own ends.
//!
//! What goes the same way between the same buckets is one group, which is moved as the objects of a folder are;
//! all groups share the session's window. They are opened as the list names them, and where there are too many,
//! the one that was opened first takes no more and ends.

use std::path::PathBuf;
use std::time::Instant;

use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, SinkExt as _, Stream, StreamExt as _};

use super::{Job, JobOptions, JobReport, QUEUE, Side, act, delete};
use crate::engine::Engine;
use crate::error::Result;
use crate::many::{Item, ManyReport};
use crate::progress::Event;
use crate::session::Session;
use crate::url::S3Url;

/// Groups that are open at once: each has workers that wait.
const GROUPS: usize = 32;

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A file becomes an object.
    Upload {
        /// The file.
        file: PathBuf,
        /// Where it goes.
        object: S3Url,
        /// Whether the file goes once its copy was proven.
        removes_source: bool,
    },
    /// An object becomes a file.
    Download {
        /// The object.
        object: S3Url,
        /// Where it goes.
        file: PathBuf,
        /// Whether the object goes once its copy was proven.
        removes_source: bool,
    },
    /// An object becomes another, in the same store.
    Copy {
        /// The object.
        source: S3Url,
        /// The other one.
        target: S3Url,
        /// Whether the source goes once its copy was proven.
        removes_source: bool,
    },
    /// An object goes.
    Delete {
        /// The object.
        object: S3Url,
    },
}

/// Carries out `tasks` as they come, in no particular order and many at once. `list` is what the job is said to be
/// of. A task that is an error counts as one that failed, and the others go on.
///
/// Of the options, those count that say how an object is moved, and `dry_run`, `fail_fast`, `content_type`, `events`
/// and `cancel`; nothing is compared or left out.
///
/// # Errors
///
/// Where nothing could be begun. What fails of single objects is told as it happens and counted in the
/// report.
///
/// ```no_run
/// # async fn run(session: brigade::Session) -> brigade::Result<()> {
/// use brigade::dataset::{JobOptions, Task, run};
///
/// let object = "s3://my-bucket/old".parse()?;
/// let tasks = futures::stream::iter([Ok(Task::Delete { object })]);
/// let report = run(&session, "old ones", tasks, JobOptions::default()).await?;
/// assert!(report.is_whole());
/// # Ok(())
/// # }
/// ```
pub async fn run(
    session: &Session,
    list: impl Into<String>,
    tasks: impl Stream<Item = Result<Task>> + Send + Unpin + 'static,
    options: JobOptions,
) -> Result<JobReport> {
    let cancel = options.cancel.child();
    let options = JobOptions { cancel: cancel.clone(), ..options };
    let (list, of) = (list.into(), session.clone());
    let run = |engine| carry_out(engine, of, list, tasks, options);
    session.engine.drive_cancellable(cancel, run).await
}

async fn carry_out(
    engine: Engine,
    session: Session,
    list: String,
    mut tasks: impl Stream<Item = Result<Task>> + Send + Unpin,
    options: JobOptions,
) -> Result<JobReport> {
    let started = Instant::now();
    let dry_run = options.dry_run;
    options.events.emit(|| Event::JobStarted {
        job: "run",
        source: list.clone(),
        target: String::new(),
        dry_run,
    });
    // Counts what belongs to no group.
    let whole = Job::new("run", Side::Folder(list.into()), Side::Folder(PathBuf::new()), options);
    let (mut open, mut ended) = (Vec::<Group>::new(), FuturesUnordered::new());
    let mut report = JobReport::default();
    let mut most = 0;
    loop {
        let next = async { if whole.is_stopped() { None } else { tasks.next().await } };
        let task = tokio::select! {
            biased;
            Some(done) = ended.next(), if !ended.is_empty() => {
                add(&mut report, &mut most, done);
                continue;
            }
            () = whole.options.cancel.cancelled() => None,
            task = next => task,
        };
        let task = match task {
            None => break,
            Some(Ok(task)) => task,
            Some(Err(error)) => {
                whole.failed(error.target().to_owned(), None, &error);
                continue;
            }
        };
        whole.options.events.until_heard().await;
        let task = known(task, whole.options.content_type).await;
        if dry_run {
            plan(&whole, &task);
            continue;
        }
        whole.emit(|| Event::Found { objects: 1, bytes: task.item.size_bytes.unwrap_or(0) });
        let at = open.iter().position(|group| group.way == task.way).unwrap_or_else(|| {
            if open.len() >= GROUPS {
                open.remove(0);
            }
            let (queue, items) = mpsc::channel(QUEUE);
            let work =
                work(engine.clone(), session.clone(), task.way.clone(), items, &whole.options);
            ended.push(work.boxed());
            open.push(Group { way: task.way.clone(), queue });
            open.len() - 1
        });
        // The groups move on while this one's queue is full.
        let mut sending = open[at].queue.send(task.item);
        loop {
            tokio::select! {
                _ = &mut sending => break,
                Some(done) = ended.next(), if !ended.is_empty() => add(&mut report, &mut most, done),
            }
        }
    }
    drop(open);
    whole.emit(|| Event::AllFound);
    while let Some(done) = ended.next().await {
        add(&mut report, &mut most, done);
    }
    let own = std::mem::take(&mut *whole.report());
    report.failed += own.failed;
    report.objects += own.objects;
    report.deleted += own.deleted;
    report.bytes += own.bytes;
    report.warnings.extend(own.warnings);
    (report.job, report.source, report.dry_run) = (own.job, own.source, own.dry_run);
    report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.throughput_bytes_per_s = crate::report::throughput(report.bytes, started.elapsed());
    report.stopped = whole.is_stopped();
    report.complete = true;
    Ok(report)
}

/// What goes the same way between the same buckets.
struct Group {
    way: Way,
    queue: mpsc::Sender<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Up { bucket: String, removes: bool },
    Down { bucket: String, removes: bool },
    Across { from: String, to: String, removes: bool },
    Gone { bucket: String },
}

/// A task, its way, and what is known of it.
struct Known {
    task: Task,
    way: Way,
    item: Item,
}

async fn known(task: Task, type_of: Option<fn(&str) -> Option<String>>) -> Known {
    let name = |url: &S3Url| (url.bucket().to_owned(), url.key().to_owned());
    let (way, item) = match task.clone() {
        Task::Upload { file, object, removes_source: removes } => {
            let (bucket, key) = name(&object);
            // What cannot be looked at is told where it is read.
            let looked_at = tokio::task::spawn_blocking({
                let file = file.clone();
                move || std::fs::metadata(file).ok()
            });
            let metadata = looked_at.await.ok().flatten();
            let size_bytes = metadata.as_ref().map(std::fs::Metadata::len);
            let modified = metadata.and_then(|it| it.modified().ok());
            let content_type = type_of.and_then(|of| of(&file.to_string_lossy()));
            let item = Item { file, key, size_bytes, modified, content_type, ..Item::default() };
            (Way::Up { bucket, removes }, item)
        }
        Task::Download { object, file, removes_source: removes } => {
            let (bucket, key) = name(&object);
            (Way::Down { bucket, removes }, Item::between(file, key))
        }
        Task::Copy { source, target, removes_source: removes } => {
            let ((from, key), (to, target_key)) = (name(&source), name(&target));
            (Way::Across { from, to, removes }, Item { key, target_key, ..Item::default() })
        }
        Task::Delete { object } => {
            let (bucket, key) = name(&object);
            (Way::Gone { bucket }, Item { key, ..Item::default() })
        }
    };
    Known { task, way, item }
}

/// Tells what would be done.
fn plan(job: &Job, known: &Known) {
    let bytes = known.item.size_bytes.unwrap_or(0);
    let shown = |file: &PathBuf| file.display().to_string();
    let (action, source, target) = match &known.task {
        Task::Upload { file, object, .. } => ("upload", Some(shown(file)), object.to_string()),
        Task::Download { object, file, .. } => ("download", Some(object.to_string()), shown(file)),
        Task::Copy { source, target, .. } => ("copy", Some(source.to_string()), target.to_string()),
        Task::Delete { object } => ("delete", None, object.to_string()),
    };
    {
        let mut report = job.report();
        if source.is_some() {
            report.objects += 1;
        } else {
            report.deleted += 1;
        }
        report.bytes += bytes;
    }
    job.emit(|| Event::Planned { action, source, target, bytes, reason: "the list has it" });
}

/// Carries out one group.
async fn work(
    engine: Engine,
    session: Session,
    way: Way,
    items: mpsc::Receiver<Item>,
    options: &JobOptions,
) -> (JobReport, Option<ManyReport>) {
    let objects = |bucket: &str| Side::objects(&session.bucket(bucket), "");
    let nowhere = || Side::Folder(PathBuf::new());
    let (source, target, removes) = match &way {
        Way::Up { bucket, removes } => (nowhere(), objects(bucket), *removes),
        Way::Down { bucket, removes } => (objects(bucket), nowhere(), *removes),
        Way::Across { from, to, removes } => (objects(from), objects(to), *removes),
        Way::Gone { bucket } => (objects(bucket), objects(bucket), false),
    };
    let options = JobOptions { remove_source: removes, ..options.clone() };
    let job = Job::new("run", source, target, options);
    let outcome = match &way {
        Way::Gone { bucket } => {
            let bucket = session.bucket(bucket.as_str());
            let keys = items.map(|item| (item.key, None));
            delete::of_store(&job, &job.source, &bucket, keys).await.map(|()| None)
        }
        _ => act::run(&engine, &job, items).await,
    };
    let report = std::mem::take(&mut *job.report());
    match outcome {
        Ok(moved) => (report, moved),
        Err(error) => {
            job.failed(job.source.to_string(), None, &error);
            let failed = job.report().failed;
            (JobReport { failed: report.failed + failed, ..report }, None)
        }
    }
}

fn add(whole: &mut JobReport, most: &mut u64, (group, moved): (JobReport, Option<ManyReport>)) {
    whole.objects += group.objects;
    whole.bytes += group.bytes;
    whole.unverified += group.unverified;
    whole.failed += group.failed;
    whole.deleted += group.deleted;
    whole.warnings.extend(group.warnings);
    if let Some(moved) = moved {
        whole.retries += moved.retries;
        // Of several ways, what is said is what most of the time went to in the largest.
        if moved.bytes >= *most {
            *most = moved.bytes;
            (whole.time, whole.limited_by) = (moved.time, moved.limited_by);
        }
    }
}
