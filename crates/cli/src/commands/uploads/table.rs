//! Unfinished uploads as a table for people.
//!
//! Ids of uploads can be longer than a terminal is wide, and so can keys. Where everything fits, a row
//! is one line; where only the ids are too long, they are cut, since nobody types them; where even that
//! is not enough, each key goes on a line of its own. What is no terminal gets everything, uncut.

use std::time::SystemTime;

use brigade::limits::format_size;

use super::Upload;
use crate::format::{age, one_line};

const HEAD: [&str; 6] = ["AGE", "SIZE", "DONE", "WHERE", "KEY", "UPLOAD ID"];

/// Between two columns.
const GAP: &str = "  ";

/// What an id is never cut below: enough to tell two of them apart.
const MIN_ID: usize = 12;

const KEY: usize = 4;
const ID: usize = 5;

/// The head, then one entry for each upload, which may be two lines. `columns` is the terminal's
/// width, where there is one.
pub(super) fn lines(uploads: &[Upload], now: SystemTime, columns: Option<usize>) -> Vec<String> {
    let rows: Vec<_> = uploads.iter().map(|upload| cells(upload, now)).collect();
    laid_out(&rows, columns)
}

fn cells(upload: &Upload, now: SystemTime) -> [String; 6] {
    let listed = upload.listed();
    let size = match listed {
        Some(listed) => listed.size_bytes.map_or_else(|| "?".into(), format_size),
        None => "-".into(),
    };
    let done = upload.here.as_ref().map(|here| {
        let (done, total) = (here.manifest.claimed_bytes(), here.manifest.transfer.size_bytes);
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        format!("{percent}% of {}", format_size(total))
    });
    [
        upload.age(now).map_or_else(|| "?".into(), age),
        size,
        done.unwrap_or_else(|| "-".into()),
        upload.place().into(),
        one_line(&upload.url.to_string()),
        one_line(upload.id.as_deref().unwrap_or("-")),
    ]
}

fn laid_out(rows: &[[String; 6]], columns: Option<usize>) -> Vec<String> {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|at| all().map(|row| length(&row[at])).max().unwrap_or(0)).collect();
    let before_id: usize = widths[..ID].iter().map(|width| width + GAP.len()).sum();
    // Some terminals wrap when the last column is written.
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(1));
    if before_id + widths[ID].min(MIN_ID) <= room {
        return all().map(|row| line(row, &widths, room - before_id, false)).collect();
    }
    let before_id = before_id - widths[KEY] - GAP.len();
    let id = room.saturating_sub(before_id).max(MIN_ID);
    all().map(|row| line(row, &widths, id, true)).collect()
}

/// One row; the key below the rest where it is `apart`.
fn line(row: &[String; 6], widths: &[usize], id_columns: usize, apart: bool) -> String {
    let mut line = String::new();
    for at in (0..ID).filter(|at| !(apart && *at == KEY)) {
        line.push_str(&row[at]);
        let fill = widths[at].saturating_sub(length(&row[at])) + GAP.len();
        line.extend(std::iter::repeat_n(' ', fill));
    }
    line.push_str(&cut(&row[ID], id_columns));
    if apart {
        line.push('\n');
        line.push_str(GAP);
        line.push_str(&row[KEY]);
    }
    line
}

/// At most `columns` of `text`.
fn cut(text: &str, columns: usize) -> String {
    if length(text) <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(3)).chain("...".chars()).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 6]> {
        let id = "2~AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
        let of = |cells: [&str; 6]| cells.map(str::to_owned);
        vec![
            of([
                "12 days",
                "1.2 GiB",
                "60% of 2.0 GiB",
                "here and store",
                "s3://b/nightly.tar",
                id,
            ]),
            of(["3 h", "-", "5% of 700.0 MiB", "here only", "s3://b/k", "-"]),
        ]
    }

    #[test]
    fn what_is_no_terminal_gets_everything_in_one_line_each() {
        let lines = laid_out(&rows(), None);
        assert_eq!(lines.len(), 3);
        assert!(lines[1].ends_with("WxYz0123456789"), "{lines:?}");
        let key_at = |line: &str| line.find("s3://").expect("a key");
        assert_eq!(lines[0].find("KEY"), Some(key_at(&lines[1])));
        assert_eq!(key_at(&lines[1]), key_at(&lines[2]));
    }

    #[test]
    fn a_wide_terminal_cuts_ids_and_a_narrow_one_sets_keys_apart() {
        let expected = [
            "AGE      SIZE     DONE             WHERE           KEY                 UPLOAD ID",
            "12 days  1.2 GiB  60% of 2.0 GiB   here and store  s3://b/nightly.tar  2~AbCdEfGhIjKlMnOpQr...",
            "3 h      -        5% of 700.0 MiB  here only       s3://b/k            -",
        ];
        assert_eq!(laid_out(&rows(), Some(95)), expected);
        let expected = [
            "AGE      SIZE     DONE             WHERE           UPLOAD ID\n  KEY",
            "12 days  1.2 GiB  60% of 2.0 GiB   here and store  2~AbCdEfGhIjKlMnOpQrStUvW...\n  \
             s3://b/nightly.tar",
            "3 h      -        5% of 700.0 MiB  here only       -\n  s3://b/k",
        ];
        assert_eq!(laid_out(&rows(), Some(80)), expected);
        for line in laid_out(&rows(), Some(80)).iter().flat_map(|entry| entry.lines()) {
            assert!(line.len() < 80, "{line}");
        }
    }
}
