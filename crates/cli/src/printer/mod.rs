//! The one place that decides what goes to standard output, standard error or a progress bar.
//!
//! Two siblings tell the same story: [`Human`] in lines and a bar, [`Json`] in one object a line.
//! A command only ever tells a [`Printer`] what happened.
//!
//! Nobody listening is no reason to stop: when standard output or standard error is closed, what
//! was to be printed is dropped and the transfer goes on. (An object that is written to standard
//! output is another matter, see `stdout`.)

mod bar;
mod human;
mod job;
mod json;
mod meter;
mod summary;
#[cfg(test)]
mod testing;

use std::io::{IsTerminal as _, Write};
use std::time::Instant;

use brigade::Report;
use brigade::dataset::{JobReport, VerifyReport};
use brigade::progress::Event;
use serde::Serialize;

pub(crate) use self::bar::Bar;
use self::human::{Human, Tell};
use self::json::Json;
pub(crate) use self::summary::outcome;
use crate::args::OutputArgs;
use crate::environment::Environment;
use crate::failure::Failure;

/// Who is told, and how.
pub(crate) enum Printer {
    Human(Human),
    Json(Json),
}

/// Where lines go.
type Sink = Box<dyn Write>;

impl Printer {
    /// As `args` and the terminal have it. When `stdout_taken`, standard output belongs to an
    /// object's bytes and everything is told on standard error.
    pub(crate) fn new(args: &OutputArgs, stdout_taken: bool, environment: &Environment) -> Self {
        let looks = Looks::of_stderr(environment);
        let err = Box::new(std::io::stderr());
        if args.json {
            return Self::Json(if stdout_taken {
                Json::new(err, None, !args.no_progress)
            } else {
                Json::new(Box::new(std::io::stdout()), Some(err), !args.no_progress)
            });
        }
        let out: Sink =
            if stdout_taken { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
        let tell = match (args.quiet, args.verbose) {
            (true, _) => Tell::Errors,
            (_, true) => Tell::Everything,
            _ => Tell::Results,
        };
        let wants_bar = looks.terminal && !args.no_progress && tell != Tell::Errors;
        let bar = wants_bar.then(|| Bar::on_stderr(looks.color, looks.unicode));
        let wants_lines = tell == Tell::Everything && !looks.terminal && !args.no_progress;
        Self::Human(Human::new(out, err, tell, bar, wants_lines, looks.color))
    }

    /// For a command that has no options of output: errors on standard error, text on standard
    /// output.
    pub(crate) fn plain(environment: &Environment) -> Self {
        Self::new(&OutputArgs::default(), false, environment)
    }

    /// Something happened in the engine.
    pub(crate) fn event(&mut self, event: &Event, now: Instant) {
        match self {
            Self::Human(human) => human.event(event, now),
            Self::Json(json) => json.event(event, now),
        }
    }

    /// Time passed: the bar moves, a line of progress may be due.
    pub(crate) fn tick(&mut self, now: Instant) {
        match self {
            Self::Human(human) => human.tick(now),
            Self::Json(json) => json.tick(now),
        }
    }

    /// Something the person should know.
    pub(crate) fn warning(&mut self, message: &str) {
        match self {
            Self::Human(human) => human.warning(message),
            Self::Json(json) => json.warning(message),
        }
    }

    /// Something that helps a person who waits, and means nothing to a program.
    pub(crate) fn notice(&mut self, message: &str) {
        match self {
            Self::Human(human) => human.notice(message),
            Self::Json(json) => json.notice(message),
        }
    }

    /// A transfer ended well.
    pub(crate) fn report(&mut self, report: &Report) {
        match self {
            Self::Human(human) => human.report(report),
            Self::Json(json) => json.report(report),
        }
    }

    /// The same, where people want to hear of problems only, unless they asked for more.
    pub(crate) fn report_in_detail(&mut self, report: &Report) {
        match self {
            Self::Human(human) => human.report_in_detail(report),
            Self::Json(json) => json.report(report),
        }
    }

    /// A job of many objects came to its end.
    pub(crate) fn job_report(&mut self, report: &JobReport) {
        match self {
            Self::Human(human) => human.job_report(report),
            Self::Json(json) => json.job_report(report),
        }
    }

    /// A folder was held against objects.
    pub(crate) fn verify_report(&mut self, report: &VerifyReport) {
        match self {
            Self::Human(human) => human.verify_report(report),
            Self::Json(json) => json.object("report", report),
        }
    }

    /// A result of the command's own: a line for people, an object for programs.
    pub(crate) fn result<T: Serialize>(&mut self, line: &str, event: &'static str, object: &T) {
        match self {
            Self::Human(human) => human.line(line),
            Self::Json(json) => json.object(event, object),
        }
    }

    /// An object for programs only.
    pub(crate) fn result_quietly<T: Serialize>(&mut self, event: &'static str, object: &T) {
        if let Self::Json(json) = self {
            json.object(event, object);
        }
    }

    /// One of the many things that a command does failed: a line for people, an object for programs.
    pub(crate) fn failed_one<T: Serialize>(
        &mut self,
        failure: &Failure,
        event: &'static str,
        object: &T,
    ) {
        match self {
            Self::Human(human) => human.failure(failure),
            Self::Json(json) => json.failed_one(failure, event, object),
        }
    }

    /// A line about one of many things, for people who want to hear of each, and an object for programs.
    pub(crate) fn detail<T: Serialize>(&mut self, line: &str, event: &'static str, object: &T) {
        match self {
            Self::Human(human) => human.detail(line),
            Self::Json(json) => json.object(event, object),
        }
    }

    /// A line for people only.
    pub(crate) fn line(&mut self, line: &str) {
        if let Self::Human(human) = self {
            human.line(line);
        }
    }

    /// A question to a person at the terminal; the answer is typed behind it.
    pub(crate) fn ask(&mut self, question: &str) {
        if let Self::Human(human) = self {
            human.ask(question);
        }
    }

    /// The command failed, or one of the many things that it does.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        match self {
            Self::Human(human) => human.failure(failure),
            Self::Json(json) => json.failure(failure),
        }
    }
}

/// The width of the terminal that standard output is; `None` where it is none.
pub(crate) fn stdout_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// What standard error can show.
struct Looks {
    /// A terminal that can move its cursor.
    terminal: bool,
    color: bool,
    /// Whether the locale can show block characters.
    unicode: bool,
}

impl Looks {
    fn of_stderr(environment: &Environment) -> Self {
        let dumb = environment.text("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        // The first of these that is set decides, as in setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.text(name));
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        // https://no-color.org: any value but the empty one.
        let color = terminal && environment.path("NO_COLOR").is_none();
        Self { terminal, color, unicode }
    }
}
