//! A script at work: matching requests, counting them, and choosing the rule that fires.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::header;
use http::request::Parts;

use super::Fired;
use super::rule::{Faults, Match, Per, Rule, When};
use crate::draw::{Counts, Draws, hash};
use crate::front::scope;
use crate::operation;

/// A script, with what it counted so far.
pub(crate) struct Script {
    began: Instant,
    rules: Vec<Live>,
}

struct Live {
    rule: std::sync::Arc<Rule>,
    /// How many requests came by, by what is counted.
    counts: Counts,
    draws: Draws,
    fired: AtomicU64,
}

impl Script {
    pub(super) fn new(faults: Faults) -> Self {
        let live = |(number, rule)| Live {
            rule: std::sync::Arc::new(rule),
            counts: Counts::default(),
            draws: Draws::new(faults.seed, number),
            fired: AtomicU64::new(0),
        };
        let rules = (0..).zip(faults.rules).map(live).collect();
        Self { began: Instant::now(), rules }
    }

    /// The rule that fires for a request, if any.
    pub(super) fn choose(&self, operation: &str, request: &Parts) -> Option<std::sync::Arc<Rule>> {
        let asked = Asked::new(operation, request);
        self.rules.iter().find_map(|live| {
            let fires = live.rule.matches.fits(&asked) && self.fires(live, &asked);
            fires.then(|| {
                live.fired.fetch_add(1, Ordering::Relaxed);
                std::sync::Arc::clone(&live.rule)
            })
        })
    }

    pub(super) fn fired(&self) -> Fired {
        let rules: Vec<u64> =
            self.rules.iter().map(|live| live.fired.load(Ordering::Relaxed)).collect();
        Fired { total: rules.iter().sum(), rules }
    }

    fn fires(&self, live: &Live, asked: &Asked<'_>) -> bool {
        let when = &live.rule.when;
        let elapsed = self.began.elapsed();
        if elapsed < when.after || when.until.is_some_and(|until| elapsed >= until) {
            return false;
        }
        let counted = match when.per {
            Per::Rule => 0,
            Per::Key => asked.key_identity(),
            Per::Part => asked.identity(),
            Per::AccessKey => hash(&[asked.access_key.unwrap_or_default().as_bytes()]),
        };
        if !is_due(when, live.counts.count(counted)) {
            return false;
        }
        // A draw for each would be wasted on what always fires.
        when.chance >= 1.0 || live.draws.draw(asked.identity()) < when.chance
    }
}

/// Whether the `number`th of what is counted is one to fire for.
fn is_due(when: &When, number: u64) -> bool {
    let Some(since) = number.checked_sub(when.from) else { return false };
    let every = when.every.max(1);
    since.is_multiple_of(every) && when.times.is_none_or(|times| since / every < times)
}

/// What tells a request from others in draws: its operation, its object, and its part or its start. Not its
/// upload's id, which differs from run to run.
pub(crate) fn identity(operation: &str, request: &Parts) -> u64 {
    Asked::new(operation, request).identity()
}

/// What rules look at in a request.
struct Asked<'a> {
    operation: &'a str,
    request: &'a Parts,
    bucket: String,
    key: String,
    part: Option<u32>,
    range_start: Option<u64>,
    access_key: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn new(operation: &'a str, request: &'a Parts) -> Self {
        let (bucket, key) = operation::bucket_and_key(request);
        let query = request.uri.query().unwrap_or_default();
        let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
        let range = request.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
        Self {
            operation,
            request,
            bucket,
            key,
            part: part.and_then(|number| number.parse().ok()),
            range_start: start.and_then(|start| start.parse().ok()),
            access_key: scope(request).and_then(|(scope, _)| scope.split(['/', '%']).next()),
        }
    }

    fn key_identity(&self) -> u64 {
        hash(&[self.bucket.as_bytes(), self.key.as_bytes()])
    }

    fn identity(&self) -> u64 {
        let part = self.part.map_or(u64::MAX, u64::from).to_le_bytes();
        let start = self.range_start.unwrap_or(u64::MAX).to_le_bytes();
        let (bucket, key) = (self.bucket.as_bytes(), self.key.as_bytes());
        hash(&[self.operation.as_bytes(), bucket, key, &part, &start])
    }
}

impl Match {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        (self.operations.is_empty() || self.operations.iter().any(|name| name == asked.operation))
            && self.bucket.as_ref().is_none_or(|bucket| *bucket == asked.bucket)
            && self.key.as_ref().is_none_or(|pattern| fits(pattern, &asked.key))
            && within(self.part.as_ref(), asked.part)
            && within(self.range_start.as_ref(), asked.range_start)
            && self.access_key.as_deref().is_none_or(|key| Some(key) == asked.access_key)
            && self.header.as_ref().is_none_or(|pattern| {
                let pattern = pattern.to_ascii_lowercase();
                asked.request.headers.keys().any(|name| fits(&pattern, name.as_str()))
            })
    }
}

/// Whether `text` is `pattern` or, where that ends in `*`, begins so.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    }
}

