//! `brigade ls`: buckets, one level of folders, or all keys, a line each, as they come.

use std::time::SystemTime;

use anyhow::Result;
use brigade::{Entry, Error, ErrorKind, Listing, Session};
use serde::Serialize;

use super::block_on;
use super::watch::Watch;
use crate::args::LsArgs;
use crate::exit::Exit;
use crate::format::{count, date, one_line};
use crate::meaning::{Listed, ListedKeys as Keys, Shape};
use crate::printer::Printer;
use crate::stdout::Rows;
use brigade::limits::format_size;

/// Wide enough for a tebibyte in bytes, and for any size as people read it.
const SIZE_COLUMNS: usize = 13;

/// Wide enough for [`date`].
const DATE_COLUMNS: usize = 19;

#[derive(Serialize)]
struct BucketRow<'a> {
    event: &'static str,
    bucket: &'a str,
    created: Option<String>,
}

#[derive(Serialize)]
struct PrefixRow<'a> {
    event: &'static str,
    prefix: &'a str,
}

#[derive(Serialize)]
struct ObjectRow<'a> {
    event: &'static str,
    key: &'a str,
    size_bytes: u64,
    modified: Option<String>,
    etag: Option<&'a str>,
    storage_class: &'a str,
}

/// What there was.
#[derive(Debug, Default, Serialize)]
struct Sum {
    objects: u64,
    bytes: u64,
    prefixes: u64,
}

#[derive(Serialize)]
struct SumRow<'a> {
    event: &'static str,
    #[serde(flatten)]
    sum: &'a Sum,
}

pub(super) fn run(args: &LsArgs, listed: &Listed, printer: &mut Printer) -> Result<Exit> {
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        for warning in &listed.warnings {
            watch.printer.warning(warning);
        }
        let session = watch.until(Session::new(listed.session.clone())).await?;
        let mut rows = Rows::open(listed.shape.is_terminal)?;
        let told = match &listed.keys {
            None => watch.until(buckets(&session, listed.shape, &mut rows)).await,
            Some(keys) => {
                let ls = Ls { keys, shape: listed.shape, args };
                let listing = session.bucket(keys.url.bucket());
                let listing = listing.list(keys.prefix(), keys.options(args.recursive));
                watch.until(ls.run(listing, &mut rows)).await
            }
        };
        // What came before an error is told before it.
        rows.finish()?;
        told?;
        Ok(Exit::SUCCESS)
    })
}

async fn buckets(session: &Session, shape: Shape, rows: &mut Rows) -> Result<()> {
    for bucket in session.buckets().await? {
        if shape.is_json {
            let created = bucket.created.map(rfc3339);
            rows.json(&BucketRow { event: "bucket", bucket: &bucket.name, created })?;
        } else {
            let created = bucket.created.map_or_else(String::new, date);
            rows.line(format_args!("{created:DATE_COLUMNS$} {}", shape.name(&bucket.name)))?;
        }
    }
    Ok(())
}

/// One run over keys.
struct Ls<'a> {
    keys: &'a Keys,
    shape: Shape,
    args: &'a LsArgs,
}

impl Ls<'_> {
    async fn run(&self, mut listing: Listing, rows: &mut Rows) -> Result<()> {
        let mut sum = Sum::default();
        while let Some(batch) = listing.next_batch().await {
            for listed in batch? {
                match listed {
                    brigade::Listed::Object(entry) if self.keys.has(&entry.name) => {
                        sum.objects += 1;
                        sum.bytes = sum.bytes.saturating_add(entry.size_bytes);
                        self.object(&entry, rows)?;
                    }
                    brigade::Listed::Object(_) => {}
                    brigade::Listed::Prefix(prefix) => {
                        sum.prefixes += 1;
                        self.prefix(&prefix, rows)?;
                    }
                }
            }
            rows.page_is_over()?;
        }
        if sum.objects + sum.prefixes == 0 && !self.keys.url.key().is_empty() {
            let url = self.keys.url.to_string();
            let error = Error::new(ErrorKind::NotFound, "list", url, "no key is like that");
            return Err(error.advise("check the prefix").into());
        }
        if self.args.summarize {
            self.sum(&sum, rows)?;
        }
        Ok(())
    }

    fn object(&self, entry: &Entry, rows: &mut Rows) -> Result<()> {
        if self.shape.is_json {
            return rows.json(&ObjectRow {
                event: "object",
                key: &entry.name,
                size_bytes: entry.size_bytes,
                modified: entry.modified.map(rfc3339),
                etag: entry.etag.as_deref(),
                storage_class: entry.storage_class.as_deref().unwrap_or("STANDARD"),
            });
        }
        let modified = entry.modified.map_or_else(String::new, date);
        let bytes = self.shape.size(entry.size_bytes);
        let name = self.shape.name(self.below(&entry.name));
        rows.line(format_args!("{modified:DATE_COLUMNS$} {bytes:>SIZE_COLUMNS$} {name}"))
    }

    fn prefix(&self, prefix: &str, rows: &mut Rows) -> Result<()> {
        if self.shape.is_json {
            return rows.json(&PrefixRow { event: "prefix", prefix });
        }
        let columns = DATE_COLUMNS + 1 + SIZE_COLUMNS;
        rows.line(format_args!("{:>columns$} {}", "PRE", self.shape.name(self.below(prefix))))
    }

    /// As it is shown: below the folder that is listed, or whole where many folders are.
    fn below<'n>(&self, name: &'n str) -> &'n str {
        if self.args.recursive || self.keys.pattern.is_some() {
            return name;
        }
        let prefix = self.keys.prefix();
        &name[prefix.rfind('/').map_or(0, |at| at + 1)..]
    }

    fn sum(&self, sum: &Sum, rows: &mut Rows) -> Result<()> {
        if self.shape.is_json {
            return rows.json(&SumRow { event: "sum", sum });
        }
        let bytes = self.shape.size(sum.bytes);
        let unit = if self.shape.is_human { "" } else { " bytes" };
        rows.line(format_args!("\n{}, {bytes}{unit}", count(sum.objects, "object")))
    }
}

impl Shape {
    /// A size, as it is to be told.
    pub(super) fn size(self, bytes: u64) -> String {
        if self.is_human { format_size(bytes) } else { bytes.to_string() }
    }

    /// A name, as a terminal may have it.
    pub(super) fn name(self, name: &str) -> String {
        if self.is_terminal { one_line(name) } else { name.to_owned() }
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
