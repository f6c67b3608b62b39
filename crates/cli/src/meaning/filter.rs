//! Which objects and files are meant: the engine's filter, from the options that choose.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use brigade::dataset::{Filter, FilterOptions, FilterRule};

use crate::args::filter::{FilterArgs, RuleArg, When};
use crate::failure::Usage;

/// The filter, with ages counted from `now`. Whatever is wrong is misuse, told in one line.
pub(crate) fn filter(args: &FilterArgs, now: SystemTime) -> Result<Filter> {
    let mut rules = Vec::new();
    for rule in &args.rules.0 {
        match rule {
            RuleArg::Exclude(pattern) => rules.push(FilterRule::exclude(pattern)),
            RuleArg::Include(pattern) => rules.push(FilterRule::include(pattern)),
            RuleArg::From(path) => rules.extend(rules_in(path)?),
        }
    }
    let options = FilterOptions {
        rules,
        newer_than: moment("--newer-than", args.newer_than, now)?,
        older_than: moment("--older-than", args.older_than, now)?,
        min_size_bytes: args.min_size,
        max_size_bytes: args.max_size,
    };
    let never = |first, second| {
        Usage::error(format!("nothing is within both {first} and {second}; change one of them"))
    };
    match (options.newer_than, options.older_than) {
        (Some(from), Some(until)) if from >= until => {
            return Err(never("--newer-than", "--older-than"));
        }
        _ => {}
    }
    match (options.min_size_bytes, options.max_size_bytes) {
        (Some(min), Some(max)) if min > max => return Err(never("--min-size", "--max-size")),
        _ => {}
    }
    Ok(Filter::new(&options)?)
}

/// The rules in the file at `path`. They are read once here already, so that a complaint can name the file.
fn rules_in(path: &Path) -> Result<Vec<FilterRule>> {
    let told = |why: &str, advice: &str| {
        Usage::error(format!("read the rules in {}: {why}; {advice}", path.display()))
    };
    let bytes = fs::read(path).map_err(|source| {
        let error = brigade::Error::io("read", path, source);
        told(error.detail(), error.advice().unwrap_or("name another file"))
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| told("it is not UTF-8 text", "save it as such, or name another file"))?;
    let rules = FilterRule::of_lines(&text);
    for (at, rule) in rules.iter().enumerate() {
        let alone = FilterOptions { rules: vec![rule.clone()], ..FilterOptions::default() };
        // A thousand lines are a few milliseconds; more are read together, and a complaint names only the pattern.
        if at < 1000 {
            Filter::new(&alone).map_err(|error| {
                told(&format!("{}: {}", error.target(), error.detail()), "mend that line")
            })?;
        }
    }
    Ok(rules)
}

fn moment(option: &str, when: Option<When>, now: SystemTime) -> Result<Option<SystemTime>> {
    Ok(match when {
        None => None,
        Some(When::At(moment)) => Some(moment),
        Some(When::Ago(age)) => Some(now.checked_sub(age).ok_or_else(|| {
            Usage::error(format!("{option}: there was no time so long ago; give a date"))
        })?),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use brigade::Entry;

    use super::*;
    use crate::args::filter::tests::read;
    use crate::failure::Failure;

    fn meant(line: &str) -> Result<Filter, String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        filter(&read(line).expect("well formed"), now).map_err(|error| {
            let failure = Failure::from(&error);
            assert_eq!(failure.exit.code(), 2, "{line}");
            assert!(!failure.message.contains('\n'), "{line}");
            failure.message
        })
    }

    fn entry(name: &str, size_bytes: u64, unix_s: u64) -> Entry {
        let mut entry = Entry::default();
        entry.name = name.into();
        entry.size_bytes = size_bytes;
        entry.modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s));
        entry
    }

    #[test]
    fn options_and_files_are_one_list_of_rules() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rules");
        fs::write(&file, "# kept\n!*.txt\n/b/\n").expect("writable");
        let line = format!("--exclude * --filter-from {} --include /b/c", file.display());
        let filter = meant(&line).expect("fine");
        let admitted = ["a", "a.txt", "b/a.txt", "b/c", "x/b/a.txt"].map(|n| filter.admits_name(n));
        assert_eq!(admitted, [false, true, false, true, true]);
        assert!(meant("").expect("fine").is_empty());
    }

    #[test]
    fn ages_count_from_now_and_bounds_hold() {
        let filter = meant("--newer-than 1000s --older-than 10s --min-size 2 --max-size 3");
        let filter = filter.expect("fine");
        for (size, unix_s, admitted) in [
            (2, 999_000, true),
            (3, 999_989, true),
            (2, 998_999, false),
            (2, 999_990, false),
            (1, 999_500, false),
            (4, 999_500, false),
        ] {
            assert_eq!(filter.admits(&entry("a", size, unix_s)), admitted, "{size} {unix_s}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_in_one_line_with_code_2() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("bad"), "fine\na[b\n").expect("writable");
        fs::write(at("latin"), b"\xff\n").expect("writable");
        for (line, told) in [
            (
                "--exclude a[b".to_owned(),
                "read the filter's pattern a[b: a [ is not closed".to_owned(),
            ),
            (
                format!("--filter-from {}", at("gone")),
                format!("read the rules in {}: no such file or directory; check", at("gone")),
            ),
            (
                format!("--filter-from {}", at("latin")),
                format!("read the rules in {}: it is not UTF-8 text", at("latin")),
            ),
            (
                format!("--filter-from {}", at("bad")),
                format!("read the rules in {}: a[b: a [ is not closed; mend", at("bad")),
            ),
            ("--min-size 3 --max-size 2".into(), "nothing is within both --min-size and".into()),
            (
                "--newer-than 1s --older-than 1s".into(),
                "nothing is within both --newer-than".into(),
            ),
            ("--newer-than 400000000000y".into(), "--newer-than: there was no time so".into()),
        ] {
            let said = meant(&line).expect_err(&line);
            assert!(said.contains(&told), "{line}: {said}");
        }
    }
}
