//! The progress bar: one line that uses the width there is.
//!
//! indicatif draws, clears and redraws; what the line says is made here, since it depends on the
//! width: at 40 columns the percentage, the speed, the time left and a short bar; with more room the
//! amounts, the verb and the parts as well. Fields keep their widths, so that nothing jumps about.

use brigade::limits::format_size;
use brigade::progress::Operation;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::meter::{Meter, Phase};
use crate::format;

/// The bar itself is never shorter, else it says nothing, and never longer, else the eye has to
/// travel.
const BAR_CELLS: std::ops::RangeInclusive<usize> = 8..=40;

/// Between two fields.
const GAP: &str = "  ";

/// A line on the terminal that shows a [`Meter`].
pub(crate) struct Bar {
    line: ProgressBar,
    ink: Ink,
}

/// What the line is drawn with.
#[derive(Debug, Clone, Copy)]
struct Ink {
    color: bool,
    done: char,
    rest: char,
}

impl Bar {
    /// A bar on standard error; nothing shows before the first [`Bar::show`].
    pub(crate) fn on_stderr(color: bool, unicode: bool) -> Self {
        // The engine's events are looked at ten times a second; drawing more often shows nothing new.
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        line.set_style(ProgressStyle::default_spinner().template("{msg}").unwrap_or_else(|_| {
            // A template of one field always parses.
            ProgressStyle::default_spinner()
        }));
        Self { line, ink: Ink::new(color, unicode) }
    }

    /// Draws where things stand.
    pub(super) fn show(&self, meter: &Meter) {
        let columns = columns();
        self.line.set_message(match &meter.job {
            Some(job) => super::job::line(job, meter, columns),
            None => line(meter, columns, self.ink),
        });
    }

    /// Runs `print` with the bar out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.line.suspend(print);
    }

    /// Takes the bar off the terminal; a later [`Bar::show`] brings it back.
    pub(super) fn clear(&self) {
        self.line.set_message("");
        self.line.finish_and_clear();
        self.line.reset();
    }
}

impl Ink {
    fn new(color: bool, unicode: bool) -> Self {
        let (done, rest) = if unicode { ('█', '░') } else { ('#', '.') };
        Self { color, done, rest }
    }
}

/// The terminal's width; 80 where it does not say.
fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => 80,
    }
}

/// A field of the line: its text, and whether it stands left or right of the bar.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Verb,
    Percent,
    Bar,
    Amount,
    Rate,
    Left,
    Parts,
}

/// The line for a terminal of `columns`, at most one less wide: some terminals wrap when the last
/// column is written.
fn line(meter: &Meter, columns: usize, ink: Ink) -> String {
    use Field::{Amount, Bar, Left, Parts, Percent, Rate, Verb};
    let room = columns.saturating_sub(1);
    if meter.phase == Phase::Connecting {
        return "connecting".chars().take(room).collect();
    }
    // By importance: as many as fit. Once all bytes are in, speed and time left mean nothing.
    let wanted: &[Field] = match meter.phase {
        // Of a stream, nobody knows how much is left.
        Phase::Moving(_) if meter.is_open() => &[Amount, Rate, Verb, Parts],
        _ if meter.is_open() => &[Verb, Amount],
        Phase::Moving(_) => &[Percent, Rate, Left, Bar, Amount, Verb, Parts],
        _ => &[Verb, Percent, Bar, Amount],
    };
    let mut fields = Vec::new();
    let mut used = 0;
    for field in wanted.iter().copied() {
        let width = match field {
            Bar => *BAR_CELLS.start(),
            other => text(other, meter).chars().count(),
        };
        let gap = if fields.is_empty() { 0 } else { GAP.len() };
        if used + gap + width <= room {
            used += gap + width;
            fields.push(field);
        }
    }
    let cells = (BAR_CELLS.start() + (room - used)).min(*BAR_CELLS.end());
    [Verb, Percent, Bar, Amount, Rate, Left, Parts]
        .into_iter()
        .filter(|field| fields.contains(field))
        .map(|field| if field == Bar { bar(meter, cells, ink) } else { text(field, meter) })
        .collect::<Vec<_>>()
        .join(GAP)
}

/// A field's text, padded to the width it has most of the time.
fn text(field: Field, meter: &Meter) -> String {
    match field {
        Field::Verb => format!("{:<11}", verb(meter.phase)),
        Field::Percent => format!("{:>3}%", meter.percent()),
        Field::Bar => String::new(),
        Field::Amount if meter.is_open() => format!("{:>9}", format_size(meter.bytes_done)),
        Field::Parts if meter.is_open() => {
            format!("{} parts, {:>2} in flight", meter.parts_done, meter.parts_in_flight)
        }
        Field::Amount => {
            let total = format_size(meter.bytes_total);
            let done = format_size(meter.bytes_done.min(meter.bytes_total));
            format!("{done:>9} of {total}")
        }
        Field::Rate => format!("{:>11}", format::rate(meter.bytes_per_s())),
        Field::Left => format!("{:>5} left", format::countdown(meter.remaining())),
        Field::Parts => {
            let total = meter.parts_total.to_string();
            let (done, width) = (meter.parts_done, total.len());
            format!("{done:>width$}/{total} parts, {:>2} in flight", meter.parts_in_flight)
        }
    }
}

