//! `brigade rm` as meant: which objects, and whether to ask first.

use std::time::SystemTime;

use anyhow::Result;
use brigade::SessionOptions;
use brigade::dataset::Filter;

use super::{Chosen, filter, session};
use crate::args::RmArgs;
use crate::environment::Environment;
use crate::failure::Usage;

/// Objects to delete.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) session: SessionOptions,
    pub(crate) chosen: Vec<Chosen>,
    /// Which of them, where they are many.
    pub(crate) filter: Filter,
    /// Every version of them, and the markers.
    pub(crate) versions: bool,
    /// This version of the one key.
    pub(crate) version_id: Option<String>,
    pub(crate) dry_run: bool,
    /// What to ask before anything is deleted.
    pub(crate) question: Option<String>,
    pub(crate) concurrency: Option<usize>,
    /// What the person should hear first.
    pub(crate) warnings: Vec<&'static str>,
}

impl Removal {
    /// `can_ask`: whether there is a terminal with a person at it.
    pub(crate) fn from_args(
        args: &RmArgs,
        can_ask: bool,
        environment: &Environment,
    ) -> Result<Self> {
        let choose = |typed: &String| Chosen::parse(typed, !args.no_glob, args.recursive);
        let chosen = args.urls.iter().map(choose).collect::<Result<Vec<_>>>()?;
        if let Some(bucket) = chosen.iter().find(|it| is_bucket_alone(it)) {
            return Err(Usage::error(format!(
                "{bucket} names a bucket, not an object; add -r to delete all that is in it"
            )));
        }
        if args.version_id.is_some() && !matches!(chosen.as_slice(), [Chosen::One(_)]) {
            return Err(Usage::error("--version-id is for one key; name that key alone"));
        }
        let filter = filter::filter(&args.filter, SystemTime::now())?;
        if !filter.is_empty()
            && let Some(one) = chosen.iter().find(|it| matches!(it, Chosen::One(_)))
        {
            return Err(Usage::error(format!(
                "filters choose among many objects, and {one} is one; name a pattern, or add -r"
            )));
        }
        Ok(Self {
            filter,
            question: question(args, &chosen, can_ask)?,
            session: session::options(&args.store, environment)?,
            chosen,
            versions: args.versions,
            version_id: args.version_id.clone(),
            dry_run: args.dry_run,
            concurrency: args.concurrency.map(usize::from),
            warnings: session::warnings(&args.store),
        })
    }
}

fn is_bucket_alone(chosen: &Chosen) -> bool {
    matches!(chosen, Chosen::One(url) if url.key().is_empty())
}

/// What to ask before whole buckets are emptied; an error where nobody can be asked.
fn question(args: &RmArgs, chosen: &[Chosen], can_ask: bool) -> Result<Option<String>> {
    let mut buckets: Vec<_> =
        chosen.iter().filter(|it| it.is_whole_bucket()).map(Chosen::bucket).collect();
    buckets.sort_unstable();
    buckets.dedup();
    if buckets.is_empty() || args.yes || args.dry_run {
        return Ok(None);
    }
    let why = match () {
        () if args.output.json => Some("--json"),
        () if args.output.quiet => Some("--quiet"),
        () if !can_ask => Some("no terminal"),
        () => None,
    };
    let what = if args.versions { "every version of every object" } else { "every object" };
    let buckets: Vec<_> = buckets.iter().map(|bucket| format!("s3://{bucket}")).collect();
    let buckets = buckets.join(" and ");
    match why {
        Some(why) => Err(Usage::error(format!(
            "this may delete {what} in {buckets}, and with {why} nobody can be asked whether to; see \
             what it would be with --dry-run, and add --yes"
        ))),
        None => Ok(Some(format!("Delete {what} in {buckets}? [y/N] "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::OutputArgs;
    use crate::args::filter::FilterArgs;
    use crate::failure::Failure;

    fn args(urls: &[&str], recursive: bool) -> RmArgs {
        let urls = urls.iter().map(|&url| url.to_owned()).collect();
        RmArgs { urls, recursive, ..RmArgs::default() }
    }

    fn meant(args: &RmArgs, can_ask: bool) -> Result<Removal> {
        Removal::from_args(args, can_ask, &Environment::default())
    }

    fn refused(args: &RmArgs, can_ask: bool) -> String {
        let failure = Failure::from(&meant(args, can_ask).expect_err("refused"));
        assert_eq!(failure.exit.code(), 2, "{}", failure.message);
        failure.message
    }

    #[test]
    fn a_whole_bucket_is_asked_about_and_nothing_else() {
        for (url, recursive, asks) in [
            ("s3://b", true, true),
            ("s3://b/", true, true),
            ("s3://b/**", false, true),
            ("s3://b/*", false, true),
            ("s3://b/logs", true, false),
            ("s3://b/*.tmp", false, false),
            ("s3://b/key", false, false),
        ] {
            let removal = meant(&args(&[url], recursive), true).expect("fine");
            assert_eq!(removal.question.is_some(), asks, "{url}");
        }
        let both = args(&["s3://b", "s3://a", "s3://b/"], true);
        let question = meant(&both, true).expect("fine").question.expect("one");
        assert_eq!(question, "Delete every object in s3://a and s3://b? [y/N] ");
    }

    #[test]
    fn where_nobody_can_be_asked_yes_is_needed() {
        let whole = || args(&["s3://b"], true);
        assert!(refused(&whole(), false).contains("no terminal"));
        let json = RmArgs { output: OutputArgs { json: true, ..OutputArgs::default() }, ..whole() };
        assert!(refused(&json, true).contains("--json"));
        for fine in [RmArgs { yes: true, ..whole() }, RmArgs { dry_run: true, ..whole() }] {
            assert_eq!(meant(&fine, false).expect("fine").question, None);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(refused(&args(&["s3://b"], false), true).contains("add -r"));
        let version = |urls: &[&str]| RmArgs { version_id: Some("v".into()), ..args(urls, false) };
        assert!(refused(&version(&["s3://b/a", "s3://b/c"]), true).contains("one key"));
        assert!(refused(&version(&["s3://b/a*"]), true).contains("one key"));
        assert!(meant(&version(&["s3://b/a"]), true).is_ok());
        let old = FilterArgs { min_size: Some(1), ..FilterArgs::default() };
        let of_one = RmArgs { filter: old.clone(), ..args(&["s3://b/a"], false) };
        assert!(refused(&of_one, true).contains("name a pattern"));
        let below = RmArgs { filter: old, ..args(&["s3://b/a"], true) };
        assert!(!meant(&below, true).expect("fine").filter.is_empty());
    }
}
