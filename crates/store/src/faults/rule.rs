//! What a script of faults says: which requests, which time, and then what.
//!
//! Everything here is plain data. [`Faults::check`] finds what makes no sense, [`script`](super::script)
//! does the counting and choosing.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::action::Action;
use crate::operation;

/// A script: rules, of which the first that fires for a request decides what becomes of it.
///
/// ```
/// use brigade_store::faults::{Action, Faults, Rule};
///
/// let faults = Faults::from([
///     // Every part fails once.
///     Rule::on("UploadPart").per_part().nth(1).then(Action::answer(503, "SlowDown")),
///     // Then one download in twenty is cut, and it is the same ones in every run.
///     Rule::on("GetObject").chance(0.05).then(Action::cut_response_body(4096)),
/// ])
/// .seeded(7);
/// assert!(faults.check().is_ok());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// What every [`When::chance`] is drawn from: the same seed gives the same faults.
    pub seed: u64,
    /// In order: the first rule that fires for a request wins.
    pub rules: Vec<Rule>,
}

impl Faults {
    /// With another seed.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether all of it makes sense; the error names the first rule that does not.
    pub fn check(&self) -> Result<(), FaultsError> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|problem| FaultsError { rule: Some(index + 1), problem })?;
        }
        Ok(())
    }
}

impl From<Vec<Rule>> for Faults {
    fn from(rules: Vec<Rule>) -> Self {
        Self { seed: 0, rules }
    }
}

impl<const N: usize> From<[Rule; N]> for Faults {
    fn from(rules: [Rule; N]) -> Self {
        Self::from(Vec::from(rules))
    }
}

impl From<Rule> for Faults {
    fn from(rule: Rule) -> Self {
        Self::from([rule])
    }
}

/// What is wrong with a script, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultsError {
    /// The rule's number, from 1; `None` where the file as a whole cannot be read.
    pub rule: Option<usize>,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for FaultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(number) => write!(f, "rule {number}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for FaultsError {}

/// One rule: the requests it is for, when it fires, and what it does then.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Which requests it is for.
    pub matches: Match,
    /// Which of those it fires for.
    pub when: When,
    /// What becomes of the request, in order. Several go together where they are about different things.
    pub actions: Vec<Action>,
}

/// Which requests a rule is for: those that fit every field. The default is all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Any of these operations, by their names in the S3 API (`"Other"` for those the store does not have).
    /// Empty: every operation.
    pub operations: Vec<String>,
    /// The bucket.
    pub bucket: Option<String>,
    /// The key, decoded; with a `*` at the end, every key that begins so.
    pub key: Option<String>,
    /// The part number of the request.
    pub part: Option<RangeInclusive<u32>>,
    /// The first byte that `Range` asks for.
    pub range_start: Option<RangeInclusive<u64>>,
    /// The access key the request is signed with.
    pub access_key: Option<String>,
    /// A header that the request has; with a `*` at the end, any header that begins so.
    pub header: Option<String>,
}

/// Which of the requests it is for a rule fires for. The default is all of them.
#[derive(Clone, Debug)]
pub struct When {
    /// What is counted by itself.
    pub per: Per,
    /// The first request to fire for, from 1.
    pub from: u64,
    /// How often to fire in all, per what is counted. Default: without end.
    pub times: Option<u64>,
    /// Fire for one in so many. Default: 1, each.
    pub every: u64,
    /// How likely to fire where all else says so, from 0 to 1. The draw depends on the script's seed, the
    /// request and how often it was sent, not on the order in which different requests arrive.
    pub chance: f64,
    /// Only from this long after the script was set.
    pub after: Duration,
    /// Only until this long after the script was set. Default: without end.
    pub until: Option<Duration>,
}

impl Default for When {
    fn default() -> Self {
        Self {
            per: Per::Rule,
            from: 1,
            times: None,
            every: 1,
            chance: 1.0,
            after: Duration::ZERO,
            until: None,
        }
    }
}

/// What a rule counts by itself. Requests that an earlier rule decided are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// Everything together.
    #[default]
    Rule,
    /// Each bucket and key.
    Key,
    /// Each operation on each key with each part number or, where there is none, each start of a range. Not
    /// each upload id: a part that is sent again for another upload counts on.
    Part,
    /// Each access key.
    AccessKey,
}