fn within<T: PartialOrd>(range: Option<&RangeInclusive<T>>, value: Option<T>) -> bool {
    range.is_none_or(|range| value.is_some_and(|value| range.contains(&value)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::faults::Action;

    fn script(rules: impl Into<Faults>) -> Script {
        Script::new(rules.into())
    }

    fn does() -> Action {
        Action::answer(503, "SlowDown")
    }

    /// Whether any rule fires for `line`.
    fn ask(script: &Script, line: &str, headers: &[(&str, &str)]) -> bool {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        script.choose(operation::name(&parts), &parts).is_some()
    }

    #[test]
    fn every_field_must_fit() {
        let range = [("range", "bytes=100-199")];
        let signed = [(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request, Signature=0",
        )];
        let presigned = "GET /b/k?X-Amz-Credential=me%2F20260101%2Fus-east-1%2Fs3%2Faws4_request";
        let put = "PUT /b/a%20b?partNumber=3&uploadId=x";
        let any = || Rule::on("*");
        for (rule, line, headers, expected) in [
            (any(), "GET /", &[][..], true),
            (Rule::on("UploadPart"), put, &[], true),
            (Rule::on_any(["UploadPart", "PutObject"]), "PUT /b/k", &[], true),
            (Rule::on("UploadPart"), "PUT /b/k", &[], false),
            (any().key("a b"), put, &[], true),
            (any().key("a*"), put, &[], true),
            (any().key("a"), put, &[], false),
            (any().bucket("b"), put, &[], true),
            (any().bucket("c"), put, &[], false),
            (any().part(3), put, &[], true),
            (any().parts(4..=9), put, &[], false),
            (any().part(3), "GET /b/k", &[], false),
            (any().range_start(100), "GET /b/k", &range, true),
            (any().range_start(0), "GET /b/k", &range, false),
            (any().access_key("me"), "GET /b/k", &signed, true),
            (any().access_key("you"), "GET /b/k", &signed, false),
            (any().access_key("me"), presigned, &[], true),
            (any().access_key("me"), "GET /b/k", &[], false),
            (any().header("Range"), "GET /b/k", &range, true),
            (any().header("ra*"), "GET /b/k", &range, true),
            (any().header("if-match"), "GET /b/k", &range, false),
        ] {
            let shown = format!("{line} {headers:?} {:?}", rule.matches);
            assert_eq!(ask(&script(rule.then(does())), line, headers), expected, "{shown}");
        }
    }

    #[test]
    fn counting() {
        let pattern = |rule: Rule| {
            let script = script(rule.then(does()));
            let fired: Vec<u8> = (1..=9).map(|_| u8::from(ask(&script, "GET /b/k", &[]))).collect();
            fired.iter().map(u8::to_string).collect::<String>()
        };
        assert_eq!(pattern(Rule::on("*")), "111111111");
        assert_eq!(pattern(Rule::on("*").nth(3)), "001000000");
        assert_eq!(pattern(Rule::on("*").times(2)), "110000000");
        assert_eq!(pattern(Rule::on("*").from_nth(2).times(3)), "011100000");
        assert_eq!(pattern(Rule::on("*").every(3)), "100100100");
        assert_eq!(pattern(Rule::on("*").from_nth(2).every(2).times(2)), "010100000");
        let never = Rule::on("*").between(Duration::from_hours(1), Duration::from_hours(2));
        assert_eq!(pattern(never), "000000000");
    }

    #[test]
    fn each_part_counts_for_itself() {
        let script = script(Rule::on("UploadPart").per_part().nth(1).then(does()));
        for attempt in 1..=3 {
            for part in 1..=20 {
                let line = format!("PUT /b/k?partNumber={part}&uploadId={attempt}");
                assert_eq!(ask(&script, &line, &[]), attempt == 1, "{line}");
            }
        }
        assert_eq!(script.fired(), Fired { total: 20, rules: vec![20] });
    }

    #[test]
    fn the_first_that_fires_wins() {
        let rules = [Rule::on("*").times(2).then(does()), Rule::on("*").times(2).then(does())];
        let script = script(rules);
        for _ in 0..6 {
            ask(&script, "GET /b/k", &[]);
        }
        assert_eq!(script.fired(), Fired { total: 4, rules: vec![2, 2] });
    }

    #[test]
    fn chance_follows_the_seed_and_not_the_order() {
        let fired = |seed: u64, keys: &mut dyn Iterator<Item = u32>| {
            let script = script(Faults::from(Rule::on("*").chance(0.2).then(does())).seeded(seed));
            let mut fired: Vec<u32> =
                keys.filter(|key| ask(&script, &format!("GET /b/{key}"), &[])).collect();
            fired.sort_unstable();
            fired
        };
        let forward = fired(1, &mut (0..1000));
        assert_eq!(forward, fired(1, &mut (0..1000).rev()));
        assert_ne!(forward, fired(2, &mut (0..1000)));
        assert!((150..250).contains(&forward.len()), "{}", forward.len());
    }
}
