//! Which part runs next, on which core, and what happens when it fails.
//!
//! A [`Lanes`] is one thread a core, each driving a `current_thread` runtime: a part lives its
//! whole life on one lane, so that its buffers, its connection and its timers stay in one core's
//! caches and no work-stealing queue sits between a readable socket and the code that reads it.
//! [`run_parts`] starts the parts that the [`Window`] admits; [`Retry`] repeats what may pass.

mod control;
mod hedge;
mod lanes;
mod pace;
mod retry;
mod run;
mod scope;
mod turns;
mod window;

pub(crate) use hedge::{First, hedged};
pub(crate) use lanes::{LaneId, Lanes};
pub(crate) use retry::{Attempts, Retry};
pub(crate) use run::{Cost, STOP_GRACE, run_ordered, run_parts};
pub(crate) use scope::RetryScope;
pub(crate) use turns::Turns;
pub(crate) use window::{Admission, Bounds, Memory, Window, is_near};
