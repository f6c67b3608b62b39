//! Scripts as TOML files.
//!
//! A file says the same as [`Faults`] does, one flat table for each rule: what it is for, when it fires, and
//! what it does are told apart by their keys, so that a rule reads as a line of prose.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::action::{Action, Pairs};
use super::rule::{Faults, FaultsError, Match, Per, Rule, When};
use super::values::{
    AnswerFile, CutFile, FlipFile, Map, OneOrMany, PerFile, RefuseKeysFile, Span, StallFile, Time,
    TrickleFile, pairs,
};

impl Faults {
    /// Reads a script from the text of a TOML file. docs/FAULTS.md has the reference.
    ///
    /// ```
    /// use brigade_store::faults::Faults;
    ///
    /// let faults = Faults::parse(
    ///     r#"
    ///     [[rule]]
    ///     operation = "UploadPart"
    ///     per = "part"
    ///     nth = 1
    ///     answer = { status = 503, code = "SlowDown" }
    ///     "#,
    /// )?;
    /// assert_eq!(faults.rules.len(), 1);
    /// # Ok::<(), brigade_store::faults::FaultsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// One line, with the rule and the key, and with what is allowed there.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        let failed = |rule, problem: String| FaultsError { rule, problem };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            failed(None, format!("line {line}: {}", one_line(error.message())))
        })?;
        let script: ScriptFile = decode(table).map_err(|problem| failed(None, problem))?;
        let rules = script.rule.into_iter().enumerate().map(|(index, table)| {
            let wrong = |problem| failed(Some(index + 1), problem);
            let rule: RuleFile = decode(table).map_err(wrong)?;
            rule.meant().map_err(wrong)
        });
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let faults = Self { seed: script.seed, rules };
        faults.check()?;
        Ok(faults)
    }
}

fn decode<T: DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    table.try_into().map_err(|error: toml::de::Error| one_line(&error.to_string()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    #[serde(default)]
    seed: u64,
    rule: Vec<toml::Table>,
}

/// A rule as written. In the order in which a rule reads best, and in which its actions are taken.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleFile {
    operation: Option<OneOrMany>,
    bucket: Option<String>,
    key: Option<String>,
    part: Option<Span>,
    range_start: Option<Span>,
    access_key: Option<String>,
    header: Option<String>,

    per: Option<PerFile>,
    nth: Option<u64>,
    from: Option<u64>,
    times: Option<u64>,
    every: Option<u64>,
    chance: Option<f64>,
    after: Option<Time>,
    until: Option<Time>,

    set_request_headers: Map,
    remove_request_headers: Vec<String>,
    set_query: Map,
    remove_query: Vec<String>,
    answer: Option<AnswerFile>,
    apply_late: Option<Time>,
    refuse_keys: Option<RefuseKeysFile>,
    shift_clock_s: Option<i64>,
    set_status: Option<u16>,
    whole_checksum: bool,
    strip_checksum_suffix: bool,
    set_headers: Map,
    remove_headers: Vec<String>,
    set_elements: Map,
    remove_elements: Vec<String>,
    reverse_elements: Vec<String>,
    replace: Map,
    trickle: Option<TrickleFile>,
    delay: Option<Time>,
    stall: Option<StallFile>,
    flip: Option<FlipFile>,
    truncate_bytes: Option<u64>,
    cut: Option<CutFile>,
}

impl RuleFile {
    fn meant(mut self) -> Result<Rule, String> {
        if self.nth.is_some() && (self.from.is_some() || self.times.is_some()) {
            return Err("`nth` goes without `from` and `times`".to_owned());
        }
        let default = When::default();
        let when = When {
            per: self.per.take().map_or(default.per, Per::from),
            from: self.nth.or(self.from).unwrap_or(default.from),
            times: self.nth.map(|_| 1).or(self.times),
            every: self.every.unwrap_or(default.every),
            chance: self.chance.unwrap_or(default.chance),
            after: self.after.map_or(default.after, |time| time.0),
            until: self.until.map(|time| time.0),
        };
        let part = self.part.take().map(|span| span.numbers("part")).transpose()?;
        let matches = Match {
            operations: self.operation.take().map_or_else(Vec::new, OneOrMany::names),
            bucket: self.bucket.take(),
            key: self.key.take(),
            part,
            range_start: self.range_start.take().map(|span| span.0),
            access_key: self.access_key.take(),
            header: self.header.take(),
        };
        Ok(Rule { matches, when, actions: self.actions()? })
    }

