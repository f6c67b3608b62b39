//! Keys with wildcards: `s3://logs/2026-*/*.gz`.
//!
//! What comes before the first wildcard is the prefix that a store is asked to list, so that of a large bucket
//! only that is looked at; what is listed is then matched as a whole. Names below the last `/` before
//! the wildcard are what a copy keeps: `2026-*/*.gz` into a folder makes `2026-11/a.gz` there.

use regex::bytes::Regex;

use super::glob::Glob;
use crate::error::{Error, ErrorKind, Result};

/// A key as typed, which may have wildcards.
///
/// | written | stands for |
/// |---|---|
/// | `*` | any number of characters, but no `/` |
/// | `?` | one character, but not `/` |
/// | `[a-z_]`, `[!a-z]` | one character that is, or is not, in the set; never `/` |
/// | `**` | anything, `/` too |
/// | `**/` at the begin or after a `/` | any number of folders, none as well |
/// | `\*`, `\?`, `\[`, `\]`, `\\` | that character itself; elsewhere a backslash is a backslash |
///
/// A character is one of Unicode's. Who means a key that holds such characters either escapes them or does
/// not read the key as a pattern at all: that is the caller's choice (`--no-glob`).
///
/// ```
/// use brigade::dataset::Pattern;
///
/// let pattern = Pattern::parse("logs/2026-*/*.gz")?;
/// assert!(pattern.is_glob());
/// assert_eq!((pattern.prefix(), pattern.base()), ("logs/2026-", "logs/"));
/// assert!(pattern.matches("logs/2026-11/a.gz"));
/// assert!(!pattern.matches("logs/2026-11/old/a.gz"));
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pattern {
    prefix: String,
    /// Unset where there is no wildcard: the prefix is the key then.
    regex: Option<Regex>,
}

impl Pattern {
    /// Reads the part of an S3 URL after the bucket.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] where the pattern makes no sense: a `[` that is not closed, a range that
    /// is empty, a slash in a set.
    pub fn parse(key_part: &str) -> Result<Self> {
        let refuse =
            |why: String| Error::new(ErrorKind::InvalidInput, "read the pattern", key_part, why);
        let glob = Glob::parse(key_part).map_err(|why| {
            refuse(why).advise("a \\ before the [ makes it an ordinary character")
        })?;
        let regex = if glob.is_glob() {
            let regex = Regex::new(&format!("(?s)\\A{}\\z", glob.regex()));
            Some(regex.map_err(|_| refuse("it is too complex".to_owned()))?)
        } else {
            None
        };
        Ok(Self { prefix: glob.prefix(), regex })
    }

    /// Whether there is a wildcard; without one [`Pattern::prefix`] is the key that is meant.
    pub fn is_glob(&self) -> bool {
        self.regex.is_some()
    }

    /// What every matching key begins with, escapes resolved: the prefix to list under.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix up to and with its last `/`; empty where it has none. What follows it in a matching key
    /// is the name that a copy gives it.
    pub fn base(&self) -> &str {
        &self.prefix[..self.prefix.rfind('/').map_or(0, |at| at + 1)]
    }

    /// Whether `key`, a whole key, is one of those meant.
    pub fn matches(&self, key: &str) -> bool {
        match &self.regex {
            // Most keys that don't match are told by the prefix, where one lists more than was asked.
            Some(regex) => key.starts_with(&self.prefix) && regex.is_match(key.as_bytes()),
            None => key == self.prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_prefix_ends_at_the_first_wildcard_and_the_base_at_the_slash_before() {
        for (text, prefix, base, is_glob) in [
            ("logs/2026-*/*.gz", "logs/2026-", "logs/", true),
            ("*", "", "", true),
            ("a/b", "a/b", "a/", false),
            ("a/**/b", "a/", "a/", true),
            ("a/b[0-9]", "a/b", "a/", true),
            ("a\\*b/c?", "a*b/c", "a*b/", true),
            ("a\\*b", "a*b", "", false),
            ("", "", "", false),
            ("é/ü*", "é/ü", "é/", true),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            assert_eq!((pattern.prefix(), pattern.base()), (prefix, base), "{text}");
            assert_eq!(pattern.is_glob(), is_glob, "{text}");
        }
    }

    #[test]
    fn without_a_wildcard_it_is_one_key() {
        let pattern = Pattern::parse("a\\b/c.txt").expect("a key");
        assert!(pattern.matches("a\\b/c.txt"));
        assert!(!pattern.matches("a\\b/c.txt2") && !pattern.matches("a\\b/cxtxt"));
    }

    #[test]
    fn a_malformed_pattern_is_refused_in_one_line() {
        assert_eq!(
            Pattern::parse("logs/[2026").expect_err("malformed").to_string(),
            "read the pattern logs/[2026: a [ is not closed; \
             a \\ before the [ makes it an ordinary character"
        );
    }

    #[test]
    fn the_longest_pattern_that_is_a_key_is_taken() {
        let text = "*a".repeat(512);
        let pattern = Pattern::parse(&text).expect("not too complex");
        assert!(pattern.matches(&"a".repeat(1024)));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(1023))));
    }

    proptest! {
        #[test]
        fn what_matches_begins_with_prefix_and_base(text in "[ab/\\\\*?\\[\\]]{0,10}", key in "[ab/*?\\\\]{0,8}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert!(pattern.prefix().starts_with(pattern.base()));
                if pattern.matches(&key) {
                    prop_assert!(key.starts_with(pattern.prefix()));
                }
            }
        }

        #[test]
        fn an_escaped_key_is_found_as_it_is(key in "\\PC{0,30}") {
            let mut escaped = String::new();
            for c in key.chars() {
                if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            let pattern = Pattern::parse(&escaped).expect("a key");
            prop_assert!(!pattern.is_glob() && pattern.matches(&key));
        }
    }
}
