//! Which of a name's addresses a connection goes to.
//!
//! A store's name has several addresses, each a machine that is good for some of the bandwidth only.
//! All of them are used: a new connection goes to the one with the fewest, over all lanes of a
//! session, since these share the lists ([`Addresses`]). A list that is half a minute old is looked
//! up again before it is used, so that a name that moves is followed.
//!
//! An address that cannot be connected to, or where a connection stood still, is put aside: for some
//! seconds, then for twice as long. What comes back is tried by one connection before the others
//! follow. Where all are aside the one that has been so the longest is tried first: nothing is ever
//! given up.
//!
//! A list is kept in a [`Rota`], which knows neither clocks nor names; the rest asks the resolver,
//! once for all who wait, and keeps count of connections by a [`Seat`] that each holds.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use tokio::time::Instant;

use super::failure::Failure;

/// How old a list may be after a lookup that failed, while there is an old list to go on with.
const FRESH_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long a lookup may keep a connection waiting that could go to an address of the old list.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(1);

/// An address is not left out for longer.
const MAX_ASIDE: Duration = Duration::from_mins(2);

/// How long what is known counts.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How old a list may be when a connection is opened. Amazon's lists live for 5 s, but hold a few
    /// of very many addresses, any of which keep working.
    fresh: Duration,
    /// How long an address is left out after its first failure; each further one doubles it.
    aside: Duration,
}

const PACE: Pace = Pace { fresh: Duration::from_secs(30), aside: Duration::from_secs(5) };

/// An attempt that is given up after this long counts as a failure of the address.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(1);

/// What [`Resolve::resolve`] gives: the addresses, in time.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of a store's name, in place of the system's resolver.
///
/// For a storage cluster whose machines a name does not tell, or not all of them: the addresses may
/// come from a service registry, a file, or a DNS server of the cluster's own. Connections are spread
/// evenly over all that are given, and those that fail are left out for a while.
///
/// The host name of the endpoint stays what requests are signed for and certificates must name.
///
/// ```
/// use std::net::IpAddr;
/// use std::sync::Arc;
///
/// #[derive(Debug)]
/// struct Nodes(Vec<IpAddr>);
///
/// impl brigade::Resolve for Nodes {
///     fn resolve(&self, _host: &str) -> brigade::Resolving {
///         let addresses = self.0.clone();
///         Box::pin(async { Ok(addresses) })
///     }
/// }
///
/// let nodes = Nodes(vec!["10.0.0.1".parse()?, "10.0.0.2".parse()?]);
/// let options = brigade::SessionOptions {
///     endpoint_url: Some("https://store.example".into()),
///     resolver: Some(Arc::new(nodes)),
///     ..Default::default()
/// };
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, which is a name and never an address itself; those of the family
    /// (IPv4 or IPv6) that works better first. None is a failure.
    ///
    /// Asked when a connection is opened and the last answer is half a minute old, or more. Must not
    /// block the thread.
    fn resolve(&self, host: &str) -> Resolving;
}

/// Asks the system, in its own order: which of IPv6 and IPv4 works here is something it knows.
#[derive(Debug)]
struct System;

impl Resolve for System {
    fn resolve(&self, host: &str) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move {
            Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
        })
    }
}

/// The addresses of every name a session connects to. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Known>);

struct Known {
    resolver: Arc<dyn Resolve>,
    pace: Pace,
    names: Mutex<HashMap<String, Arc<Name>>>,
}

/// One name's addresses.
pub(super) struct Name {
    rota: Mutex<Rota>,
    lookup: Mutex<Option<Lookup>>,
}

type Lookup = Shared<Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Arc<io::Error>>> + Send>>>;

impl Addresses {
    /// With a resolver of the caller's, or the system's.
    pub(crate) fn new(resolver: Option<Arc<dyn Resolve>>) -> Self {
        let resolver = resolver.unwrap_or_else(|| Arc::new(System));
        Self(Arc::new(Known { resolver, pace: PACE, names: Mutex::default() }))
    }

    /// One for which `span` is both: how long a list is fresh, and an address aside.
    #[cfg(test)]
    pub(super) fn with_pace(resolver: Arc<dyn Resolve>, span: Duration) -> Self {
        let pace = Pace { fresh: span, aside: span };
        Self(Arc::new(Known { resolver, pace, names: Mutex::default() }))
    }

