//! `brigade ls` and `brigade du` as meant: which keys, and how they are told.

use std::io::IsTerminal as _;

use anyhow::Result;
use brigade::dataset::Pattern;
use brigade::{ListOptions, S3Url, SessionOptions};

use super::session;
use crate::args::{DuArgs, LsArgs, ShapeArgs, StoreArgs};
use crate::environment::Environment;

/// What is listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) session: SessionOptions,
    /// `None` for the buckets.
    pub(crate) keys: Option<Keys>,
    pub(crate) shape: Shape,
    /// What the person should hear first.
    pub(crate) warnings: Vec<&'static str>,
}

/// Keys of a bucket.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) url: S3Url,
    pub(crate) pattern: Option<Pattern>,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Sizes as people read them.
    pub(crate) is_human: bool,
    /// Control characters are shown, not sent.
    pub(crate) is_terminal: bool,
    pub(crate) is_json: bool,
}

impl Listed {
    /// For `ls`.
    pub(crate) fn from_ls(args: &LsArgs, environment: &Environment) -> Result<Self> {
        Self::of(args.url.as_deref(), args.shape, &args.store, environment)
    }

    /// For `du`.
    pub(crate) fn from_du(args: &DuArgs, environment: &Environment) -> Result<Self> {
        Self::of(Some(&args.url), args.shape, &args.store, environment)
    }

    fn of(
        url: Option<&str>,
        shape: ShapeArgs,
        store: &StoreArgs,
        environment: &Environment,
    ) -> Result<Self> {
        let keys = url.map(|url| Keys::parse(url, !shape.no_glob)).transpose()?;
        let is_terminal = std::io::stdout().is_terminal();
        Ok(Self {
            session: session::options(store, environment)?,
            keys,
            shape: Shape {
                is_human: shape.human_readable || (is_terminal && !shape.bytes),
                is_terminal,
                is_json: shape.json,
            },
            warnings: session::warnings(store),
        })
    }
}

impl Keys {
    fn parse(url: &str, reads_wildcards: bool) -> Result<Self> {
        // A bucket with a slash behind it and one without are the same.
        let url: S3Url = url.parse()?;
        let pattern = if reads_wildcards {
            let pattern = Pattern::parse(url.key())?;
            // Without wildcards, what is written escaped is meant without.
            return Ok(if pattern.is_glob() {
                Self { url, pattern: Some(pattern) }
            } else {
                Self { url: url.with_key(pattern.prefix()), pattern: None }
            });
        } else {
            None
        };
        Ok(Self { url, pattern })
    }

    /// What the store is asked for: all keys that begin so.
    pub(crate) fn prefix(&self) -> &str {
        self.pattern.as_ref().map_or(self.url.key(), Pattern::prefix)
    }

    /// Whether a listed key is one of those meant.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(key))
    }

    /// How the store is asked: one level of folders, or everything.
    pub(crate) fn options(&self, is_recursive: bool) -> ListOptions {
        // Wildcards may stand for what is in folders.
        let by_level = !is_recursive && self.pattern.is_none();
        ListOptions { delimiter: by_level.then(|| "/".into()), ..ListOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(url: &str, reads_wildcards: bool) -> Keys {
        Keys::parse(url, reads_wildcards).expect("keys")
    }

    #[test]
    fn wildcards_are_listed_by_what_is_before_them() {
        let some = keys("s3://b/logs/2026-*/*.gz", true);
        assert_eq!(some.prefix(), "logs/2026-");
        assert!(some.has("logs/2026-11/a.gz") && !some.has("logs/2026-11/a.txt"));
        assert_eq!(some.options(false).delimiter, None);
        let plain = keys("s3://b/logs/2026-*/*.gz", false);
        assert_eq!(plain.prefix(), "logs/2026-*/*.gz");
        assert!(plain.has("logs/2026-*/*.gzip"));
    }

    #[test]
    fn without_wildcards_a_level_is_listed_unless_all_is_asked_for() {
        for url in ["s3://b", "s3://b/"] {
            assert_eq!(keys(url, true).prefix(), "");
        }
        let prefix = keys("s3://b/a\\*b", true);
        assert_eq!(prefix.prefix(), "a*b");
        assert_eq!(prefix.options(false).delimiter.as_deref(), Some("/"));
        assert_eq!(prefix.options(true).delimiter, None);
    }
}