/// Rules are written as sentences: `Rule::on("UploadPart").per_part().nth(1).then(...)`.
impl Rule {
    /// For one operation; `"*"` is every operation.
    pub fn on(operation: &str) -> Self {
        Self::on_any([operation])
    }

    /// For any of several operations.
    pub fn on_any<'a>(operations: impl IntoIterator<Item = &'a str>) -> Self {
        let named = operations.into_iter().filter(|name| *name != "*").map(str::to_owned);
        let matches = Match { operations: named.collect(), ..Match::default() };
        Self { matches, ..Self::default() }
    }

    /// Only in this bucket.
    #[must_use]
    pub fn bucket(mut self, name: &str) -> Self {
        self.matches.bucket = Some(name.to_owned());
        self
    }

    /// Only this key or, with a `*` at the end, keys that begin so.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.matches.key = Some(key.to_owned());
        self
    }

    /// Only this part.
    #[must_use]
    pub fn part(self, number: u32) -> Self {
        self.parts(number..=number)
    }

    /// Only these parts.
    #[must_use]
    pub fn parts(mut self, numbers: RangeInclusive<u32>) -> Self {
        self.matches.part = Some(numbers);
        self
    }

    /// Only ranges that begin at this byte.
    #[must_use]
    pub fn range_start(mut self, byte: u64) -> Self {
        self.matches.range_start = Some(byte..=byte);
        self
    }

    /// Only what is signed with this access key.
    #[must_use]
    pub fn access_key(mut self, access_key: &str) -> Self {
        self.matches.access_key = Some(access_key.to_owned());
        self
    }

    /// Only what has this header or, with a `*` at the end, one that begins so.
    #[must_use]
    pub fn header(mut self, name: &str) -> Self {
        self.matches.header = Some(name.to_owned());
        self
    }

    /// Counts each part (or range, or object) by itself.
    #[must_use]
    pub fn per_part(self) -> Self {
        self.per(Per::Part)
    }

    /// Counts each of these by itself.
    #[must_use]
    pub fn per(mut self, per: Per) -> Self {
        self.when.per = per;
        self
    }

    /// Only for the `number`th, from 1.
    #[must_use]
    pub fn nth(self, number: u64) -> Self {
        self.from_nth(number).times(1)
    }

    /// Not before the `number`th, from 1.
    #[must_use]
    pub fn from_nth(mut self, number: u64) -> Self {
        self.when.from = number;
        self
    }

    /// So often and no more.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.when.times = Some(times);
        self
    }

    /// One in so many.
    #[must_use]
    pub fn every(mut self, every: u64) -> Self {
        self.when.every = every;
        self
    }

    /// With this probability, from 0 to 1.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.when.chance = chance;
        self
    }

    /// Only within this time after the script was set.
    #[must_use]
    pub fn between(mut self, after: Duration, until: Duration) -> Self {
        (self.when.after, self.when.until) = (after, Some(until));
        self
    }

    /// Does this, after what was said before.
    #[must_use]
    pub fn then(mut self, action: impl Into<Action>) -> Self {
        self.actions.push(action.into());
        self
    }

    fn check(&self) -> Result<(), String> {
        for name in &self.matches.operations {
            if !operation::NAMES.contains(&name.as_str()) {
                let names = operation::NAMES.join(", ");
                return Err(format!("no operation {name:?}; `operation` is one of {names}"));
            }
        }
        let When { from, every, times, chance, after, until, .. } = &self.when;
        for (name, value) in [("from", *from), ("every", *every), ("times", times.unwrap_or(1))] {
            if value == 0 {
                return Err(format!("`{name}` is 0; it counts from 1"));
            }
        }
        if !(0.0..=1.0).contains(chance) {
            return Err(format!("`chance` is {chance}; it is a probability from 0 to 1"));
        }
        if until.is_some_and(|until| until <= *after) {
            return Err("`until` is not later than `after`".to_owned());
        }
        if self.actions.is_empty() {
            return Err("it does nothing; give it an action, such as `answer` or `cut`".to_owned());
        }
        self.actions.iter().try_for_each(Action::check)
    }
}