    /// The addresses of `host`, at least one, looked up where they are not known or not fresh.
    pub(super) async fn of(&self, host: &str) -> Result<Arc<Name>, Failure> {
        let name = {
            let mut names = lock(&self.0.names);
            let new = || Arc::new(Name::new(self.0.pace));
            names.entry(host.to_owned()).or_insert_with(new).clone()
        };
        let (is_fresh, is_empty) = {
            let rota = lock(&name.rota);
            (rota.is_fresh(Instant::now()), rota.seats.is_empty())
        };
        if is_empty {
            self.look_up(host, &name).await.map_err(|why| Failure::name(host.to_owned(), &why))?;
        } else if !is_fresh {
            // Whoever comes next goes on waiting for the same lookup.
            let _ = tokio::time::timeout(LOOKUP_PATIENCE, self.look_up(host, &name)).await;
        }
        Ok(name)
    }

    /// One lookup for all who ask at the same time.
    async fn look_up(&self, host: &str, name: &Name) -> Result<(), Arc<io::Error>> {
        let lookup = lock(&name.lookup)
            .get_or_insert_with(|| {
                let found = self.0.resolver.resolve(host);
                let found = async {
                    match found.await {
                        Ok(found) if found.is_empty() => {
                            Err(Arc::new(io::Error::other("it has no address")))
                        }
                        found => found.map_err(Arc::new),
                    }
                };
                found.boxed().shared()
            })
            .clone();
        let found = lookup.clone().await;
        let mut current = lock(&name.lookup);
        // The first who is here takes it away.
        if current.as_ref().is_some_and(|current| current.ptr_eq(&lookup)) {
            *current = None;
            lock(&name.rota).learn(found.as_deref().ok(), Instant::now());
        }
        found.map(drop)
    }
}

impl Name {
    fn new(pace: Pace) -> Self {
        Self { rota: Mutex::new(Rota::new(pace)), lookup: Mutex::default() }
    }

    /// The best address that is not among `tried`.
    pub(super) fn take(self: &Arc<Self>, tried: &[IpAddr]) -> Option<Seat> {
        let now = Instant::now();
        let address = lock(&self.rota).take(now, tried)?;
        let state = State { name: self.clone(), address, begun: now, moved_ms: AtomicU64::new(0) };
        Some(Seat { state: Arc::new(state), settled: false })
    }

    /// Another address was there sooner than these, which had more time.
    pub(super) fn overtaken(&self, late: &[IpAddr]) {
        let now = Instant::now();
        let mut rota = lock(&self.rota);
        for address in late {
            rota.failed(*address, now);
        }
    }
}

/// A connection's place at an address, from the attempt to its end.
pub(super) struct Seat {
    state: Arc<State>,
    settled: bool,
}

struct State {
    name: Arc<Name>,
    address: IpAddr,
    begun: Instant,
    moved_ms: AtomicU64,
}

impl Seat {
    pub(super) fn address(&self) -> IpAddr {
        self.state.address
    }

    /// The connection is there.
    pub(super) fn worked(&mut self) {
        self.settled = true;
        self.moved();
        lock(&self.state.name.rota).worked(self.state.address);
    }

    /// There will be no connection, or it comes too late.
    pub(super) fn failed(&mut self) {
        self.settled = true;
        self.state.failed();
    }

    /// Bytes went over the connection.
    pub(super) fn moved(&self) {
        let now = u64::try_from(self.state.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state.moved_ms.store(now, Ordering::Relaxed);
    }

    /// For who waits for something on the connection.
    pub(super) fn watch(&self) -> Watched {
        Watched(self.state.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.settled && self.state.begun.elapsed() >= ATTEMPT_PATIENCE {
            self.state.failed();
        }
        lock(&self.state.name.rota).left(self.state.address);
    }
}

/// A connection as a request sees it that goes over it.
#[derive(Clone)]
pub(super) struct Watched(Arc<State>);

impl Watched {
    /// The request was given up. Where nothing had moved for `limit`, that is why.
    pub(super) fn given_up(&self, limit: Duration) {
        let moved = Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed));
        if self.0.begun.elapsed().saturating_sub(moved) >= limit {
            self.0.failed();
        }
    }
}

