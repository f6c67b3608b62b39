//! Numbers and names as people read them.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use brigade::limits::format_size;

/// Bytes a second: `1.3 GiB/s`.
pub(crate) fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", format_size(bytes_per_s))
}

/// A time that passed: `<1 ms`, `42 ms`, `0.42 s`, `12.3 s`, `3 min 4 s`, `2 h 5 min`.
pub(crate) fn elapsed(elapsed_ms: u64) -> String {
    let seconds = elapsed_ms / 1_000;
    match elapsed_ms {
        0 => "<1 ms".into(),
        1..100 => format!("{elapsed_ms} ms"),
        100..1_000 => format!("0.{:02} s", elapsed_ms / 10),
        1_000..60_000 => format!("{seconds}.{} s", elapsed_ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A time to come, as a clock that counts down shows it: `0:07`, `12:34`, `2:03:04`; `-:--` when
/// nothing moves. Days are said as such, since nobody reads `173:12:01`.
pub(crate) fn countdown(remaining: Option<Duration>) -> String {
    let Some(remaining) = remaining else { return "-:--".into() };
    let seconds = remaining.as_secs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match hours {
        0 => format!("{minutes}:{:02}", seconds % 60),
        1..100 => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{} days", hours / 24),
    }
}

/// How long ago something was, in one unit: `45 s`, `12 min`, `3 h`, `6 days`. Up to two of the next
/// unit it stays with the smaller one, so that it is never far off.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A moment, in UTC: `2026-11-30 20:17:46`.
pub(crate) fn date(at: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(at).to_string();
    text.truncate(19);
    text.replace('T', " ")
}

/// `1 part`, `2 parts`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A command line that a POSIX shell reads as these words.
pub(crate) fn command_line(words: &[OsString]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| shell_quoted(&word.to_string_lossy())).collect();
    quoted.join(" ")
}

/// `text` as one word of a POSIX shell.
pub(crate) fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Two names as a line of `source TAB target`: what would end a name or the line is written as `\t`, `\n`
/// and `\\`.
pub(crate) fn tab_line(source: &str, target: &str) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
    format!("{}\t{}", plain(source), plain(target))
}

/// Keys and file names may hold newlines or escape sequences; a terminal must not obey them, and a
/// log must not see two lines.
pub(crate) fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well_at_every_length() {
        let all: Vec<_> =
            [0, 42, 424, 1_000, 12_345, 59_999, 184_000, 7_500_000].map(elapsed).into();
        assert_eq!(
            all,
            ["<1 ms", "42 ms", "0.42 s", "1.0 s", "12.3 s", "59.9 s", "3 min 4 s", "2 h 5 min"]
        );
        let left = |s| countdown(Some(Duration::from_secs(s)));
        assert_eq!(
            [left(7), left(754), left(7_384), left(999_999), countdown(None)],
            ["0:07", "12:34", "2:03:04", "11 days", "-:--"]
        );
    }

    #[test]
    fn an_age_is_one_number() {
        let shown = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [shown(0), shown(119), shown(120), shown(7_199), shown(7_200), shown(172_800)],
            ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]
        );
    }

    #[test]
    fn a_date_is_one_of_utc() {
        assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(1)), "1970-01-01 00:00:01");
    }

    #[test]
    fn one_of_a_thing_is_singular() {
        assert_eq!([count(1, "part"), count(2, "part")], ["1 part", "2 parts"]);
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(one_line("a\nb\x1b[2Jü"), "a\\nb\\u{1b}[2Jü");
    }
}
