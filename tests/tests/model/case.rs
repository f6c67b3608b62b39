//! A case: what lies on both sides, what is asked for, and what the model says that comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use brigade::DownloadOptions;
use brigade::dataset::{Compared, Filter, FilterOptions, FilterRule, JobOptions};
use brigade_tests::cli::BUCKET;
use proptest::prelude::*;

/// Names that sort in another way with their folders than without, that are a file here and a folder there, and that
/// have to be encoded. None of them differs from another by case alone.
pub(crate) const NAMES: [&str; 22] = [
    "a",
    "a-b",
    "a.b",
    "a.log",
    "a/b",
    "a/b/c",
    "a/b.log",
    "a0",
    "b",
    "b/a",
    "b/c d/e",
    "b/c d.log",
    "b0/[x]*?",
    "deep/er/and/deeper",
    "deep/er/and.log/x",
    "lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll\
     lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
    "x y",
    "z%20+&=",
    "z\n\u{1}",
    "ä/ö",
    "ä/ö.log",
    "🦀",
];

/// Few, so that other contents often have the same size.
pub(crate) const SIZES: [u64; 5] = [0, 1, 7, 1_000, 70_000];
pub(crate) const SEEDS: u64 = 3;

/// Rules, and what they mean, said in another way.
pub(crate) type Means = fn(&str) -> bool;
pub(crate) const RULES: [(&str, Means); 9] = [
    ("*", |_| true),
    ("*.log", |name| name.split('/').any(is_log)),
    ("/*.log", |name| name.split('/').next().is_some_and(is_log)),
    ("a", |name| name.split('/').any(|part| part == "a")),
    ("/a/", |name| name.starts_with("a/")),
    ("a/b", |name| name == "a/b" || name.starts_with("a/b/")),
    ("c d/", |name| name.contains("/c d/") || name.starts_with("c d/")),
    ("deep/**/deeper", |name| name == "deep/er/and/deeper"),
    ("[äz]*", |name| name.split('/').any(|part| part.starts_with(['ä', 'z']))),
];

fn is_log(part: &str) -> bool {
    part.strip_suffix("log").is_some_and(|bare| bare.ends_with('.'))
}

pub(crate) const DAY: Duration = Duration::from_hours(24);

/// One job.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) way: Way,
    pub(crate) compared: What,
    pub(crate) delete: bool,
    pub(crate) max_delete: Option<u64>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) min_size: Option<u64>,
    pub(crate) max_size: Option<u64>,
    /// Only what was written within an hour, or will be.
    pub(crate) only_new: bool,
    pub(crate) source: Tree,
    pub(crate) target: Tree,
}

pub(crate) type Tree = BTreeMap<&'static str, File>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
    Between,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// `cp -r`: all is moved.
    Nothing,
    SizeAndTime,
    Size,
    Checksum,
}