impl State {
    fn failed(&self) {
        lock(&self.name.rota).failed(self.address, Instant::now());
    }
}

/// Who is next. Knows the time only as it is told.
#[derive(Debug)]
struct Rota {
    pace: Pace,
    seats: Vec<Listed>,
    turn: u64,
    fresh_until: Option<Instant>,
}

#[derive(Debug)]
struct Listed {
    address: IpAddr,
    /// Whether the last lookup gave it. What it did not give is kept while it is of some interest.
    is_current: bool,
    /// Connections there now, attempts included.
    taken: usize,
    /// When it was last taken, in turns.
    last_turn: u64,
    failures: u32,
    aside: Option<Aside>,
    /// Whether a connection tries if it works again.
    is_on_trial: bool,
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    since: Instant,
    until: Instant,
}

impl Rota {
    fn new(pace: Pace) -> Self {
        Self { pace, seats: Vec::new(), turn: 0, fresh_until: None }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now < until)
    }

    /// What a lookup gave; `None` where it failed.
    fn learn(&mut self, found: Option<&[IpAddr]>, now: Instant) {
        let Some(found) = found else {
            self.fresh_until = Some(now + FRESH_AFTER_FAILURE);
            return;
        };
        self.fresh_until = Some(now + self.pace.fresh);
        let mut old = std::mem::take(&mut self.seats);
        for &address in found {
            if self.seats.iter().any(|seat| seat.address == address) {
                continue;
            }
            let known = old.iter().position(|seat| seat.address == address);
            let seat = known.map_or_else(|| Listed::new(address), |at| old.swap_remove(at));
            self.seats.push(Listed { is_current: true, ..seat });
        }
        old.retain(|seat| seat.taken > 0 || seat.aside.is_some_and(|aside| now < aside.until));
        self.seats.extend(old.into_iter().map(|seat| Listed { is_current: false, ..seat }));
    }

    /// The next address that is not among `tried`, which gets one connection more.
    fn take(&mut self, now: Instant, tried: &[IpAddr]) -> Option<IpAddr> {
        // The resolver puts the family in front that it prefers.
        let prefers_v6 = self.seats.first()?.address.is_ipv6();
        let rank = |seat: &Listed| {
            let aside = seat.aside.filter(|aside| now < aside.until);
            (
                aside.map(|aside| aside.since),
                seat.is_on_trial,
                seat.address.is_ipv6() != prefers_v6,
                seat.taken,
                seat.last_turn,
            )
        };
        let next = self
            .seats
            .iter_mut()
            .filter(|seat| seat.is_current && !tried.contains(&seat.address))
            .min_by_key(|seat| rank(seat))?;
        self.turn += 1;
        next.last_turn = self.turn;
        next.taken += 1;
        next.is_on_trial = next.failures > 0;
        Some(next.address)
    }

    fn worked(&mut self, address: IpAddr) {
        if let Some(seat) = self.find(address) {
            (seat.failures, seat.aside, seat.is_on_trial) = (0, None, false);
        }
    }

    fn failed(&mut self, address: IpAddr, now: Instant) {
        let pause = self.pace.aside;
        let Some(seat) = self.find(address) else { return };
        seat.is_on_trial = false;
        // Connections that fail together are one failure.
        if seat.aside.is_some_and(|aside| now < aside.until) {
            return;
        }
        let pause = pause.saturating_mul(2_u32.saturating_pow(seat.failures)).min(MAX_ASIDE);
        seat.failures += 1;
        seat.aside = Some(Aside { since: now, until: now + pause });
    }

    /// A connection there ended.
    fn left(&mut self, address: IpAddr) {
        if let Some(seat) = self.find(address) {
            seat.taken = seat.taken.saturating_sub(1);
            if seat.taken == 0 {
                seat.is_on_trial = false;
            }
        }
    }

    fn find(&mut self, address: IpAddr) -> Option<&mut Listed> {
        self.seats.iter_mut().find(|seat| seat.address == address)
    }
}