fn bar(meter: &Meter, cells: usize, ink: Ink) -> String {
    // Cells are at most 40 and percent at most 100, so the product fits anything.
    let done = usize::try_from(meter.percent()).unwrap_or(100) * cells / 100;
    let filled: String = std::iter::repeat_n(ink.done, done).collect();
    let empty: String = std::iter::repeat_n(ink.rest, cells - done).collect();
    if ink.color { format!("\x1b[36m{filled}\x1b[2m{empty}\x1b[0m") } else { filled + &empty }
}

/// What is going on, in a word.
pub(super) fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::Moving(Operation::Upload) => "uploading",
        Phase::Moving(Operation::Download) => "downloading",
        Phase::Moving(Operation::Copy) => "copying",
        Phase::Moving(_) => "moving",
        Phase::Finishing => "finishing",
        Phase::Verifying => "verifying",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use brigade::progress::Event;

    use super::*;

    const PLAIN: Ink = Ink { color: false, done: '#', rest: '.' };

    fn halfway() -> Meter {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.event(
            &Event::Started {
                operation: Operation::Upload,
                source: "f".into(),
                target: "s3://b/k".into(),
                size_bytes: 2 << 30,
                parts: 256,
                part_size_bytes: 8 << 20,
                concurrency: 16,
            },
            start,
        );
        for part in 1..=128 {
            meter.event(&Event::PartStarted { part, size_bytes: 8 << 20 }, start);
            if part <= 112 {
                let done = Event::PartDone { part, size_bytes: 8 << 20, elapsed_ms: 1 };
                meter.event(&done, start);
            }
        }
        meter.event(&Event::Moved { bytes: 1 << 30 }, start);
        meter.sample(start + Duration::from_secs(2));
        meter
    }

    #[test]
    fn a_stream_has_no_end_in_sight() {
        let (now, mut meter) = (Instant::now(), Meter::default());
        let started = Event::Started {
            operation: Operation::Upload,
            source: "-".into(),
            target: "s3://b/k".into(),
            size_bytes: 0,
            parts: 0,
            part_size_bytes: 8 << 20,
            concurrency: 8,
        };
        meter.event(&started, now);
        meter.event(&Event::Moved { bytes: 3 << 20 }, now);
        let shown = line(&meter, 80, Ink::new(false, false));
        assert!(shown.contains("3.0 MiB") && shown.contains("0 parts"), "{shown}");
        assert!(!shown.contains('%') && !shown.contains(" of "), "{shown}");
    }

    #[test]
    fn every_width_shows_what_fits() {
        let meter = halfway();
        let shown: Vec<_> = [20, 40, 60, 80, 200].map(|width| line(&meter, width, PLAIN)).into();
        assert_eq!(
            shown,
            [
                " 50%  512.0 MiB/s",
                " 50%  ####....  512.0 MiB/s   0:02 left",
                "uploading     50%  #######........  512.0 MiB/s   0:02 left",
                "uploading     50%  ######.......    1.0 GiB of 2.0 GiB  512.0 MiB/s   0:02 left",
                "uploading     50%  ####################....................    1.0 GiB of 2.0 GiB  \
                 512.0 MiB/s   0:02 left  112/256 parts, 16 in flight",
            ]
        );
    }

    #[test]
    fn once_all_bytes_are_in_speed_means_nothing() {
        let mut meter = halfway();
        meter.event(&Event::Moved { bytes: 1 << 30 }, Instant::now());
        meter.event(&Event::Finishing, Instant::now());
        assert_eq!(line(&meter, 40, PLAIN), "finishing    100%  ####################");
    }

    #[test]
    fn no_width_is_ever_exceeded() {
        let meter = halfway();
        for columns in 0..=250 {
            let shown = line(&meter, columns, PLAIN).chars().count();
            assert!(shown < columns.max(1), "{shown} of {columns}");
            assert!(line(&Meter::default(), columns, PLAIN).len() < columns.max(1));
        }
    }

    #[test]
    fn color_changes_nothing_but_the_bar() {
        let ink = Ink::new(true, true);
        let shown = line(&halfway(), 40, ink);
        assert_eq!(shown, " 50%  \x1b[36m████\x1b[2m░░░░\x1b[0m  512.0 MiB/s   0:02 left");
    }
}
