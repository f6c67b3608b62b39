//! The environment as a value, so that tests need not change the process's own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Environment variables, read once when the process starts.
#[derive(Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A variable's value. An empty one counts as unset, as `curl` and `aws` have it: `NAME= brigade`
    /// is how people switch a variable off for one command.
    pub(crate) fn path(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The same, where the value is text; one that is not UTF-8 counts as unset.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.path(name).and_then(OsStr::to_str)
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
