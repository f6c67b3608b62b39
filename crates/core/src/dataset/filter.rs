//! Which names of a dataset are meant, and of what size and age.
//!
//! Rules exclude or include by patterns, and the last that matches decides. Neighbours of the same kind are
//! one regular expression, so that a name is matched as often as the kind changes, which is seldom, however many rules there are.
//!
//! A pattern that matches a folder matches all that is in it. Unlike git, a rule that comes later may take back part of what is in
//! an excluded folder, since a list has no folders and a walk should find what a list does. A walk stays out of folders where
//! no rule could do so.

use std::time::SystemTime;

use regex::bytes::{Regex, RegexBuilder};

use super::compare::Pair;
use super::entry::Entry;
use super::glob::Glob;
use crate::error::{Error, ErrorKind, Result};

/// The largest expression that rules become, bytes of memory; 100,000 ordinary lines need less.
const MAX_REGEX_BYTES: usize = 256 << 20;

/// What a filter lets through.
///
/// ```
/// use brigade::dataset::{Filter, FilterOptions, FilterRule};
///
/// let rules = vec![FilterRule::exclude("*.tmp"), FilterRule::include("/keep/*.tmp")];
/// let filter = Filter::new(&FilterOptions { rules, ..FilterOptions::default() })?;
/// assert!(!filter.admits_name("a/b.tmp"));
/// assert!(filter.admits_name("keep/b.tmp") && filter.admits_name("a/b"));
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// In order: the last that matches a name decides, and what none matches is let through.
    pub rules: Vec<FilterRule>,
    /// Only what was written at this time or later.
    pub newer_than: Option<SystemTime>,
    /// Only what was written before.
    pub older_than: Option<SystemTime>,
    /// Only what has at least so many bytes.
    pub min_size_bytes: Option<u64>,
    /// Only what has at most so many bytes.
    pub max_size_bytes: Option<u64>,
}

/// One rule. In its pattern `*`, `?`, `[..]`, `**` and `\` mean what they do in a [`Pattern`](super::Pattern), and:
///
/// - without a `/`, other than at the end, it matches a file or a folder of that name anywhere;
/// - with one, at the begin or inside, it matches from the root on;
/// - with one at the end it matches folders only;
/// - what matches a folder matches all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// Whether it lets through what it matches.
    pub includes: bool,
    /// What it matches.
    pub pattern: String,
}

impl FilterRule {
    /// A rule that leaves out what `pattern` matches.
    pub fn exclude(pattern: impl Into<String>) -> Self {
        Self { includes: false, pattern: pattern.into() }
    }

    /// A rule that takes back in what `pattern` matches.
    pub fn include(pattern: impl Into<String>) -> Self {
        Self { includes: true, pattern: pattern.into() }
    }

    /// The rules of a file that is written as a `.gitignore` is: a pattern a line that excludes, or includes after a `!`. Empty lines and
    /// those that begin with `#` are none; `\#` and `\!` begin patterns. Spaces at the end count
    /// only after a `\`.
    ///
    /// ```
    /// use brigade::dataset::FilterRule;
    ///
    /// let rules = FilterRule::of_lines("# scratch\n*.tmp\n!keep.tmp\n");
    /// assert_eq!(rules, [FilterRule::exclude("*.tmp"), FilterRule::include("keep.tmp")]);
    /// ```
    pub fn of_lines(text: &str) -> Vec<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        text.lines().filter_map(Self::of_line).collect()
    }

    fn of_line(line: &str) -> Option<Self> {
        let bare = line.trim_end_matches([' ', '\t', '\r']);
        // An odd number of backslashes: the last one is before the space.
        let backslashes = bare.bytes().rev().take_while(|byte| *byte == b'\\').count();
        let keeps_space = backslashes % 2 == 1 && line[bare.len()..].starts_with([' ', '\t']);
        let mut pattern = bare.to_owned();
        if keeps_space {
            pattern.pop();
            pattern.push_str(&line[bare.len()..=bare.len()]);
        }
        if pattern.is_empty() || pattern.starts_with('#') {
            return None;
        }
        if let Some(pattern) = pattern.strip_prefix('!') {
            return Some(Self::include(pattern));
        }
        if pattern.starts_with("\\#") || pattern.starts_with("\\!") {
            pattern.remove(0);
        }
        Some(Self::exclude(pattern))
    }
}

