//! What this machine, or the container that the process is in, has to give.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the engine takes without being told.
const USUAL_BYTES: u64 = 96 << 20;

/// No more of the memory than one in so many bytes is for parts under way.
const SHARE: u64 = 4;

/// Lets this process open as many files as it may: every connection is one, and most shells allow
/// only 1,024 until somebody asks.
pub(crate) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, the engine makes do with fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A share of the memory there is, where that is less than the engine would take; else `None`.
pub(crate) fn scarce_memory_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let group = read("/proc/self/cgroup").as_deref().and_then(group_of).and_then(|group| {
        let limit = read(&format!("/sys/fs/cgroup{group}/memory.max"));
        limit.or_else(|| read("/sys/fs/cgroup/memory.max"))
    });
    // Version 1.
    let group = group.or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = read("/proc/meminfo");
    scarce(group.as_deref(), machine.as_deref())
}

/// The group of version 2 that this process is in.
fn group_of(groups: &str) -> Option<&str> {
    groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(|group| group.trim_end_matches('/'))
}

fn scarce(group: Option<&str>, machine: Option<&str>) -> Option<u64> {
    // "max" is no number, and no limit.
    let of_group = group.and_then(|text| text.trim().parse::<u64>().ok());
    let of_machine = machine.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let there_is = of_group.into_iter().chain(of_machine).min()?;
    Some(there_is / SHARE).filter(|share| *share < USUAL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_machine_and_group_counts() {
        let machine = Some("MemTotal:       16384000 kB\nMemFree: 1 kB\n");
        assert_eq!(scarce(None, machine), None);
        assert_eq!(scarce(Some("max\n"), machine), None);
        assert_eq!(scarce(Some("268435456\n"), machine), Some(64 << 20));
        assert_eq!(scarce(None, Some("MemTotal: 131072 kB\n")), Some(32 << 20));
        assert_eq!(scarce(None, None), None);
        assert_eq!(group_of("1:cpu:/x\n0::/user.slice\n"), Some("/user.slice"));
        assert_eq!(group_of("0::/\n"), Some(""));
    }
}
