//! How many of many things were done, and how a process ends that did them.

use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::Printer;

/// Counts what became of things that are done one after another.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) failed: u64,
    /// A process is at them; they were left alone.
    pub(super) running: u64,
    /// A stop came before them, or while they were done.
    pub(super) left: u64,
    /// How the last failure would end the process, were it the only one.
    last_failure: Option<Exit>,
    stopped: Option<Exit>,
}

impl Tally {
    /// Tells of one that failed, and counts it.
    pub(super) fn failure(&mut self, failure: &Failure, printer: &mut Printer) {
        printer.failure(failure);
        self.failed += 1;
        self.last_failure = Some(failure.exit);
    }

    /// Nothing further is begun: `left` are left, and a signal decides how the process ends.
    pub(super) fn stop(&mut self, left: usize, exit: Exit) {
        self.left = left as u64;
        self.stopped = Some(exit);
    }

    /// How the process ends: one thing alone as it would alone, several in part.
    pub(super) fn exit(&self) -> Exit {
        let alone = self.done + self.failed + self.running == 1;
        match (self.stopped, self.last_failure) {
            (Some(stopped), _) => stopped,
            (None, None) => Exit::SUCCESS,
            (None, Some(failure)) if alone => failure,
            (None, Some(_)) => Exit::PARTIAL,
        }
    }

    /// `resumed 3, failed 1, running 1`, without what there is none of.
    pub(super) fn line(&self, done: &str) -> String {
        let others = [("failed", self.failed), ("running", self.running), ("left", self.left)];
        let others = others.into_iter().filter(|(_, number)| *number > 0);
        others.fold(format!("{done} {}", self.done), |line, (what, number)| {
            format!("{line}, {what} {number}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(done: u64, failed: u64, running: u64) -> Tally {
        let last_failure = (failed > 0).then_some(Exit::FAILED);
        Tally { done, failed, running, last_failure, ..Tally::default() }
    }

    #[test]
    fn one_failure_among_several_is_partial() {
        assert_eq!(tally(0, 0, 0).exit(), Exit::SUCCESS);
        assert_eq!(tally(3, 0, 1).exit(), Exit::SUCCESS);
        assert_eq!(tally(0, 1, 0).exit(), Exit::FAILED);
        for several in [tally(1, 1, 0), tally(0, 2, 0), tally(0, 1, 1)] {
            assert_eq!(several.exit(), Exit::PARTIAL, "{several:?}");
        }
        let mut stopped = tally(0, 1, 0);
        stopped.stop(2, Exit::TERMINATED);
        assert_eq!(stopped.exit(), Exit::TERMINATED);
    }

    #[test]
    fn the_line_leaves_out_what_there_is_none_of() {
        assert_eq!(tally(3, 0, 0).line("resumed"), "resumed 3");
        assert_eq!(tally(3, 1, 2).line("resumed"), "resumed 3, failed 1, running 2");
    }
}