/// Rules and bounds, ready to be asked. The default lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    groups: Vec<Group>,
    bounds: FilterOptions,
}

/// Neighbouring rules of one kind.
#[derive(Debug, Clone)]
struct Group {
    includes: bool,
    regex: Regex,
    /// What the names that each rule matches begin with; empty where they may be anywhere.
    prefixes: Vec<String>,
}

impl Filter {
    /// Reads the rules.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a pattern that makes no sense, which it names.
    pub fn new(options: &FilterOptions) -> Result<Self> {
        let groups = options.rules.chunk_by(|a, b| a.includes == b.includes);
        let groups = groups.map(Group::new).collect::<Result<_>>()?;
        Ok(Self { groups, bounds: FilterOptions { rules: Vec::new(), ..options.clone() } })
    }

    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.bounds == FilterOptions::default()
    }

    /// Whether `entry` is let through: by its name, and its size and time are within the bounds. A time that is not known
    /// is within none.
    pub fn admits(&self, entry: &Entry) -> bool {
        let FilterOptions { newer_than, older_than, min_size_bytes, max_size_bytes, .. } =
            &self.bounds;
        let modified = entry.modified;
        min_size_bytes.is_none_or(|min| entry.size_bytes >= min)
            && max_size_bytes.is_none_or(|max| entry.size_bytes <= max)
            && newer_than.is_none_or(|bound| modified.is_some_and(|modified| modified >= bound))
            && older_than.is_none_or(|bound| modified.is_some_and(|modified| modified < bound))
            && self.admits_name(&entry.name)
    }

    /// Whether `name` is let through by the rules; `/` at its end says that it is a folder.
    pub fn admits_name(&self, name: &str) -> bool {
        self.decisive(name).is_none_or(|at| self.groups[at].includes)
    }

    /// Whether a pair of a comparison is meant: by its source, the left side, where there is one, else by its target. So what is left
    /// out on the one side is neither transferred nor deleted on the other.
    pub fn admits_pair(&self, pair: &Pair) -> bool {
        pair.left.as_ref().or(pair.right.as_ref()).is_some_and(|entry| self.admits(entry))
    }

    /// Whether something in `folder`, a name that ends with a `/`, may be let through by the rules. Sizes and times are not asked.
    pub fn may_descend(&self, folder: &str) -> bool {
        match self.decisive(folder) {
            Some(at) if !self.groups[at].includes => self.groups[at..].iter().any(|group| {
                let reaches =
                    |prefix: &String| prefix.starts_with(folder) || folder.starts_with(&**prefix);
                group.includes && group.prefixes.iter().any(reaches)
            }),
            _ => true,
        }
    }

    /// The last group that matches.
    fn decisive(&self, name: &str) -> Option<usize> {
        self.groups.iter().rposition(|group| group.regex.is_match(name.as_bytes()))
    }
}