#[derive(Clone, Copy)]
pub(crate) struct File {
    pub(crate) size: u64,
    pub(crate) seed: u64,
    pub(crate) written: Written,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Written {
    Yesterday,
    Now,
    Tomorrow,
    /// When the object of that name was.
    AsTheObject,
}

/// Whether it includes, and which of [`RULES`].
#[derive(Clone, Copy)]
pub(crate) struct Rule(bool, usize);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.0 { "include" } else { "exclude" }, RULES[self.1].0)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes #{} {:?}", self.size, self.seed, self.written)
    }
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let written = prop_oneof![
        4 => Just(Written::Yesterday),
        1 => Just(Written::Now),
        1 => Just(Written::Tomorrow),
        4 => Just(Written::AsTheObject),
    ];
    let file = (prop::sample::select(&SIZES[..]), 0..SEEDS, written)
        .prop_map(|(size, seed, written)| File { size, seed, written });
    let tree =
        || prop::collection::btree_map(prop::sample::select(&NAMES[..]), file.clone(), 0..16);
    let what = prop::sample::select(vec![
        What::Nothing,
        What::SizeAndTime,
        What::SizeAndTime,
        What::Size,
        What::Checksum,
    ]);
    let rule = (any::<bool>(), 0..RULES.len()).prop_map(|(includes, at)| Rule(includes, at));
    let rules = prop::collection::vec(rule, 0..4);
    let some_rules = prop_oneof![Just(Vec::new()), rules];
    let bound = || prop::option::weighted(0.2, prop::sample::select(&SIZES[..]));
    let switches = (
        any::<bool>(),
        prop::option::weighted(0.3, 0_u64..6),
        some_rules,
        bound(),
        bound(),
        prop::bool::weighted(0.1),
    );
    let way = prop::sample::select(vec![Way::Up, Way::Down, Way::Between]);
    (way, what, switches, tree(), tree()).prop_map(|(way, compared, switches, source, target)| {
        let (delete, max_delete, rules, min_size, max_size, only_new) = switches;
        // Of two objects that differ in content the times may decide, which the store gives them here.
        let is_undecided = (way, compared) == (Way::Between, What::Checksum);
        let compared = if is_undecided { What::SizeAndTime } else { compared };
        // Bounds that nothing is within are refused.
        let max_size = max_size.map(|max| max.max(min_size.unwrap_or(0)));
        // A copy compares nothing, so there is nothing that only its target has.
        let delete = delete && compared != What::Nothing;
        let max_delete = max_delete.filter(|_| delete);
        Case {
            way,
            compared,
            delete,
            max_delete,
            rules,
            min_size,
            max_size,
            only_new,
            source,
            target,
        }
    })
}

/// What is found on a side.
pub(crate) type Found = BTreeMap<String, Seen>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    /// Which of the contents.
    pub(crate) seed: u64,
    /// Since 1970.
    pub(crate) time: Duration,
}

/// What a job comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What is moved and deleted: from where, to where, and bytes.
    pub(crate) done: BTreeSet<String>,
    /// What cannot be.
    pub(crate) refused: BTreeSet<String>,
    pub(crate) bytes: u64,
    pub(crate) same: u64,
    pub(crate) not_deleted: u64,
}

/// What the model says of one case.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) outcome: Outcome,
    pub(crate) moved: BTreeSet<String>,
    pub(crate) deleted: BTreeSet<String>,
}

impl Case {
    fn admits(&self, name: &str, seen: &Seen, since: Duration) -> bool {
        let last = self.rules.iter().rev().find(|rule| RULES[rule.1].1(name));
        last.is_none_or(|rule| rule.0)
            && self.min_size.is_none_or(|min| seen.size >= min)
            && self.max_size.is_none_or(|max| seen.size <= max)
            && (!self.only_new || seen.time >= since)
    }

    fn differs(&self, source: &Seen, target: &Seen) -> bool {
        source.size != target.size
            || match self.compared {
                What::Nothing => true,
                What::Size => false,
                What::Checksum => source.seed != target.seed,
                // Whole seconds: fractions are not known everywhere.
                What::SizeAndTime if self.way == Way::Down => {
                    source.time.as_secs() != target.time.as_secs()
                }
                What::SizeAndTime => source.time.as_secs() > target.time.as_secs(),
            }
    }

    /// What is to be done with both sides as they are, where the target has these folders.
    pub(crate) fn model(&self, place: &Place, now: &Sides) -> Model {
        let mut model = Model::default();
        let Sides { source, target, folders } = now;
        let admits = |name: &str, seen| self.admits(name, seen, place.since);
        let outcome = &mut model.outcome;
        for (name, seen) in source.iter().filter(|(name, seen)| admits(name, seen)) {
            if target.get(name).is_some_and(|there| !self.differs(seen, there)) {
                outcome.same += 1;
                continue;
            }
            let (from, to) = (place.of(true, name), place.of(false, name));
            let is_file = |outer: &str| target.contains_key(outer) || model.moved.contains(outer);
            let is_below_a_file = name.match_indices('/').any(|(at, _)| is_file(&name[..at]));
            if self.way == Way::Down && (is_below_a_file || folders.contains(name)) {
                outcome.refused.insert(from);
                continue;
            }
            outcome.bytes += seen.size;
            outcome.done.insert(format!("{from} -> {to}: {}", seen.size));
            model.moved.insert(name.clone());
        }
        if self.delete {
            let extra = target.iter().filter(|(name, _)| !source.contains_key(*name));
            model.deleted = extra
                .filter(|(name, seen)| admits(name, seen))
                .map(|(name, _)| name.clone())
                .collect();
            let count = model.deleted.len() as u64;
            if !outcome.refused.is_empty() || self.max_delete.is_some_and(|max| count > max) {
                model.deleted.clear();
                outcome.not_deleted = count;
            }
            outcome.done.extend(
                model.deleted.iter().map(|name| format!("delete {}", place.of(false, name))),
            );
        }
        model
    }

