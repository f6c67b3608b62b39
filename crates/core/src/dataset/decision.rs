//! Whether what is under one name on both sides is the same, going by what a walk and a listing tell.
//!
//! The times of a file and of an object are of two clocks and two meanings: a file's says when it was written, an object's when it
//! was uploaded. So they are compared by the direction:
//!
//! - **up:** a file that was written after the object was made has changed since. One that was written before it has
//!   been uploaded: there is nothing to do, whatever the difference.
//! - **down:** a download gives its file the object's time, so that any other time means another object, or a file that
//!   somebody wrote. Older or newer does not matter.
//! - **between stores:** as up. A copy is younger than what it was made from, until that is replaced.
//!
//! Only whole seconds count, fractions cut off on both sides: AWS lists times without them, other stores
//! with milliseconds, `Last-Modified` never has any, and some file systems have no finer times. A file of 10.7 s that was
//! uploaded at 10.9 s is listed with 10 s, and would be sent again and again otherwise. So a file that is
//! changed within the second in which it was uploaded, to the same size, is not noticed; checksums notice it. After a sync,
//! the sync commands of others, which compare sizes and times as well, find nothing to do in the same direction.

use std::time::SystemTime;

use super::compare::Pair;
use super::entry::Entry;

/// Which way a dataset goes; the source is the left side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a folder to a store.
    Up,
    /// From a store to a folder.
    Down,
    /// From a store to a store.
    Between,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compared {
    /// Sizes and times.
    #[default]
    SizeAndTime,
    /// Sizes alone. Who compares contents begins with this, since other sizes are other contents.
    Size,
}

/// How a name's source and target differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Difference {
    /// The target does not have it.
    Missing,
    /// Their sizes differ.
    Size,
    /// The source was written since, or, going down, their times differ; or a time is not known.
    Newer,
    /// Their contents differ. Who compares those says so.
    Content,
    /// None that was looked for.
    Same,
    /// The source does not have it.
    Extra,
}

impl Difference {
    /// Whether the source is to be transferred.
    pub fn is_to_be_moved(self) -> bool {
        matches!(self, Self::Missing | Self::Size | Self::Newer | Self::Content)
    }
}

impl Pair {
    /// How the source, the left side, and the target differ.
    ///
    /// ```
    /// use brigade::dataset::{Compared, Difference, Direction, Pair};
    ///
    /// let pair = Pair { left: Some(brigade::Entry::default()), right: None };
    /// let difference = pair.difference(Direction::Up, Compared::SizeAndTime);
    /// assert_eq!(difference, Difference::Missing);
    /// ```
    pub fn difference(&self, direction: Direction, compared: Compared) -> Difference {
        let (source, target) = match (&self.left, &self.right) {
            (Some(source), Some(target)) => (source, target),
            (_, None) => return Difference::Missing,
            (None, _) => return Difference::Extra,
        };
        if source.size_bytes != target.size_bytes {
            return Difference::Size;
        }
        if compared == Compared::Size {
            return Difference::Same;
        }
        let (Some(written), Some(moved)) = (seconds(source), seconds(target)) else {
            return Difference::Newer;
        };
        let is_same = match direction {
            Direction::Up | Direction::Between => written <= moved,
            Direction::Down => written == moved,
        };
        if is_same { Difference::Same } else { Difference::Newer }
    }
}

/// Whole seconds since 1970, rounded down, before it as well.
fn seconds(entry: &Entry) -> Option<i128> {
    let modified = entry.modified?;
    Some(match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::from(after.as_secs()),
        Err(before) => {
            let before = before.duration();
            -i128::from(before.as_secs()) - i128::from(before.subsec_nanos() > 0)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Milliseconds since 1970.
    #[expect(clippy::unnecessary_wraps, reason = "a side of a pair")]
    fn at(size_bytes: u64, time: Option<i64>) -> Option<Entry> {
        let modified = time.map(|ms| {
            let far = Duration::from_millis(ms.unsigned_abs());
            let base = SystemTime::UNIX_EPOCH;
            if ms < 0 { base - far } else { base + far }
        });
        Some(Entry { size_bytes, modified, ..Entry::default() })
    }

    #[test]
    fn the_table_of_differences() {
        use Difference::{Extra, Missing, Newer, Same, Size};
        use Direction::{Between, Down, Up};
        for (left, right, expected) in [
            (at(1, Some(1)), None, [Missing; 3]),
            (None, at(1, Some(1)), [Extra; 3]),
            (at(1, Some(5000)), at(2, Some(5000)), [Size; 3]),
            (at(1, Some(5000)), at(1, Some(5000)), [Same; 3]),
            // Up, down, between: the source is older, younger, and within the same second.
            (at(1, Some(5000)), at(1, Some(6000)), [Same, Newer, Same]),
            (at(1, Some(6000)), at(1, Some(5999)), [Newer, Newer, Newer]),
            (at(1, Some(5999)), at(1, Some(5000)), [Same; 3]),
            (at(1, Some(5000)), at(1, Some(5999)), [Same; 3]),
            (at(1, Some(-1)), at(1, Some(0)), [Same, Newer, Same]),
            (at(1, Some(-1)), at(1, Some(-1000)), [Same; 3]),
            (at(1, Some(0)), at(1, Some(-1)), [Newer; 3]),
            (at(1, None), at(1, Some(5000)), [Newer; 3]),
            (at(1, Some(5000)), at(1, None), [Newer; 3]),
        ] {
            let pair = Pair { left, right };
            for (direction, expected) in [Up, Down, Between].into_iter().zip(expected) {
                let difference = pair.difference(direction, Compared::SizeAndTime);
                assert_eq!(difference, expected, "{direction:?}: {pair:?}");
                let by_size = pair.difference(direction, Compared::Size);
                assert_eq!(by_size, if expected == Newer { Same } else { expected }, "{pair:?}");
            }
        }
        let moved = [Missing, Size, Newer, Same, Extra].map(Difference::is_to_be_moved);
        assert_eq!(moved, [true, true, true, false, false]);
    }
}
