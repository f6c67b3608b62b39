//! Which objects a URL means: one, all below a prefix, or all that match a pattern.

use std::fmt;

use anyhow::Result;
use brigade::S3Url;
use brigade::dataset::Pattern;

use crate::failure::Usage;

/// Objects in one bucket.
#[derive(Debug, Clone)]
pub(crate) enum Chosen {
    /// The one with this key.
    One(S3Url),
    /// All whose keys begin with the URL's, which is empty or ends in a slash.
    Below(S3Url),
    /// All whose keys match.
    Matching {
        /// As it was typed.
        url: S3Url,
        pattern: Pattern,
    },
}

impl Chosen {
    /// Reads a URL, in which `*`, `?` and `[` are wildcards if `globs`.
    pub(crate) fn parse(typed: &str, globs: bool, recursive: bool) -> Result<Self> {
        if !S3Url::looks_like(typed) {
            return Err(Usage::error(format!("{typed} is not in a store; write s3://bucket/key")));
        }
        let url: S3Url = typed.parse()?;
        let pattern = if globs { Some(Pattern::parse(url.key())?) } else { None };
        match pattern {
            Some(pattern) if pattern.is_glob() && recursive => Err(Usage::error(format!(
                "{typed} has wildcards, which say by themselves what is meant: leave off -r, and write ** \
                 for folders too; or add --no-glob where it is the key that has them"
            ))),
            Some(pattern) if pattern.is_glob() => Ok(Self::Matching { url, pattern }),
            // Without wildcards it is the key that is left once backslashes are resolved.
            Some(pattern) => Ok(Self::plain(url.with_key(pattern.prefix()), recursive)),
            None => Ok(Self::plain(url, recursive)),
        }
    }

    fn plain(url: S3Url, recursive: bool) -> Self {
        if !recursive {
            Self::One(url)
        } else if url.is_prefix() {
            Self::Below(url)
        } else {
            // As in a tree of files, and as `aws s3` has it: logs is not the beginning of logs2.
            Self::Below(url.with_key(format!("{}/", url.key())))
        }
    }

    pub(crate) fn bucket(&self) -> &str {
        self.url().bucket()
    }

    pub(crate) fn url(&self) -> &S3Url {
        match self {
            Self::One(url) | Self::Below(url) | Self::Matching { url, .. } => url,
        }
    }

    /// What all the keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::One(url) | Self::Below(url) => url.key(),
            Self::Matching { pattern, .. } => pattern.prefix(),
        }
    }

    /// What stands before the names that filters are held against.
    pub(crate) fn root(&self) -> &str {
        match self {
            Self::One(_) => "",
            Self::Below(url) => url.key(),
            Self::Matching { pattern, .. } => pattern.base(),
        }
    }

    /// Whether `key` is one of those meant.
    pub(crate) fn holds(&self, key: &str) -> bool {
        match self {
            Self::One(url) => key == url.key(),
            Self::Below(url) => key.starts_with(url.key()),
            Self::Matching { pattern, .. } => pattern.matches(key),
        }
    }

    /// Whether that may well be everything that is in the bucket.
    pub(crate) fn is_whole_bucket(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Below(url) => url.key().is_empty(),
            Self::Matching { url, .. } => url.key().chars().all(|c| matches!(c, '*' | '/')),
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(typed: &str, recursive: bool) -> Chosen {
        Chosen::parse(typed, true, recursive).expect("fine")
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        for typed in ["s3://b/logs", "s3://b/logs/"] {
            let logs = chosen(typed, true);
            assert_eq!(logs.to_string(), "s3://b/logs/");
            assert!(logs.holds("logs/a") && logs.holds("logs//") && logs.holds("logs/"));
            assert!(!logs.holds("logs2/a") && !logs.holds("logs"));
        }
        assert!(
            chosen("s3://b", true).is_whole_bucket() && chosen("s3://b/", true).is_whole_bucket()
        );
        assert!(!chosen("s3://b//", true).is_whole_bucket());
    }

    #[test]
    fn a_wildcard_means_many_and_a_backslash_one() {
        let many = chosen("s3://b/logs/*.gz", false);
        assert_eq!(many.prefix(), "logs/");
        assert!(many.holds("logs/a.gz") && !many.holds("logs/x/a.gz") && !many.is_whole_bucket());
        assert!(chosen("s3://b/**", false).is_whole_bucket());
        for (typed, globs) in [("s3://b/a\\[1]", true), ("s3://b/a[1]", false)] {
            let one = Chosen::parse(typed, globs, false).expect("fine");
            assert!(matches!(&one, Chosen::One(url) if url.key() == "a[1]"), "{one:?}");
        }
        // What is no pattern may still be a key.
        assert!(Chosen::parse("s3://b/a[1", true, false).is_err());
        assert!(Chosen::parse("s3://b/a[1", false, false).is_ok());
        let said = Chosen::parse("s3://b/a*", true, true).expect_err("both").to_string();
        assert!(said.contains("leave off -r"), "{said}");
        let said = Chosen::parse("a/b", true, false).expect_err("a file").to_string();
        assert!(said.contains("write s3://bucket/key"), "{said}");
    }
}
