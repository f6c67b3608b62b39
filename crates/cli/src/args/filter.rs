//! The options that choose among many objects, as typed, for every command that has many.
//!
//! Rules are kept in the order in which they stand on the command line, whichever of the three options they come from. clap's
//! derive keeps that only within one option, so these are read by hand.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use brigade::limits::parse_size;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint, value_parser};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const HEADING: &str = "Filters";

/// Which objects and files.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    #[command(flatten)]
    pub(crate) rules: RuleArgs,

    /// Only what was written since: a date such as 2026-11-01, a time such as 2026-11-01T08:30:00Z, or an age
    /// such as 7d.
    #[arg(long, value_name = "WHEN", value_parser = parse_when, help_heading = HEADING)]
    pub(crate) newer_than: Option<When>,

    /// Only what was written before, given in the same way.
    #[arg(long, value_name = "WHEN", value_parser = parse_when, help_heading = HEADING)]
    pub(crate) older_than: Option<When>,

    /// Only what has at least this size, such as 1MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = HEADING)]
    pub(crate) min_size: Option<u64>,

    /// Only what has at most this size.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = HEADING)]
    pub(crate) max_size: Option<u64>,
}

/// A moment, or how long ago it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(SystemTime),
    Ago(Duration),
}

/// `--exclude`, `--include` and `--filter-from`, in the order in which they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleArgs(pub(crate) Vec<RuleArg>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleArg {
    Exclude(String),
    Include(String),
    From(PathBuf),
}

impl Args for RuleArgs {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str, value: &'static str| {
            let arg = Arg::new(name).long(name).value_name(value).action(ArgAction::Append);
            arg.help_heading(HEADING).allow_hyphen_values(true)
        };
        command
            .arg(option("exclude", "PATTERN").help(
                "Leave out what matches, such as '*.tmp' or 'logs/'. Of several rules the last that matches counts",
            ))
            .arg(
                option("include", "PATTERN")
                    .help("Take back in what matches of what an earlier rule left out"),
            )
            .arg(
                option("filter-from", "FILE")
                    .help("Read rules from a file that is written as a .gitignore is")
                    .value_parser(value_parser!(PathBuf))
                    .value_hint(ValueHint::FilePath),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RuleArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = typed(matches, "exclude", |text: &String| RuleArg::Exclude(text.clone()));
        rules.extend(typed(matches, "include", |text: &String| RuleArg::Include(text.clone())));
        rules.extend(typed(matches, "filter-from", |path: &PathBuf| RuleArg::From(path.clone())));
        rules.sort_by_key(|(at, _)| *at);
        Ok(Self(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What was given for one option, with where on the command line.
fn typed<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    name: &str,
    rule: impl Fn(&T) -> RuleArg,
) -> Vec<(usize, RuleArg)> {
    let places = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<T>(name).into_iter().flatten();
    places.zip(values.map(rule)).collect()
}

/// A date begins at midnight UTC, as a store's clock has it.
fn parse_when(typed: &str) -> Result<When, String> {
    if let Ok(time) = OffsetDateTime::parse(typed, &Rfc3339) {
        return Ok(When::At(time.into()));
    }
    if let Ok(date) = time::Date::parse(typed, format_description!("[year]-[month]-[day]")) {
        return Ok(When::At(date.midnight().assume_utc().into()));
    }
    humantime::parse_duration(typed).map(When::Ago).map_err(|_| {
        "give a date such as 2026-11-01, a time such as 2026-11-01T08:30:00Z, or an age such as 7d"
            .to_owned()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    /// What `line`, options only, means.
    pub(crate) fn read(line: &str) -> Result<FilterArgs, String> {
        let words = std::iter::once("test").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| line.filter)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn rules_keep_the_order_in_which_they_were_typed() {
        let line =
            "--exclude * --filter-from a --include=*.txt --min-size 1 --exclude -x --filter-from b";
        let rules = read(line).expect("fine").rules.0;
        let expected = [
            RuleArg::Exclude("*".into()),
            RuleArg::From("a".into()),
            RuleArg::Include("*.txt".into()),
            RuleArg::Exclude("-x".into()),
            RuleArg::From("b".into()),
        ];
        assert_eq!(rules, expected);
        assert_eq!(read("").expect("fine").rules.0, []);
    }

    #[test]
    fn a_time_is_a_date_a_moment_or_an_age() {
        let when = |typed: &str| read(&format!("--newer-than {typed}")).map(|args| args.newer_than);
        let at = |unix_s| Ok(Some(When::At(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s))));
        assert_eq!(when("1970-01-02"), at(86_400));
        assert_eq!(when("1970-01-01T02:00:00+01:00"), at(3600));
        assert_eq!(when("1970-01-01T00:00:07Z"), at(7));
        assert_eq!(when("7d"), Ok(Some(When::Ago(Duration::from_hours(7 * 24)))));
        let said = when("2026-13-01").expect_err("no such month");
        assert!(said.contains("'2026-13-01' for '--newer-than <WHEN>': give a date"), "{said}");
    }

    #[test]
    fn sizes_are_binary() {
        let args = read("--min-size 1K --max-size 2MiB").expect("fine");
        assert_eq!((args.min_size, args.max_size), (Some(1024), Some(2 << 20)));
        assert!(read("--max-size many").is_err());
    }
}
