//! The names of what is to be deleted, as they are found.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use brigade::dataset::Filter;
use brigade::{Cancel, Entry, Error, ListOptions, Listed, ObjectVersion, Session};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::meaning::{Chosen, Removal};

/// An object to be deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) key: String,
    pub(super) version_id: Option<String>,
    /// Payload bytes, where a listing told.
    pub(super) size_bytes: Option<u64>,
    pub(super) modified: Option<SystemTime>,
    pub(super) is_delete_marker: bool,
}

/// Finds names.
#[derive(Clone)]
pub(super) struct Asked {
    session: Session,
    versions: bool,
    version_id: Option<String>,
    filter: Filter,
    cancel: Cancel,
    problems: Problems,
}

/// Why listings ended early.
#[derive(Clone, Default)]
pub(super) struct Problems(Arc<Mutex<Vec<Error>>>);

impl Problems {
    pub(super) fn take(&self) -> Vec<Error> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }
}

impl Asked {
    pub(super) fn new(removal: &Removal, session: &Session, cancel: Cancel) -> Self {
        Self {
            session: session.clone(),
            versions: removal.versions,
            version_id: removal.version_id.clone(),
            filter: removal.filter.clone(),
            cancel,
            problems: Problems::default(),
        }
    }

    /// Where it is told why a listing ended early.
    pub(super) fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// All that is meant by `chosen`, one after the other.
    pub(super) fn names(self, chosen: Vec<Chosen>) -> BoxStream<'static, Named> {
        let asked = self;
        futures::stream::iter(chosen).flat_map(move |chosen| asked.clone().names_of(chosen)).boxed()
    }

    fn names_of(self, chosen: Chosen) -> BoxStream<'static, Named> {
        let bucket = self.session.bucket(chosen.bucket());
        let found = match (&chosen, self.versions) {
            (Chosen::One(url), false) => {
                let named = Named {
                    key: url.key().to_owned(),
                    version_id: self.version_id,
                    ..Named::default()
                };
                return futures::stream::iter([named]).boxed();
            }
            (_, true) => bucket.list_versions(chosen.prefix()).map_ok(of_version).boxed(),
            (_, false) => {
                let options = ListOptions { cancel: self.cancel, ..ListOptions::default() };
                let listing = bucket.list(chosen.prefix(), options);
                let objects = |listed| std::future::ready(Ok(of_listed(listed)));
                listing.try_filter_map(objects).boxed()
            }
        };
        let (problems, filter) = (self.problems, self.filter);
        let good = found.filter_map(move |found| {
            let good = found.map_err(|error| problems.add(error)).ok();
            std::future::ready(good)
        });
        // A store may take a prefix for a hint.
        let is_meant = move |named: &Named| {
            chosen.holds(&named.key) && (filter.is_empty() || admits(&filter, &chosen, named))
        };
        good.filter(move |named| std::future::ready(is_meant(named))).boxed()
    }
}

fn admits(filter: &Filter, chosen: &Chosen, named: &Named) -> bool {
    let mut entry = Entry::default();
    named.key.strip_prefix(chosen.root()).unwrap_or(&named.key).clone_into(&mut entry.name);
    entry.size_bytes = named.size_bytes.unwrap_or(0);
    entry.modified = named.modified;
    filter.admits(&entry)
}

fn of_version(version: ObjectVersion) -> Named {
    Named {
        key: version.key,
        version_id: version.version_id,
        size_bytes: Some(version.size_bytes),
        modified: version.modified,
        is_delete_marker: version.is_delete_marker,
    }
}

fn of_listed(listed: Listed) -> Option<Named> {
    match listed {
        Listed::Object(entry) => Some(Named {
            key: entry.name,
            size_bytes: Some(entry.size_bytes),
            modified: entry.modified,
            ..Named::default()
        }),
        Listed::Prefix(_) => None,
    }
}
