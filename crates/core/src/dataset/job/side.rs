//! Where a dataset is, and its names as they come: a folder's by a walk, a bucket's by a listing.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;

use super::JobOptions;
use crate::dataset;
use crate::dataset::{Entry, ListOptions, Listing, Pattern, Walk, WalkOptions, Walked, walk};
use crate::error::{Error, Result};
use crate::object::Bucket;

/// Where a dataset is.
///
/// ```no_run
/// # async fn run(bucket: brigade::Bucket) {
/// use brigade::dataset::Side;
///
/// let here = Side::Folder("photos".into());
/// let there = Side::objects(&bucket, "photos");
/// assert_eq!(there.to_string(), "s3://my-bucket/photos/");
/// # }
/// ```
#[derive(Debug, Clone)]
pub enum Side {
    /// A folder and all that is below it.
    Folder(PathBuf),
    /// Objects of a bucket.
    Objects {
        /// Where they are.
        bucket: Bucket,
        /// What their keys begin with; names are what follows it.
        prefix: String,
        /// Which of them; unset means all. Its base is the prefix.
        pattern: Option<Pattern>,
    },
}

impl Side {
    /// The objects below `folder`, to which a `/` is added where it has none, so that `logs` does not take in
    /// `logs-of-others`. Empty means the whole bucket.
    pub fn objects(bucket: &Bucket, folder: &str) -> Self {
        let slash = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
        let prefix = format!("{folder}{slash}");
        Self::Objects { bucket: bucket.clone(), prefix, pattern: None }
    }

    /// The objects that a pattern means. Names are what follows the last `/` before its first wildcard.
    pub fn matching(bucket: &Bucket, pattern: Pattern) -> Self {
        let prefix = pattern.base().to_owned();
        Self::Objects { bucket: bucket.clone(), prefix, pattern: Some(pattern) }
    }

    /// What an entry of this side is called where it is told of.
    pub(super) fn place_of(&self, name: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Objects { bucket, prefix, .. } => {
                format!("s3://{}/{prefix}{name}", bucket.name())
            }
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Objects { bucket, prefix, .. } => write!(f, "s3://{}/{prefix}", bucket.name()),
        }
    }
}

/// What is seen of a side.
#[derive(Debug)]
pub(super) enum Seen {
    Entry(Entry),
    /// Not part of the dataset; a name and how `NAME is …` goes on.
    Skipped(String, String),
    /// The rest goes on, and is not the whole.
    Failed(Error),
}

impl Seen {
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// What a side is in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its names are moved, and its links are what they are said to be.
    Source,
    /// It is only compared with, and a link there is what it points to.
    Target,
}

/// The names of one side, in batches.
pub(super) struct Listed {
    kind: Kind,
    has_failed: bool,
    is_complete: bool,
    is_ordered: bool,
}

enum Kind {
    /// A target folder that is not there yet.
    Nothing,
    Walk(Walk),
    List {
        listing: Listing,
        base: usize,
        pattern: Option<Pattern>,
    },
}

impl Listed {
    /// A walk leaves out what the filter's rules do, and does not enter folders for nothing.
    pub(super) fn of(
        side: &Side,
        start_after: Option<&str>,
        how: &JobOptions,
        role: Role,
    ) -> Result<Self> {
        let kind = match side {
            Side::Folder(folder) if how.dry_run && role == Role::Target && is_nowhere(folder) => {
                Kind::Nothing
            }
            Side::Folder(folder) => {
                let options = WalkOptions {
                    filter: how.filter.clone(),
                    sort: how.sort.clone(),
                    follow_symlinks: !matches!(role, Role::Source) || how.follow_symlinks,
                    cancel: how.cancel.clone(),
                };
                Kind::Walk(walk(folder.as_path(), options)?)
            }
            Side::Objects { bucket, prefix, pattern } => {
                let under = pattern.as_ref().map_or(prefix.as_str(), Pattern::prefix);
                let start_after = start_after.map(|name| format!("{prefix}{name}"));
                // Cut in pieces, a listing begins anew where its end moves meanwhile, and of a source every
                // name would be moved again. What is moved takes longer than to list it.
                let concurrency = matches!(role, Role::Source).then_some(1);
                let options = ListOptions {
                    start_after,
                    concurrency,
                    cancel: how.cancel.clone(),
                    ..ListOptions::default()
                };
                let listing = bucket.list(under, options);
                Kind::List { listing, base: prefix.len(), pattern: pattern.clone() }
            }
        };
        Ok(Self { kind, has_failed: false, is_complete: false, is_ordered: true })
    }

    /// The next ones; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<Seen>> {
        match &mut self.kind {
            Kind::Nothing => {
                self.is_complete = true;
                None
            }
            Kind::Walk(walk) => {
                let Some(batch) = walk.next().await else {
                    self.is_complete = walk.is_complete();
                    return None;
                };
                Some(batch.into_iter().map(of_walk).collect())
            }
            Kind::List { listing, base, pattern } => match listing.next_batch().await {
                None => {
                    self.is_complete = !self.has_failed;
                    None
                }
                Some(Err(error)) => {
                    // It is the last of what a listing tells.
                    self.has_failed = true;
                    Some(vec![Seen::Failed(error)])
                }
                Some(Ok(batch)) => {
                    self.is_ordered &= listing.is_ordered();
                    let matches =
                        |key: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(key));
                    let seen = batch.into_iter().filter_map(|listed| match listed {
                        dataset::Listed::Object(mut entry) if matches(&entry.name) => {
                            entry.name.drain(..(*base).min(entry.name.len()));
                            Some(Seen::Entry(entry))
                        }
                        _ => None,
                    });
                    Some(seen.collect())
                }
            },
        }
    }

    /// Whether everything was seen; false before the end.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether all of it came in order so far.
    pub(super) fn is_ordered(&self) -> bool {
        self.is_ordered
    }
}

/// Whether there is nothing at a path, so that a folder could be made there.
pub(super) fn is_nowhere(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn of_walk(walked: Walked) -> Seen {
    match walked {
        Walked::File(entry) => Seen::Entry(entry),
        Walked::Skipped { name, why } => Seen::Skipped(name, why.reason().to_owned()),
        Walked::Failed(error) => Seen::Failed(error),
    }
}