impl Group {
    fn new(rules: &[FilterRule]) -> Result<Self> {
        let mut prefixes = Vec::with_capacity(rules.len());
        let mut regex = String::from("(?s)\\A(?:");
        for (at, rule) in rules.iter().enumerate() {
            let refuse = |why: String| {
                Error::new(ErrorKind::InvalidInput, "read the filter's pattern", &rule.pattern, why)
            };
            if at > 0 {
                regex.push('|');
            }
            let (bare, is_folder) = match rule.pattern.strip_suffix('/') {
                Some(bare) => (bare, true),
                None => (&*rule.pattern, false),
            };
            let from_root = bare.contains('/');
            let bare = bare.strip_prefix('/').unwrap_or(bare);
            if bare.is_empty() {
                return Err(refuse("it is empty".to_owned()));
            }
            let glob = Glob::parse(bare).map_err(|why| {
                refuse(why).advise("a \\ before the [ makes it an ordinary character")
            })?;
            if !from_root {
                regex.push_str("(?:(?-u:.*)/)?");
            }
            regex.push_str(&glob.regex());
            regex.push_str(if is_folder { "/(?-u:.*)" } else { "(?:/(?-u:.*))?" });
            prefixes.push(if from_root { glob.prefix() } else { String::new() });
        }
        regex.push_str(")\\z");
        let built =
            RegexBuilder::new(&regex).size_limit(MAX_REGEX_BYTES).dfa_size_limit(16 << 20).build();
        let regex = built.map_err(|_| {
            let many = format!("{} patterns", rules.len());
            Error::new(ErrorKind::InvalidInput, "read the filter's", many, "they are too complex")
        })?;
        Ok(Self { includes: rules[0].includes, regex, prefixes })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn filter(lines: &str) -> Filter {
        let rules = FilterRule::of_lines(lines);
        Filter::new(&FilterOptions { rules, ..FilterOptions::default() }).expect("sound")
    }

    #[test]
    fn a_pattern_matches_where_its_slashes_say() {
        for (pattern, out, stays) in [
            ("*.log", &["a.log", "x/y/a.log", "dir.log/x"][..], &["a.logs", "a.log2/x"][..]),
            ("/*.log", &["a.log", "dir.log/x"], &["x/a.log"]),
            ("logs/", &["logs/a", "x/logs/b/c", "logs/"], &["logs", "x/logs", "mylogs/a"]),
            ("/logs/", &["logs/a"], &["x/logs/a", "logs"]),
            ("logs/*", &["logs/a", "logs/b/c"], &["x/logs/a", "logs"]),
            ("a/**/b", &["a/b", "a/x/y/b", "a/x/b/c"], &["x/a/b", "a/xb"]),
            ("**/a/b", &["a/b", "x/a/b"], &["a/x/b"]),
            ("build", &["build", "x/build/y"], &["builds"]),
            ("[ab]?", &["a1", "x/bé"], &["c1", "a"]),
            ("a\\*", &["a*"], &["ab"]),
        ] {
            let filter = filter(pattern);
            for name in out {
                assert!(!filter.admits_name(name), "{pattern} should leave out {name}");
            }
            for name in stays {
                assert!(filter.admits_name(name), "{pattern} should not leave out {name}");
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let mixed = filter("*\n!*.txt\nsecret*\n!/open/\n");
        for (name, admitted) in [
            ("a", false),
            ("a.txt", true),
            ("x/y/a.txt", true),
            ("secret.txt", false),
            ("x/secrets/a.txt", false),
            ("open/secret", true),
            ("x/open/a", false),
        ] {
            assert_eq!(mixed.admits_name(name), admitted, "{name}");
        }
        assert!(filter("!*.txt").admits_name("a.gz"), "what no rule matches is let through");
    }

    #[test]
    fn lines_are_read_as_git_reads_them() {
        let text =
            "\u{feff}# comment\n\n  \n*.o  \r\n!keep.o\n\\#name\n\\!name\nspace\\ \nback\\\\ \n";
        let rules = FilterRule::of_lines(text);
        let patterns: Vec<_> = rules.iter().map(|rule| &*rule.pattern).collect();
        assert_eq!(patterns, ["*.o", "keep.o", "#name", "!name", "space ", "back\\\\"]);
        let includes: Vec<_> = rules.iter().filter(|rule| rule.includes).collect();
        assert_eq!(includes, [&FilterRule::include("keep.o")]);
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_named() {
        for (pattern, told) in [
            (
                "a[b",
                "read the filter's pattern a[b: a [ is not closed; \
                 a \\ before the [ makes it an ordinary character",
            ),
            ("/", "read the filter's pattern /: it is empty"),
            ("", "read the filter's pattern: it is empty"),
        ] {
            let rules = vec![FilterRule::exclude("fine"), FilterRule::exclude(pattern)];
            let error = Filter::new(&FilterOptions { rules, ..FilterOptions::default() });
            assert_eq!(error.expect_err(pattern).to_string(), told);
        }
    }

    #[test]
    fn thousands_of_lines_are_taken() {
        let lines: Vec<_> = (0..5000).map(|n| format!("/data/é-{n}-*/**/part-?{n}*.gz")).collect();
        let filter = filter(&lines.join("\n"));
        assert!(!filter.admits_name("data/é-77-x/y/z/part-é77.gz"));
        assert!(filter.admits_name("data/é-77-x/y/z/part-é78.gz"));
    }

    #[test]
    fn bounds_include_their_lower_end_and_sizes_their_upper() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let options = FilterOptions {
            newer_than: Some(at(10)),
            older_than: Some(at(20)),
            min_size_bytes: Some(5),
            max_size_bytes: Some(7),
            ..FilterOptions::default()
        };
        let filter = Filter::new(&options).expect("sound");
        for (size_bytes, modified, admitted) in [
            (5, Some(10), true),
            (7, Some(19), true),
            (4, Some(10), false),
            (8, Some(10), false),
            (5, Some(9), false),
            (5, Some(20), false),
            (5, None, false),
        ] {
            let modified = modified.map(at);
            let entry = Entry { name: "a".into(), size_bytes, modified, ..Entry::default() };
            assert_eq!(filter.admits(&entry), admitted, "{entry:?}");
        }
        assert!(!filter.is_empty() && Filter::default().is_empty());
        assert!(Filter::default().admits(&Entry::default()));
    }

    #[test]
    fn a_pair_is_judged_by_its_source() {
        let options = FilterOptions { max_size_bytes: Some(5), ..FilterOptions::default() };
        let filter = Filter::new(&options).expect("sound");
        let of = |size_bytes| Some(Entry { size_bytes, ..Entry::default() });
        for (left, right, admitted) in
            [(of(6), of(1), false), (of(1), of(6), true), (None, of(6), false), (None, of(1), true)]
        {
            assert_eq!(filter.admits_pair(&Pair { left, right }), admitted);
        }
    }

    #[test]
    fn a_walk_stays_out_where_nothing_can_be_let_through() {
        for (lines, enters, stays_out) in [
            ("*.log", &["a/", "x.logs/"][..], &["x.log/"][..]),
            ("node_modules/", &["a/"], &["node_modules/", "a/node_modules/"]),
            ("*\n!*.txt", &["a/", "a/b/"], &[]),
            ("*\n!/a/b/*.txt", &["a/", "a/b/", "a/b/c/"], &["b/", "a/c/"]),
            ("!keep\n*", &[], &["a/", "keep/"]),
            ("/a/*", &["b/"], &["a/", "a/b/"]),
        ] {
            let filter = filter(lines);
            for folder in enters {
                assert!(filter.may_descend(folder), "{lines:?} should enter {folder}");
            }
            for folder in stays_out {
                assert!(!filter.may_descend(folder), "{lines:?} should not enter {folder}");
            }
        }
    }

    /// Whether `pattern`, of letters, `*` and `/` only, matches `name`, part by part.
    fn naive(pattern: &str, name: &str) -> bool {
        fn part(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|skip| part(rest, &name[skip..])),
                Some((c, rest)) => name.first() == Some(c) && part(rest, &name[1..]),
            }
        }
        let is_folder = pattern.ends_with('/');
        let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
        let from_root = pattern.contains('/');
        let pattern: Vec<_> =
            pattern.strip_prefix('/').unwrap_or(pattern).split('/').map(str::as_bytes).collect();
        let name: Vec<_> = name.split('/').map(str::as_bytes).collect();
        (0..=if from_root { 0 } else { name.len() - 1 }).any(|begin| {
            let rest = &name[begin..];
            let fits = rest.len() > pattern.len() || (rest.len() == pattern.len() && !is_folder);
            fits && pattern.iter().zip(rest).all(|(pattern, name)| part(pattern, name))
        })
    }

    proptest! {
        #[test]
        fn it_decides_as_the_plain_meaning_does(
            rules in prop::collection::vec(
                (any::<bool>(), "/?[ab]\\*?[ab]?(/[ab*][ab]?)?/?"), 0..6),
            names in prop::collection::vec("[ab]{1,2}(/[ab]{1,2}){0,3}", 1..8),
        ) {
            let options = FilterOptions {
                rules: rules.iter().map(|(includes, pattern)| FilterRule {
                    includes: *includes, pattern: pattern.clone(),
                }).collect(),
                ..FilterOptions::default()
            };
            let filter = Filter::new(&options).expect("sound");
            for name in &names {
                let last = rules.iter().rfind(|(_, pattern)| naive(pattern, name));
                let expected = last.is_none_or(|(includes, _)| *includes);
                prop_assert_eq!(filter.admits_name(name), expected, "{} by {:?}", name, rules);
                if expected {
                    for (slash, _) in name.match_indices('/') {
                        let folder = &name[..=slash];
                        prop_assert!(filter.may_descend(folder), "{} by {:?}", folder, rules);
                    }
                }
            }
        }

        #[test]
        fn any_lines_are_read_without_a_panic(text in "[\\\\ #!a/*\t\r\n]{0,30}") {
            let rules = FilterRule::of_lines(&text);
            let _ = Filter::new(&FilterOptions { rules, ..FilterOptions::default() });
        }
    }
}