impl Listed {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            is_current: true,
            taken: 0,
            last_turn: 0,
            failures: 0,
            aside: None,
            is_on_trial: false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn list(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    fn rota(addresses: &str, now: Instant) -> Rota {
        let mut rota = Rota::new(PACE);
        rota.learn(Some(&list(addresses)), now);
        rota
    }

    /// The next `count`, as text.
    fn next(rota: &mut Rota, now: Instant, count: usize) -> String {
        let next = (0..count).map(|_| rota.take(now, &[]).unwrap().to_string());
        next.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_address_with_the_fewest_connections_is_next() {
        let now = Instant::now();
        let mut rota = rota("10.0.0.1 10.0.0.2 10.0.0.3", now);
        assert_eq!(next(&mut rota, now, 4), "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.1");
        rota.left(list("10.0.0.3")[0]);
        assert_eq!(next(&mut rota, now, 2), "10.0.0.3 10.0.0.2");
    }

    #[test]
    fn the_family_that_the_system_prefers_comes_first() {
        let now = Instant::now();
        let mut rota = rota("::1 10.0.0.1 ::2", now);
        assert_eq!(next(&mut rota, now, 3), "::1 ::2 ::1");
        let tried = list("::1 ::2");
        assert_eq!(rota.take(now, &tried), Some(list("10.0.0.1")[0]));
        assert_eq!(rota.take(now, &list("::1 ::2 10.0.0.1")), None);
    }

    #[test]
    fn what_fails_is_left_out_and_for_longer_each_time() {
        let now = Instant::now();
        let mut rota = rota("10.0.0.1 10.0.0.2", now);
        let bad = list("10.0.0.1")[0];
        // All that fail together count once.
        for _ in 0..9 {
            rota.failed(bad, now);
        }
        assert_eq!(next(&mut rota, now + 4 * SECOND, 2), "10.0.0.2 10.0.0.2");
        assert_eq!(next(&mut rota, now + 5 * SECOND, 1), "10.0.0.1");
        rota.failed(bad, now + 5 * SECOND);
        assert_eq!(next(&mut rota, now + 14 * SECOND, 1), "10.0.0.2");
        assert_eq!(next(&mut rota, now + 15 * SECOND, 1), "10.0.0.1");
        rota.worked(bad);
        rota.failed(bad, now + 20 * SECOND);
        assert_eq!(next(&mut rota, now + 25 * SECOND, 1), "10.0.0.1");
    }

    #[test]
    fn one_connection_tries_what_comes_back() {
        let now = Instant::now();
        let mut rota = rota("10.0.0.1 10.0.0.2", now);
        let bad = list("10.0.0.1")[0];
        rota.failed(bad, now);
        let later = now + 5 * SECOND;
        assert_eq!(next(&mut rota, later, 3), "10.0.0.1 10.0.0.2 10.0.0.2");
        rota.worked(bad);
        assert_eq!(next(&mut rota, later, 1), "10.0.0.1");
    }

    #[test]
    fn where_all_are_aside_the_longest_is_tried_first() {
        let now = Instant::now();
        let mut rota = rota("10.0.0.1 10.0.0.2 10.0.0.3", now);
        for (address, at) in list("10.0.0.2 10.0.0.3 10.0.0.1").into_iter().zip(0..) {
            rota.failed(address, now + at * SECOND);
        }
        assert_eq!(next(&mut rota, now + 3 * SECOND, 1), "10.0.0.2");
        let tried = list("10.0.0.2");
        assert_eq!(rota.take(now + 3 * SECOND, &tried), Some(list("10.0.0.3")[0]));
    }

    #[test]
    fn a_list_that_changes_is_followed_and_failures_are_remembered() {
        let now = Instant::now();
        let mut rota = rota("10.0.0.1 10.0.0.2", now);
        rota.failed(list("10.0.0.1")[0], now);
        rota.learn(Some(&list("10.0.0.3 10.0.0.4 10.0.0.3")), now);
        assert_eq!(next(&mut rota, now, 3), "10.0.0.3 10.0.0.4 10.0.0.3");
        rota.learn(Some(&list("10.0.0.1 10.0.0.5")), now);
        assert_eq!(next(&mut rota, now, 2), "10.0.0.5 10.0.0.5");
        assert!(rota.is_fresh(now + 29 * SECOND) && !rota.is_fresh(now + 30 * SECOND));
        rota.learn(None, now + 30 * SECOND);
        assert_eq!(next(&mut rota, now + 31 * SECOND, 1), "10.0.0.1");
        assert!(rota.is_fresh(now + 34 * SECOND) && !rota.is_fresh(now + 35 * SECOND));
    }
}
