//! `brigade uploads` as meant: which store, which uploads there, and whether to ask first.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use brigade::{S3Url, SessionOptions};

use super::session;
use crate::args::{AbortArgs, SelectArgs};
use crate::environment::Environment;
use crate::failure::Usage;

/// The uploads in question.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) session: SessionOptions,
    /// Every upload in the store below it; without it, those that were begun here.
    pub(crate) under: Option<S3Url>,
    /// What the person should hear first.
    pub(crate) warnings: Vec<&'static str>,
}

/// Uploads to give up.
#[derive(Debug)]
pub(crate) struct Abort {
    pub(crate) selection: Selection,
    /// Only those of at least this age.
    pub(crate) older_than: Option<Duration>,
    pub(crate) asks_first: bool,
}

impl Selection {
    pub(crate) fn from_args(args: &SelectArgs, environment: &Environment) -> Result<Self> {
        Ok(Self {
            session: session::options(&args.store, environment)?,
            under: args.url.as_deref().map(str::parse).transpose()?,
            warnings: session::warnings(&args.store),
        })
    }

    /// Where uploads that were begun here are recorded; `None` on a machine that names no home.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.session.manifest_folder.as_deref()
    }

    /// Whether an upload to this place is in question.
    pub(crate) fn covers(&self, bucket: &str, key: &str) -> bool {
        self.under.as_ref().is_none_or(|url| url.bucket() == bucket && key.starts_with(url.key()))
    }
}

impl Abort {
    /// `can_ask`: whether there is a terminal with a person at it.
    pub(crate) fn from_args(
        args: &AbortArgs,
        can_ask: bool,
        environment: &Environment,
    ) -> Result<Self> {
        let output = &args.select.output;
        if !args.yes {
            let why = match () {
                () if output.json => Some("--json"),
                () if output.quiet => Some("--quiet"),
                () if !can_ask => Some("no terminal"),
                () => None,
            };
            if let Some(why) = why {
                return Err(Usage::error(format!(
                    "with {why} nobody can be asked whether to abort; add --yes"
                )));
            }
        }
        Ok(Self {
            selection: Selection::from_args(&args.select, environment)?,
            older_than: args.older_than,
            asks_first: !args.yes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::OutputArgs;
    use crate::failure::Failure;

    fn selection(url: Option<&str>) -> Selection {
        let args = SelectArgs { url: url.map(str::to_owned), ..SelectArgs::default() };
        Selection::from_args(&args, &Environment::default()).expect("fine")
    }

    #[test]
    fn a_url_covers_what_begins_so() {
        assert!(selection(None).covers("any", "key"));
        let bucket = selection(Some("s3://b"));
        assert!(bucket.covers("b", "k") && !bucket.covers("bb", "k"));
        let prefix = selection(Some("s3://b/p/a"));
        assert!(
            prefix.covers("b", "p/a") && prefix.covers("b", "p/ab") && !prefix.covers("b", "p")
        );
    }

    #[test]
    fn a_name_without_a_scheme_is_refused() {
        let args = SelectArgs { url: Some("bucket".into()), ..SelectArgs::default() };
        let refused = Selection::from_args(&args, &Environment::default()).expect_err("refused");
        let failure = Failure::from(&refused);
        assert_eq!(failure.exit.code(), 2);
        assert!(failure.message.ends_with("write it as s3://bucket/key"), "{}", failure.message);
    }

    #[test]
    fn who_cannot_be_asked_must_have_said_yes() {
        let abort = |yes, can_ask, output| {
            let select = SelectArgs { output, ..SelectArgs::default() };
            let args = AbortArgs { yes, select, older_than: None };
            Abort::from_args(&args, can_ask, &Environment::default())
        };
        let json = || OutputArgs { json: true, ..OutputArgs::default() };
        let quiet = || OutputArgs { quiet: true, ..OutputArgs::default() };
        assert!(abort(false, true, OutputArgs::default()).expect("fine").asks_first);
        assert!(!abort(true, false, json()).expect("fine").asks_first);
        for (can_ask, output, what) in [
            (false, OutputArgs::default(), "no terminal"),
            (true, json(), "--json"),
            (true, quiet(), "--quiet"),
        ] {
            let failure = Failure::from(&abort(false, can_ask, output).expect_err("refused"));
            assert_eq!(failure.exit.code(), 2);
            let expected = format!("with {what} nobody can be asked whether to abort; add --yes");
            assert_eq!(failure.message, expected);
        }
    }
}
