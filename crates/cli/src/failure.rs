//! What a failed command tells: one line for a person, the same as fields for a program, one code.
//!
//! Errors travel as [`anyhow::Error`]. This is where one is taken apart again: the engine's errors
//! by their kind, misuse as its own type, everything else as a plain failure.

use std::fmt;

use brigade::ErrorKind;

use crate::exit::Exit;
use crate::signals::Stopped;

/// The arguments make no sense as given. Displays as one line that says what to do instead.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// As an error to return from a fallible function.
    pub(crate) fn error(message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self(message.into()))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A transfer failed, and what it did so far is kept; the message says how to go on.
#[derive(Debug)]
pub(crate) struct Resumable {
    pub(crate) error: brigade::Error,
    pub(crate) message: String,
}

impl fmt::Display for Resumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Resumable {}

/// How a command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What JSON calls this sort of failure.
    pub(crate) kind: &'static str,
    /// One line, advice included.
    pub(crate) message: String,
    /// The advice alone, where there is some.
    pub(crate) advice: Option<String>,
}

impl Failure {
    /// Of an error of the engine.
    pub(crate) fn of(error: &brigade::Error) -> Self {
        Self {
            exit: error.kind().into(),
            kind: kind_name(error.kind()),
            message: error.to_string(),
            advice: error.advice().map(str::to_owned),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::USAGE,
            kind: kind_name(ErrorKind::InvalidInput),
            message: message.into(),
            advice: None,
        }
    }
}

impl Failure {
    /// The same, where the command was another than the `cp` that the advice speaks to.
    pub(crate) fn of_another_command(mut self) -> Self {
        let spelt_out =
            |text: &str| text.replace("with --no-resume", "with brigade cp --no-resume");
        self.message = spelt_out(&self.message);
        self.advice = self.advice.as_deref().map(spelt_out);
        self
    }
}

impl From<&anyhow::Error> for Failure {
    fn from(error: &anyhow::Error) -> Self {
        // The chain in one line, outermost first, as far as it says anything new.
        let message = crate::format::one_line(&format!("{error:#}"));
        if let Some(error) = error.downcast_ref::<brigade::Error>() {
            return Self::of(error);
        }
        if let Some(Resumable { error, .. }) = error.downcast_ref::<Resumable>() {
            return Self {
                exit: error.kind().into(),
                kind: kind_name(error.kind()),
                message,
                advice: error.advice().map(str::to_owned),
            };
        }
        if let Some(stopped) = error.downcast_ref::<Stopped>() {
            let broken = stopped.exit == Exit::BROKEN_PIPE;
            let kind = if broken { "broken_pipe" } else { kind_name(ErrorKind::Interrupted) };
            return Self { exit: stopped.exit, kind, message, advice: None };
        }
        if error.is::<Usage>() {
            return Self::usage(message);
        }
        Self { exit: Exit::FAILED, kind: "failed", message, advice: None }
    }
}

/// The kind as JSON spells it. An engine with a kind that is not known here yet says `failed`.
fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "invalid_input",
        ErrorKind::NotFound => "not_found",
        ErrorKind::AccessDenied => "access_denied",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Changed => "changed",
        ErrorKind::Integrity => "integrity",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Throttled => "throttled",
        ErrorKind::ServerFailure => "server_failure",
        ErrorKind::Rejected => "rejected",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Archived => "archived",
        ErrorKind::Io => "io",
        ErrorKind::DiskFull => "disk_full",
        ErrorKind::Interrupted => "interrupted",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_engine_keeps_its_kind_and_advice() {
        let error = brigade::Error::new(ErrorKind::NotFound, "download", "s3://b/k", "no such key")
            .advise("check the key");
        let failure = Failure::from(&anyhow::Error::new(error));
        assert_eq!((failure.exit.code(), failure.kind), (4, "not_found"));
        assert_eq!(failure.message, "download s3://b/k: no such key; check the key");
        assert_eq!(failure.advice.as_deref(), Some("check the key"));
    }

    #[test]
    fn a_signal_decides_the_code() {
        let ended = |exit| {
            let failure = Failure::from(&anyhow::Error::new(Stopped { exit, message: "x".into() }));
            (failure.exit.code(), failure.kind)
        };
        assert_eq!(ended(Exit::INTERRUPTED), (130, "interrupted"));
        assert_eq!(ended(Exit::TERMINATED), (143, "interrupted"));
        assert_eq!(ended(Exit::BROKEN_PIPE), (141, "broken_pipe"));
    }

    #[test]
    fn misuse_ends_with_2_and_the_unknown_with_1() {
        let failure = Failure::from(&Usage::error("give a file"));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::USAGE, "give a file"));
        let failure = Failure::from(&anyhow::anyhow!("two\nlines"));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::FAILED, "two\\nlines"));
    }
}
