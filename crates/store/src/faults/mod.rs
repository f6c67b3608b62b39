//! Misbehaving on demand, so that what a client does about it can be tested.
//!
//! A script of [`Rule`]s, in code or from a [file](Faults::parse), says which requests meet which
//! [`Action`]s. It sits between the connections and the store, in front of any backend: what a rule does not
//! change goes its usual way, signatures are checked as ever, and what a fault lets through is really
//! applied. Without a script, all it costs is the look at one flag.
//!
//! A script comes with [`Options::faults`](crate::Options::faults), or later through
//! [`Server::faults`](crate::Server::faults):
//!
//! ```
//! use brigade_store::faults::{Action, Rule};
//! use brigade_store::{Options, Server};
//!
//! let server = Server::start(Options::default())?;
//! let faults = server.faults();
//! faults.set(Rule::on("GetObject").per_part().nth(1).then(Action::answer(503, "SlowDown")))?;
//! // ... requests ...
//! assert_eq!(faults.fired().total, 0);
//! faults.clear();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod apply;
mod body;
mod clock;
mod edit;
mod file;
mod reply;
mod route;
mod rule;
mod script;
mod values;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use http::request::Parts;
use tokio::sync::watch;

pub use action::{Action, Answer, Edit, Pairs, Place, RefuseKeys, Side};
pub use rule::{Faults, FaultsError, Match, Per, Rule, When};

pub(crate) use apply::{Ended, Exchange, ReadOff};
pub(crate) use edit::escape;
pub(crate) use route::{Rewrite, Rewriting};
pub(crate) use script::identity;
pub(crate) use wire::{Fuse, Wire};

use crate::locks::{read, write};
use script::Script;

/// How often the rules of the script fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// All together.
    pub total: u64,
    /// By rule, in the script's order.
    pub rules: Vec<u64>,
}

/// The faults of a running store, to be changed at any time. All clones are one.
#[derive(Clone)]
pub struct FaultHandle(Arc<Control>);

struct Control {
    /// Whether there is a script: all that is looked at where there is none.
    on: AtomicBool,
    script: RwLock<Arc<Script>>,
    /// Counts the releases.
    releases: watch::Sender<u64>,
}

impl FaultHandle {
    pub(crate) fn new(faults: Option<Faults>) -> Result<Self, FaultsError> {
        let handle = Self(Arc::new(Control {
            on: AtomicBool::new(false),
            script: RwLock::new(Arc::new(Script::new(Faults::default()))),
            releases: watch::Sender::new(0),
        }));
        if let Some(faults) = faults {
            handle.set(faults)?;
        }
        Ok(handle)
    }

    /// Puts a script in the place of the one before. Requests that have begun go on with theirs. Counts,
    /// [`fired`](Self::fired) and time windows begin anew.
    pub fn set(&self, faults: impl Into<Faults>) -> Result<(), FaultsError> {
        let faults = faults.into();
        faults.check()?;
        *write(&self.0.script) = Arc::new(Script::new(faults));
        self.0.on.store(true, Ordering::Release);
        Ok(())
    }

    /// No more faults. What stalls goes on doing so; see [`release`](Self::release). The counts stay.
    pub fn clear(&self) {
        self.0.on.store(false, Ordering::Release);
    }

    /// How often the rules fired: how many requests they decided about.
    pub fn fired(&self) -> Fired {
        read(&self.0.script).fired()
    }

    /// Ends every stall without a time, and carries out what was to be applied late without a time: of the
    /// requests that fired a rule so far.
    pub fn release(&self) {
        self.0.releases.send_modify(|count| *count += 1);
    }

    /// The rule that fires for a request, if any.
    pub(crate) fn choose(&self, operation: &str, request: &Parts) -> Option<(Arc<Rule>, Release)> {
        if !self.0.on.load(Ordering::Acquire) {
            return None;
        }
        let script = Arc::clone(&read(&self.0.script));
        // Before the rule counts as fired: who sees that it did may release it.
        let release = Release(self.0.releases.subscribe());
        Some((script.choose(operation, request)?, release))
    }
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultHandle").field("fired", &self.fired()).finish_non_exhaustive()
    }
}

/// What ends waiting.
#[derive(Clone)]
pub(crate) struct Release(watch::Receiver<u64>);

impl Release {
    /// Waits for so long or, without a time, until released.
    async fn wait(mut self, time: Option<Duration>) {
        if let Some(time) = time {
            return tokio::time::sleep(time).await;
        }
        if self.0.changed().await.is_err() {
            // The store is gone; its connections are about to be.
            std::future::pending::<()>().await;
        }
    }
}
