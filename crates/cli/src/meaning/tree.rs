//! `cp -r`, `mv -r` and `sync` as meant: two sides, and how one is brought to the other.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;
use brigade::dataset::{Compared, JobOptions, Pattern, Side};
use brigade::{S3Url, Session, SessionOptions};

use super::{cp, filter, session};
use crate::args::{CpArgs, SyncArgs, VerifyArgs};
use crate::environment::Environment;
use crate::failure::Usage;

/// A job to carry out.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) session: SessionOptions,
    /// Of the source, where that is in another store.
    pub(crate) source_session: Option<SessionOptions>,
    pub(crate) source: End,
    pub(crate) target: End,
    pub(crate) options: JobOptions,
    /// Where what failed is written.
    pub(crate) failures: Option<PathBuf>,
    /// What the person should hear before it starts.
    pub(crate) warnings: Vec<&'static str>,
}

/// One end of a job.
#[derive(Debug)]
pub(crate) enum End {
    Folder(PathBuf),
    Objects(S3Url),
    Matching(S3Url, Pattern),
}

impl End {
    /// The same with the store that it is in.
    pub(crate) fn side(&self, session: &Session) -> Side {
        match self {
            Self::Folder(folder) => Side::Folder(folder.clone()),
            Self::Objects(url) => Side::objects(&session.bucket(url.bucket()), url.key()),
            Self::Matching(url, pattern) => {
                Side::matching(&session.bucket(url.bucket()), pattern.clone())
            }
        }
    }

    fn source(typed: &OsStr, no_glob: bool) -> Result<Self> {
        match url(typed)? {
            None if typed == "-" => {
                Err(Usage::error("standard input is one object; leave off --recursive"))
            }
            None => {
                let folder = PathBuf::from(typed);
                // What is not there at all, the walk tells.
                if folder.is_file() {
                    return Err(Usage::error(format!(
                        "{} is a file; leave off --recursive, or name a folder",
                        folder.display()
                    )));
                }
                Ok(Self::Folder(folder))
            }
            Some(url) if no_glob => Ok(Self::Objects(url)),
            Some(url) => {
                let pattern = Pattern::parse(url.key())?;
                Ok(if pattern.is_glob() {
                    Self::Matching(url, pattern)
                } else {
                    Self::Objects(url)
                })
            }
        }
    }

    fn target(typed: &OsStr) -> Result<Self> {
        match url(typed)? {
            None if typed == "-" => {
                Err(Usage::error("standard output takes one object after another with brigade cat"))
            }
            None => Ok(Self::Folder(typed.into())),
            Some(url) => Ok(Self::Objects(url)),
        }
    }
}

/// Whether `cp` or `mv` means many objects: they were told so, or the source has a `*`. Keys that hold one are
/// rare, while those with a `?` or a `[` are taken as they stand, as they were before there were wildcards.
pub(crate) fn means_many(args: &CpArgs) -> bool {
    let url = || url(&args.source).ok().flatten();
    let has_star = || {
        url().is_some_and(|url| {
            url.key().contains('*') && Pattern::parse(url.key()).is_ok_and(|it| it.is_glob())
        })
    };
    args.recursive || (!args.job.no_glob && has_star())
}

fn url(typed: &OsStr) -> Result<Option<S3Url>> {
    match typed.to_str() {
        Some(text) if S3Url::looks_like(text) => Ok(Some(text.parse()?)),
        _ => Ok(None),
    }
}

impl Tree {
    /// What `cp -r` means, or `mv -r`.
    pub(crate) fn copying(args: &CpArgs, moves: bool, environment: &Environment) -> Result<Self> {
        let mut tree = Self::of(args, environment)?;
        tree.options.remove_source = moves;
        Ok(tree)
    }

    /// What `sync` means.
    pub(crate) fn syncing(args: &SyncArgs, environment: &Environment) -> Result<Self> {
        let mut tree = Self::of(&args.cp, environment)?;
        let options = &mut tree.options;
        options.compare = Some(if args.size_only || args.checksum {
            Compared::Size
        } else {
            Compared::SizeAndTime
        });
        options.checksum = args.checksum;
        (options.delete, options.max_delete) = (args.delete, args.max_delete);
        Ok(tree)
    }

    fn of(args: &CpArgs, environment: &Environment) -> Result<Self> {
        let (source, target) =
            (End::source(&args.source, args.job.no_glob)?, End::target(&args.target)?);
        let mut options = JobOptions {
            follow_symlinks: !args.job.no_follow_symlinks,
            dry_run: args.job.dry_run,
            fail_fast: args.job.fail_fast,
            filter: filter::filter(&args.job.filter, SystemTime::now())?,
            ..JobOptions::default()
        };
        match (&source, &target) {
            (End::Folder(_), End::Folder(_)) => {
                return Err(Usage::error(
                    "neither SOURCE nor TARGET is in a store; write one of them as \
                     s3://bucket/prefix",
                ));
            }
            (End::Folder(_), _) => {
                options.upload = cp::upload_of_many(args, environment)?;
                options.content_type = args.content_type.is_none().then_some(cp::guessed_type_of);
            }
            (_, End::Folder(_)) => options.download = cp::download_of_many(args, environment)?,
            (_, End::Objects(url) | End::Matching(url, _)) => {
                options.copy = cp::copy_of_many(args, url, environment)?;
            }
        }
        Ok(Self {
            session: session::options(&args.store, environment)?,
            source_session: session::of_source(&args.from, &args.store, environment)?,
            source,
            target,
            options,
            failures: args.job.failures.clone(),
            warnings: session::warnings(&args.store),
        })
    }
}

/// A folder to be held against objects.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) session: SessionOptions,
    pub(crate) folder: End,
    pub(crate) objects: End,
    pub(crate) options: JobOptions,
    pub(crate) warnings: Vec<&'static str>,
}

impl Verification {
    /// What `verify` means.
    pub(crate) fn from_args(args: &VerifyArgs, environment: &Environment) -> Result<Self> {
        let (folder, objects) = (End::source(&args.folder, true)?, End::source(&args.url, true)?);
        if !matches!((&folder, &objects), (End::Folder(_), End::Objects(_))) {
            return Err(Usage::error(
                "it takes a folder and where its objects are; write it as brigade verify DIR \
                 s3://bucket/prefix",
            ));
        }
        let options = JobOptions {
            follow_symlinks: !args.no_follow_symlinks,
            filter: filter::filter(&args.filter, SystemTime::now())?,
            ..JobOptions::default()
        };
        Ok(Self {
            session: session::options(&args.store, environment)?,
            folder,
            objects,
            options,
            warnings: session::warnings(&args.store),
        })
    }
}
