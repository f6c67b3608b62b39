//! Looking at many files of one folder: their sizes and times.
//!
//! Inode by inode, since a disk has them in that order. Where one look takes long, it is a disk or a network that is waited for
//! and not a processor, and then many threads wait at once.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use super::folder::{Name, look_at};

/// Threads that look where it is slow.
const THREADS: usize = 16;

/// It is slow where one look takes longer. From memory it is about 1 µs; a thread costs some 50 µs to make.
const SLOW: Duration = Duration::from_micros(50);

/// Fewer files than these for each thread are not worth one.
const FILES_PER_THREAD: usize = 4;

/// What a look tells: size and time, or nothing where it is no file any more.
pub(super) type Look = Result<Option<(u64, SystemTime)>, Errno>;

/// Looks, and learns how long that takes.
#[derive(Debug)]
pub(super) struct Looker {
    follow: bool,
    /// One look by one thread, on average, the last time.
    took: Duration,
    order: Vec<u32>,
}

impl Looker {
    pub(super) fn new(follow: bool) -> Self {
        Self { follow, took: Duration::ZERO, order: Vec::new() }
    }

    /// Looks at each of `names`; the answers come in the same order.
    pub(super) fn look(&mut self, folder: BorrowedFd<'_>, names: &[Name<'_>]) -> Vec<Look> {
        let mut looks = vec![Ok(None); names.len()];
        if names.is_empty() {
            return looks;
        }
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..u32::try_from(names.len()).unwrap_or(u32::MAX));
        order.sort_unstable_by_key(|at| names[*at as usize].inode);
        let threads =
            if self.took > SLOW { THREADS.min(names.len() / FILES_PER_THREAD) } else { 1 }.max(1);
        let begun = Instant::now();
        let follow = self.follow;
        let look = |at: &u32| look_at(folder, names[*at as usize].text, follow);
        if threads == 1 {
            for at in &order {
                looks[*at as usize] = look(at);
            }
        } else {
            let share = order.len().div_ceil(threads);
            let answers: Vec<Look> = thread::scope(|scope| {
                let shares: Vec<_> = order
                    .chunks(share)
                    .map(|share| scope.spawn(move || share.iter().map(look).collect::<Vec<_>>()))
                    .collect();
                let joined = shares.into_iter().map(thread::ScopedJoinHandle::join);
                joined.flat_map(Result::unwrap_or_default).collect()
            });
            for (at, answer) in order.iter().zip(answers) {
                looks[*at as usize] = answer;
            }
        }
        let looked = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let all_threads = u32::try_from(threads).unwrap_or(1);
        self.took = begun.elapsed() * all_threads / looked;
        self.order = order;
        looks
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::super::folder::Kind;
    use super::*;

    #[test]
    fn many_threads_find_what_one_finds() {
        let folder = tempfile::tempdir().expect("a folder");
        let texts: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
        for (number, text) in texts.iter().enumerate().filter(|(number, _)| number % 7 != 0) {
            std::fs::write(folder.path().join(text), "x".repeat(number)).expect("writable");
        }
        let file = File::open(folder.path()).expect("there");
        let names: Vec<Name<'_>> = (1..)
            .zip(&texts)
            .map(|(at, text)| Name { text, kind: Kind::File, inode: at * 37 % 101 })
            .collect();
        let mut looker = Looker::new(true);
        let alone = looker.look(file.as_fd(), &names);
        looker.took = SLOW * 2;
        assert_eq!(looker.look(file.as_fd(), &names), alone);
        for (number, look) in alone.into_iter().enumerate() {
            let size = look.map(|look| look.expect("a file").0);
            let expected = if number % 7 == 0 { Err(Errno::NOENT) } else { Ok(number as u64) };
            assert_eq!(size, expected, "{number}");
        }
    }
}
