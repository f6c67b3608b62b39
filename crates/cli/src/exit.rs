//! How a process ends: every exit code there is, in one table.
//!
//! A script decides by these numbers, so they are a promise: `--help`, the man page and docs/CLI.md
//! are made from this table or tested against it. The engine gives each kind of error its number
//! ([`brigade::ErrorKind::exit_code`]); the rest are the command line's own.

use std::fmt::Write as _;

/// One way to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    pub(crate) const SUCCESS: Self = Self(0);
    pub(crate) const FAILED: Self = Self(1);
    pub(crate) const USAGE: Self = Self(2);
    pub(crate) const PARTIAL: Self = Self(3);
    pub(crate) const INTERRUPTED: Self = Self(130);
    /// 128 and the number of SIGPIPE: what a shell shows of a tool whose reader went away.
    pub(crate) const BROKEN_PIPE: Self = Self(141);
    pub(crate) const TERMINATED: Self = Self(143);

    pub(crate) fn code(self) -> u8 {
        self.0
    }
}

impl From<brigade::ErrorKind> for Exit {
    fn from(kind: brigade::ErrorKind) -> Self {
        Self(kind.exit_code())
    }
}

/// Every code and what it means, in the words of the documentation.
pub(crate) const TABLE: [(u8, &str); 12] = [
    (0, "success"),
    (1, "failed: a local file error, a full disk, a refusal by the store that no other code names"),
    (2, "bad usage: the arguments make no sense as given"),
    (3, "partial: some of many objects were moved, others were not"),
    (4, "not found: the file, bucket, key or version does not exist"),
    (5, "access denied: credentials, permissions in the store, or a file's own permissions"),
    (6, "conflict: a precondition did not hold, or the source changed meanwhile"),
    (7, "verification failed: the bytes differ, or proof was required and there is none"),
    (8, "store unreachable, failing or throttling through every attempt"),
    (130, "interrupted (SIGINT, Ctrl-C)"),
    (141, "the reader of standard output went away"),
    (143, "terminated (SIGTERM)"),
];

/// The table as indented lines, for `--help`.
pub(crate) fn table_as_text() -> String {
    TABLE.iter().fold(String::from("Exit codes:"), |mut text, (code, meaning)| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {code:>3}  {meaning}");
        text
    })
}

#[cfg(test)]
mod tests {
    use brigade::ErrorKind;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../../docs/CLI.md");

    #[test]
    fn the_documentation_lists_exactly_these_codes() {
        let documented: Vec<(u8, String)> = DOCUMENTED
            .lines()
            .skip_while(|line| *line != "## Exit codes")
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| {
                let mut cells = line.trim_matches('|').split('|').map(str::trim);
                let code = cells.next()?.parse().ok()?;
                Some((code, cells.next()?.to_owned()))
            })
            .collect();
        let table: Vec<_> = TABLE.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn every_kind_of_error_has_a_documented_code() {
        use ErrorKind as K;
        for kind in [
            K::InvalidInput,
            K::NotFound,
            K::AccessDenied,
            K::Conflict,
            K::Changed,
            K::Integrity,
            K::Unreachable,
            K::Throttled,
            K::ServerFailure,
            K::Rejected,
            K::Unsupported,
            K::Archived,
            K::Io,
            K::DiskFull,
            K::Interrupted,
        ] {
            let code = Exit::from(kind).code();
            assert!(TABLE.iter().any(|(known, _)| *known == code), "{kind:?} ends with {code}");
        }
    }

    #[test]
    fn the_named_codes_are_in_the_table() {
        for exit in [
            Exit::SUCCESS,
            Exit::FAILED,
            Exit::USAGE,
            Exit::PARTIAL,
            Exit::INTERRUPTED,
            Exit::BROKEN_PIPE,
            Exit::TERMINATED,
        ] {
            assert!(TABLE.iter().any(|(known, _)| *known == exit.code()), "{exit:?}");
        }
    }
}
