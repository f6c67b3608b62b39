//! `brigade du`: how many objects and bytes there are, by folder and storage class.
//!
//! Holds a sum for each folder that is told of, and nothing of the keys.

use std::collections::BTreeMap;

use anyhow::Result;
use brigade::{Listing, Session};
use serde::Serialize;

use super::block_on;
use super::watch::Watch;
use crate::args::DuArgs;
use crate::exit::Exit;
use crate::meaning::{Listed, ListedKeys as Keys, Shape};
use crate::printer::Printer;
use crate::stdout::Rows;

/// Wide enough for a tebibyte in bytes, and for any size as people read it.
const SIZE_COLUMNS: usize = 13;

/// Wide enough for ten billions.
const COUNT_COLUMNS: usize = 11;

/// What a folder or a storage class has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Sum {
    objects: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Serialize)]
struct FolderRow<'a> {
    event: &'static str,
    prefix: &'a str,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Serialize)]
struct TotalRow<'a> {
    event: &'static str,
    url: String,
    #[serde(flatten)]
    sum: Sum,
    by_storage_class: &'a BTreeMap<String, Sum>,
}

/// See the module.
struct Du<'a> {
    keys: &'a Keys,
    /// Levels of folders that are told of.
    depth: u32,
    /// What folders are counted from.
    base: usize,
    total: Sum,
    folders: BTreeMap<String, Sum>,
    classes: BTreeMap<String, Sum>,
}

pub(super) fn run(args: &DuArgs, listed: &Listed, printer: &mut Printer) -> Result<Exit> {
    let Some(keys) = &listed.keys else { return Ok(Exit::USAGE) };
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        for warning in &listed.warnings {
            watch.printer.warning(warning);
        }
        let session = watch.until(Session::new(listed.session.clone())).await?;
        let listing = session.bucket(keys.url.bucket());
        let listing = listing.list(keys.prefix(), keys.options(true));
        let mut du = Du::new(keys, args.depth.unwrap_or(0));
        watch.until(du.count(listing)).await?;
        let mut rows = Rows::open(listed.shape.is_terminal)?;
        du.tell(listed.shape, &mut rows)?;
        rows.finish()?;
        Ok(Exit::SUCCESS)
    })
}

impl<'a> Du<'a> {
    fn new(keys: &'a Keys, depth: u32) -> Self {
        let base = keys.prefix().rfind('/').map_or(0, |at| at + 1);
        let (folders, classes) = <(BTreeMap<_, _>, BTreeMap<_, _>)>::default();
        Self { keys, depth, base, total: Sum::default(), folders, classes }
    }

    async fn count(&mut self, mut listing: Listing) -> Result<()> {
        while let Some(batch) = listing.next_batch().await {
            for listed in batch? {
                if let brigade::Listed::Object(entry) = listed
                    && self.keys.has(&entry.name)
                {
                    let class = entry.storage_class.as_deref().unwrap_or("STANDARD");
                    self.add(&entry.name, entry.size_bytes, class);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &str, bytes: u64, class: &str) {
        self.total.add(bytes);
        add_to(&mut self.classes, class, bytes);
        let slashes = key[self.base..].match_indices('/').take(self.depth as usize);
        for (at, _) in slashes {
            add_to(&mut self.folders, &key[..=self.base + at], bytes);
        }
    }

    fn tell(&self, shape: Shape, rows: &mut Rows) -> Result<()> {
        let url = self.keys.url.to_string();
        if shape.is_json {
            for (prefix, sum) in &self.folders {
                rows.json(&FolderRow { event: "folder", prefix, sum: *sum })?;
            }
            let (sum, by_storage_class) = (self.total, &self.classes);
            return rows.json(&TotalRow { event: "total", url, sum, by_storage_class });
        }
        let mut row = |sum: Sum, what: &str| {
            let (bytes, objects) = (shape.size(sum.bytes), sum.objects);
            rows.line(format_args!("{bytes:>SIZE_COLUMNS$} {objects:>COUNT_COLUMNS$}  {what}"))
        };
        for (prefix, sum) in &self.folders {
            row(*sum, &shape.name(&format!("s3://{}/{prefix}", self.keys.url.bucket())))?;
        }
        // One class needs no word, if it is the usual one.
        if self.classes.keys().any(|class| class != "STANDARD") {
            for (class, sum) in &self.classes {
                row(*sum, &format!("{} of storage class", shape.name(class)))?;
            }
        }
        row(self.total, &shape.name(&url))
    }
}

/// Adds to the sum of `name`. Most keys are of a folder that is there, and need no copy of its name.
fn add_to(sums: &mut BTreeMap<String, Sum>, name: &str, bytes: u64) {
    match sums.get_mut(name) {
        Some(sum) => sum.add(bytes),
        None => sums.entry(name.to_owned()).or_default().add(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::DuArgs;
    use crate::environment::Environment;

    #[test]
    fn folders_are_counted_from_the_one_that_is_asked_for() {
        let url = "s3://b/logs/20".to_owned();
        let listed = Listed::from_du(&DuArgs { url, ..DuArgs::default() }, &Environment::default());
        let listed = listed.expect("keys");
        let mut du = Du::new(listed.keys.as_ref().expect("keys"), 2);
        for (key, bytes) in [
            ("logs/20", 1),
            ("logs/2025/11/a", 10),
            ("logs/2025/11/b/c", 100),
            ("logs/2026/", 1000),
            ("logs/2026//x", 10_000),
        ] {
            du.add(key, bytes, if bytes == 1 { "GLACIER" } else { "STANDARD" });
        }
        let sum = |objects, bytes| Sum { objects, bytes };
        assert_eq!(du.total, sum(5, 11_111));
        let folders: Vec<_> = du.folders.iter().map(|(name, sum)| (name.as_str(), *sum)).collect();
        let expected = [
            ("logs/2025/", sum(2, 110)),
            ("logs/2025/11/", sum(2, 110)),
            ("logs/2026/", sum(2, 11_000)),
            ("logs/2026//", sum(1, 10_000)),
        ];
        assert_eq!(folders, expected);
        assert_eq!(du.classes["GLACIER"], sum(1, 1));
    }
}