    pub(crate) fn options(&self, place: &Place, dry_run: bool) -> JobOptions {
        let rule =
            |rule: &Rule| FilterRule { includes: rule.0, pattern: RULES[rule.1].0.to_owned() };
        let filter = Filter::new(&FilterOptions {
            rules: self.rules.iter().map(rule).collect(),
            newer_than: self.only_new.then_some(SystemTime::UNIX_EPOCH + place.since),
            min_size_bytes: self.min_size,
            max_size_bytes: self.max_size,
            ..FilterOptions::default()
        });
        JobOptions {
            // A sync does so by itself.
            download: DownloadOptions {
                keep_modified: self.compared == What::Nothing,
                ..DownloadOptions::default()
            },
            filter: filter.expect("sound"),
            compare: match self.compared {
                What::Nothing => None,
                What::SizeAndTime => Some(Compared::SizeAndTime),
                What::Size | What::Checksum => Some(Compared::Size),
            },
            checksum: self.compared == What::Checksum,
            delete: self.delete,
            max_delete: self.max_delete,
            dry_run,
            ..JobOptions::default()
        }
    }

    /// The same for the command.
    pub(crate) fn line(&self, place: &Place, dry_run: bool) -> Vec<String> {
        let mut line: Vec<String> = match self.compared {
            What::Nothing => vec!["cp".into(), "-r".into()],
            _ => vec!["sync".into()],
        };
        line.extend([place.of(true, ""), place.of(false, ""), "--json".into()]);
        let mut add = |name: &str, value: String| line.push(format!("--{name}={value}"));
        for Rule(includes, rule) in &self.rules {
            add(if *includes { "include" } else { "exclude" }, RULES[*rule].0.into());
        }
        for (name, bound) in [("min-size", self.min_size), ("max-size", self.max_size)] {
            if let Some(bound) = bound {
                add(name, bound.to_string());
            }
        }
        if let Some(max) = self.max_delete {
            add("max-delete", max.to_string());
        }
        if self.only_new {
            add("newer-than", "1h".into());
        }
        let switches = [
            ("--delete", self.delete),
            ("--size-only", self.compared == What::Size),
            ("--checksum", self.compared == What::Checksum),
            ("--dry-run", dry_run),
        ];
        line.extend(switches.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.into()));
        line
    }
}

/// Where a case's sides are.
pub(crate) struct Place {
    pub(crate) way: Way,
    pub(crate) folder: PathBuf,
    /// In the bucket, with a `/` at its end.
    pub(crate) prefix: String,
    /// What [`Case::only_new`] goes by.
    pub(crate) since: Duration,
}

impl Place {
    /// Where something of the source or the target is.
    pub(crate) fn of(&self, is_source: bool, name: &str) -> String {
        if self.is_folder(is_source) {
            return self.folder.join(name).display().to_string();
        }
        format!("s3://{BUCKET}/{}{name}", self.prefix(is_source))
    }

    pub(crate) fn is_folder(&self, is_source: bool) -> bool {
        matches!((self.way, is_source), (Way::Up, true) | (Way::Down, false))
    }

    pub(crate) fn prefix(&self, is_source: bool) -> String {
        // One begins as the other does.
        format!("{}{}", self.prefix, if is_source { "p/" } else { "p0/" })
    }
}

/// What is on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) source: Found,
    pub(crate) target: Found,
    /// Folders of the target, where that is one.
    pub(crate) folders: BTreeSet<String>,
}