    fn actions(self) -> Result<Vec<Action>, String> {
        let map =
            |map: Map, action: fn(Pairs) -> Action| (!map.is_empty()).then(|| action(pairs(map)));
        let list = |names: Vec<String>, action: fn(Vec<String>) -> Action| {
            (!names.is_empty()).then(|| action(names))
        };
        let stall = self.stall.map(StallFile::meant).transpose()?;
        let cut = self.cut.map(CutFile::meant).transpose()?;
        let actions = [
            map(self.set_request_headers, Action::SetRequestHeaders),
            list(self.remove_request_headers, Action::RemoveRequestHeaders),
            map(self.set_query, Action::SetQuery),
            list(self.remove_query, Action::RemoveQuery),
            self.answer.map(|answer| Action::Answer(answer.meant())),
            self.apply_late.map(|time| Action::ApplyLate(Some(time.0))),
            self.refuse_keys.map(|refused| Action::RefuseKeys(refused.meant())),
            self.shift_clock_s.map(Action::ShiftClock),
            self.set_status.map(Action::SetStatus),
            self.whole_checksum.then_some(Action::WholeChecksum),
            self.strip_checksum_suffix.then_some(Action::StripChecksumSuffix),
            map(self.set_headers, Action::SetHeaders),
            list(self.remove_headers, Action::RemoveHeaders),
            map(self.set_elements, Action::SetElements),
            list(self.remove_elements, Action::RemoveElements),
            list(self.reverse_elements, Action::ReverseElements),
            map(self.replace, Action::Replace),
            self.trickle.map(TrickleFile::meant),
            self.delay.map(|time| Action::delay(time.0)),
            stall,
            self.flip.map(FlipFile::meant),
            self.truncate_bytes.map(Action::Truncate),
            cut,
        ];
        Ok(actions.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::faults::{Answer, Place, Side};

    /// The only rule of a file.
    fn rule(lines: &str) -> Rule {
        let faults = Faults::parse(&format!("[[rule]]\n{lines}"));
        faults.unwrap_or_else(|error| panic!("{lines}: {error}")).rules.remove(0)
    }

    fn complaint(text: &str) -> String {
        let said = Faults::parse(text).expect_err(text).to_string();
        assert!(!said.contains('\n'), "{said}");
        said
    }

    #[test]
    fn matches() {
        let matches = rule(
            "operation = [\"UploadPart\", \"PutObject\"]\nbucket = \"b\"\nkey = \"a/*\"\n\
             part = \"2-9\"\nrange_start = 0\naccess_key = \"me\"\nheader = \"If-*\"\ndelay = \"1s\"",
        )
        .matches;
        assert_eq!(matches.operations, ["UploadPart", "PutObject"]);
        assert_eq!((matches.part, matches.range_start), (Some(2..=9), Some(0..=0)));
        assert_eq!(
            [matches.bucket, matches.key, matches.access_key, matches.header].map(Option::unwrap),
            ["b", "a/*", "me", "If-*"]
        );
        assert!(rule("operation = \"*\"\ndelay = \"1s\"").matches.operations.is_empty());
    }

    #[test]
    fn whens() {
        let when = rule("per = \"part\"\nnth = 3\ndelay = \"1s\"").when;
        assert_eq!((when.per, when.from, when.times), (Per::Part, 3, Some(1)));
        let when = rule(
            "from = 2\ntimes = 5\nevery = 2\nchance = 0.5\nafter = \"1s\"\nuntil = \"2m\"\n\
             delay = \"1s\"",
        )
        .when;
        assert_eq!((when.from, when.times, when.every), (2, Some(5), 2));
        assert!((when.chance - 0.5).abs() < f64::EPSILON);
        assert_eq!((when.after.as_secs(), when.until), (1, Some(Duration::from_mins(2))));
    }

    #[test]
    fn every_action_can_be_written() {
        let shown = |lines: &str| format!("{:?}", rule(lines).actions);
        let same = |lines: &str, action: Action| {
            assert_eq!(shown(lines), format!("{:?}", [action]), "{lines}");
        };
        let pair = || vec![("a".to_owned(), "b".to_owned())];
        let name = || vec!["a*".to_owned()];
        same("set_request_headers = { a = \"b\" }", Action::SetRequestHeaders(pair()));
        same("remove_request_headers = [\"a*\"]", Action::RemoveRequestHeaders(name()));
        same("set_query = { a = \"b\" }", Action::SetQuery(pair()));
        same("remove_query = [\"a*\"]", Action::RemoveQuery(name()));
        same(
            "refuse_keys = { keys = [\"a*\"], code = \"AccessDenied\" }",
            Action::refuse_key("a*", "AccessDenied"),
        );
        same("set_status = 200", Action::SetStatus(200));
        same("set_headers = { a = \"b\" }", Action::SetHeaders(pair()));
        same("remove_headers = [\"a*\"]", Action::RemoveHeaders(name()));
        same("set_elements = { a = \"b\" }", Action::SetElements(pair()));
        same("remove_elements = [\"a*\"]", Action::RemoveElements(name()));
        same("reverse_elements = [\"a*\"]", Action::ReverseElements(name()));
        same("replace = { a = \"b\" }", Action::Replace(pair()));
        same("whole_checksum = true", Action::WholeChecksum);
        same("strip_checksum_suffix = true", Action::StripChecksumSuffix);
        same("shift_clock_s = -60", Action::ShiftClock(-60));
        same("truncate_bytes = 7", Action::Truncate(7));
        same("delay = \"250ms\"", Action::delay(Duration::from_millis(250)));
        same("apply_late = \"1s\"", Action::ApplyLate(Some(Duration::from_secs(1))));
        same("cut = { at = \"response\" }", Action::swallow_response());
        same("cut = { at = \"response-body\", bytes = 9 }", Action::cut_response_body(9));
        same(
            "cut = { at = \"request-body\", bytes = 9, reset = true }",
            Action::cut_request_body(9),
        );
        same("stall = { at = \"request-end\" }", Action::stall(Place::RequestEnd));
        same(
            "flip = { body = \"request\", byte = 9, bit = 7 }",
            Action::Flip { body: Side::Request, byte: 9, bit: 7 },
        );
        same(
            "trickle = { time = \"1s\", every = \"10ms\" }",
            Action::Trickle { time: Duration::from_secs(1), every: Duration::from_millis(10) },
        );
        same("answer = { status = 503, code = \"SlowDown\" }", Action::answer(503, "SlowDown"));
        same(
            "answer = { status = 200, body = \"x\", read_body = false, applied = true, headers = \
             { a = \"b\" } }",
            Answer {
                read_body: false,
                ..Answer::with_body(200, "x").header("a", "b").after_applying()
            }
            .into(),
        );
    }

    #[test]
    fn mistakes_are_named() {
        let second =
            |lines: &str| complaint(&format!("[[rule]]\ndelay = \"1s\"\n[[rule]]\n{lines}"));
        for (lines, expected) in [
            ("operatoin = \"x\"", &["rule 2: unknown field `operatoin`", "`operation`"][..]),
            ("answer = { code = \"x\" }", &["rule 2: missing field `status`", "`answer`"]),
            ("answer = { status = 200, foo = 1 }", &["rule 2: unknown field `foo`", "`message`"]),
            ("answer = { status = 99 }", &["rule 2: status 99", "200 to 599"]),
            ("part = \"9-2\"\ndelay = \"1s\"", &["rule 2: ", "`part`", "\"2-9\""]),
            ("delay = 5", &["rule 2: ", "`delay`"]),
            ("delay = \"5\"", &["rule 2: ", "`delay`", "\"250ms\""]),
            ("per = \"day\"\ndelay = \"1s\"", &["rule 2: unknown variant `day`", "`access-key`"]),
            ("nth = 1\nfrom = 2\ndelay = \"1s\"", &["rule 2: `nth` goes without"]),
            ("nth = 0\ndelay = \"1s\"", &["rule 2: `from`", "counts from 1"]),
            ("chance = 5\ndelay = \"1s\"", &["rule 2: `chance` is 5", "from 0 to 1"]),
            ("operation = \"Put\"\ndelay = \"1s\"", &["rule 2: no operation \"Put\"", "PutObject"]),
            ("operation = \"PutObject\"", &["rule 2: it does nothing", "`answer`"]),
            ("cut = { at = \"start\" }", &["rule 2: unknown variant `start`", "`request-body`"]),
            ("cut = { at = \"response\", bytes = 1 }", &["rule 2: `cut.bytes`"]),
            ("flip = { body = \"request\", byte = 0, bit = 8 }", &["rule 2: `flip.bit` is 8"]),
            ("set_headers = { \"a b\" = \"c\" }", &["rule 2: `set_headers` has \"a b\""]),
        ] {
            let said = second(lines);
            assert!(expected.iter().all(|part| said.contains(part)), "{lines}: {said}");
        }
        assert!(complaint("seed = 1\nrule = [").starts_with("line 2: "));
        assert!(complaint("").contains("`rule`"));
        assert!(complaint("rules = 1").contains("unknown field `rules`"));
    }

    #[test]
    fn the_example_is_one() {
        let faults = Faults::parse(include_str!("../../../../docs/examples/faults.toml"));
        assert!(faults.expect("the example").rules.len() > 3);
    }

    #[test]
    fn the_documentation_has_examples_that_work_and_every_key() {
        let documented = include_str!("../../../../docs/FAULTS.md");
        let examples = documented.split("```toml").skip(1);
        for example in examples {
            let example = example.split("```").next().unwrap_or_default();
            assert!(Faults::parse(example).is_ok(), "{example}");
        }
        // The complaint about an unknown key lists all there are.
        let all = complaint("[[rule]]\nx = 1");
        for key in all.split('`').skip(3).step_by(2) {
            assert!(documented.contains(&format!("`{key}")), "docs/FAULTS.md lacks {key}");
        }
    }
}
