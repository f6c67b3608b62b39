//! Being far away on demand, so that clients can be tuned for a network from a laptop.
//!
//! A [`Network`] says how long answers are under way, how many bytes a second fit through, how many requests
//! a second the store puts up with, and how often a part takes long. It stands between the sockets and the
//! store, in front of any backend and of the [`faults`](crate::faults), and may be changed while the store
//! runs. Without one, all it costs is the look at one flag.
//!
//! What it does and does not simulate is in docs/NETWORKS.md.

mod line;
mod pace;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use http::request::Parts;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) use line::Line;

use crate::draw::{Draws, hash};
use crate::faults::identity;
use crate::locks::{lock, read, write};
use pace::{Bucket, Limits, Total};

/// What may be let through at once after a pause, of a second's requests: a tenth.
const REQUEST_CREDIT: Duration = Duration::from_millis(100);

/// The longest latency, and the longest that a part may take longer.
const MAX_LATENCY: Duration = Duration::from_mins(1);
const MAX_SLOW: Duration = Duration::from_hours(1);

/// The lowest rate. Below it a transfer would not end, and nothing could be told from a stall.
const MIN_BYTES_PER_S: u64 = 1_000;

/// What waits in the socket for the store to read it, at least and at most. A real sender has about as much
/// under way as the network holds; the system's own choice would take whole parts off a client's hands at
/// once, however slow the network. More than a mebibyte is of no use on a loopback, and over many
/// connections it exhausts what the system has for all sockets together.
const RECEIVE_BYTES: (u64, u64) = (64 << 10, 1 << 20);

/// As many connections share what all of them have together.
const SHARING: u64 = 16;

/// How much of a second's bytes waits there, beside those that are under way.
const RECEIVE_TIME: Duration = Duration::from_millis(20);

/// What lies between the store and its clients. The default is nothing: the loopback as it is.
///
/// ```
/// use std::time::Duration;
///
/// use brigade_store::{Network, Options, Server, SlowParts};
///
/// // A store across an ocean, that is sometimes slow.
/// let network = Network {
///     latency: Duration::from_millis(50),
///     jitter: Duration::from_millis(10),
///     connection_bytes_per_s: Some(85_000_000),
///     slow_parts: Some(SlowParts { chance: 0.001, delay: Duration::from_secs(5) }),
///     ..Network::default()
/// };
/// let server = Server::start(Options { network, ..Options::default() })?;
/// // ... a client gets used to it, and then ...
/// server.set_network(Network { total_bytes_per_s: Some(20_000_000), ..server.network() })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// A round trip: so long is the first byte of every answer under way, from when it would have been sent,
    /// and so long does a connection take to open (twice that with TLS). Up to a minute. Default: none.
    pub latency: Duration,
    /// How much longer or shorter each round trip may be; any of it is as likely. Up to the latency.
    /// Default: none.
    pub jitter: Duration,
    /// What fits through one connection, in bytes a second, in each direction; 1,000 at least. Default: no
    /// limit.
    pub connection_bytes_per_s: Option<u64>,
    /// What fits through all connections together, in bytes a second, in each direction; 1,000 at least.
    /// They share it evenly. Default: no limit.
    pub total_bytes_per_s: Option<u64>,
    /// How many requests a second are served; what comes above it is answered with 503 `SlowDown`. A tenth of
    /// a second's may come at once. Default: no limit.
    pub max_requests_per_s: Option<u32>,
    /// Parts and ranges that take long. Default: none.
    pub slow_parts: Option<SlowParts>,
    /// Whether a connection begins slowly, with ten segments of 1,460 bytes, and doubles with every round
    /// trip until it has its rate, as TCP does. Needs a latency. Default: no.
    pub slow_start: bool,
    /// What all chance is drawn from: the same seed makes the same parts slow. Default: 0.
    pub seed: u64,
}

/// Parts and ranges (`UploadPart` and `GetObject`) of which some are answered late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowParts {
    /// The probability of each to be slow, 0 to 1.
    pub chance: f64,
    /// How much later its answer begins. Up to an hour.
    pub delay: Duration,
}

/// Why there can be no such network: one line, with what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct NetworkError {
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl Network {
    /// Whether there can be such a network.
    ///
    /// # Errors
    ///
    /// Where a value is beyond its bounds, or contradicts another.
    pub fn check(&self) -> Result<(), NetworkError> {
        let latency = self.latency;
        let slowest =
            [self.connection_bytes_per_s, self.total_bytes_per_s].into_iter().flatten().min();
        let chance = self.slow_parts.map_or(0.0, |slow| slow.chance);
        let problem = if latency > MAX_LATENCY {
            format!("a latency of {latency:?} is too long: 60s at most")
        } else if self.jitter > latency {
            let jitter = self.jitter;
            format!(
                "a jitter of {jitter:?} is more than the latency of {latency:?}: give less of it"
            )
        } else if let Some(slowest) = slowest.filter(|slowest| *slowest < MIN_BYTES_PER_S) {
            format!("{slowest} bytes a second are too few: {MIN_BYTES_PER_S} at least")
        } else if self.max_requests_per_s == Some(0) {
            "no requests a second are too few: 1 at least".to_owned()
        } else if !(0.0..=1.0).contains(&chance) {
            format!("{chance} is no probability of a slow part: 0 to 1")
        } else if let Some(slow) = self.slow_parts.filter(|slow| slow.delay > MAX_SLOW) {
            format!("a part that is {:?} slow is too slow: an hour at most", slow.delay)
        } else if self.slow_start && latency.is_zero() {
            "a slow start takes a latency: give one too".to_owned()
        } else {
            return Ok(());
        };
        Err(NetworkError { problem })
    }

    fn is_loopback(&self) -> bool {
        *self == Self { seed: self.seed, jitter: self.jitter, ..Self::default() }
    }

    fn paces(&self) -> bool {
        self.slow_start || self.connection_bytes_per_s.or(self.total_bytes_per_s).is_some()
    }
}

/// The network of a running store.
pub(crate) struct NetworkControl {
    /// Whether there is any: all that is looked at where there is none.
    on: AtomicBool,
    /// Whether it holds bytes up.
    paces: AtomicBool,
    now: RwLock<Arc<Conditions>>,
    opened: AtomicU64,
}

impl NetworkControl {
    pub(crate) fn new(network: Network) -> Result<Self, NetworkError> {
        let control = Self {
            on: AtomicBool::new(false),
            paces: AtomicBool::new(false),
            now: RwLock::new(Arc::new(Conditions::new(Network::default()))),
            opened: AtomicU64::new(0),
        };
        control.set(network)?;
        Ok(control)
    }

    pub(crate) fn set(&self, network: Network) -> Result<(), NetworkError> {
        network.check()?;
        let (on, paces) = (!network.is_loopback(), network.paces());
        *write(&self.now) = Arc::new(Conditions::new(network));
        self.on.store(on, Ordering::Release);
        self.paces.store(paces, Ordering::Release);
        Ok(())
    }

    pub(crate) fn network(&self) -> Network {
        read(&self.now).network.clone()
    }

    /// The network, unless it is the loopback as it is.
    pub(crate) fn conditions(&self) -> Option<Arc<Conditions>> {
        self.on.load(Ordering::Acquire).then(|| Arc::clone(&read(&self.now)))
    }

    /// The network, if it holds bytes up.
    fn pacing(&self) -> Option<Arc<Conditions>> {
        self.paces.load(Ordering::Acquire).then(|| Arc::clone(&read(&self.now)))
    }

    /// A new connection: waits as long as it takes to open, and sees to it that its socket holds no more
    /// than the network would.
    pub(crate) async fn open(&self, stream: &TcpStream, tls: bool) {
        let Some(now) = self.conditions() else { return };
        if let Some(bytes) = now.receive_bytes() {
            // Where the system allows no such size, it takes the nearest.
            let _ = socket2::SockRef::from(stream).set_recv_buffer_size(bytes);
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        // The second is the one in which TLS 1.3 agrees on keys.
        let trips = if tls { 2 } else { 1 };
        let connection = hash(&[b"connection", &number.to_le_bytes()]);
        sleep((0..trips).map(|_| now.round_trip(connection)).sum()).await;
    }
}

/// Which way bytes go.
#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// A network at work.
pub(crate) struct Conditions {
    network: Network,
    inward: Mutex<Bucket>,
    outward: Mutex<Bucket>,
    requests: Mutex<Bucket>,
    trips: Draws,
    slow: Draws,
}

impl Conditions {
    fn new(network: Network) -> Self {
        let seed = network.seed;
        let bucket = || Mutex::new(Bucket::new(Instant::now()));
        Self {
            network,
            inward: bucket(),
            outward: bucket(),
            requests: bucket(),
            trips: Draws::new(seed, 0),
            slow: Draws::new(seed, 1),
        }
    }

    /// Whether one more request is served. Those that are not do not count.
    pub(crate) fn admits(&self) -> bool {
        let Some(rate) = self.network.max_requests_per_s else { return true };
        let (now, mut requests) = (Instant::now(), lock(&self.requests));
        let admits = requests.is_free(now);
        if admits {
            requests.charge(now, Duration::from_secs(1) / rate.max(1), REQUEST_CREDIT);
        }
        admits
    }

    /// How long the answer to a request is under way, or being waited for.
    pub(crate) fn delay(&self, operation: &str, request: &Parts, admitted: bool) -> Duration {
        let slow = self.network.slow_parts.filter(|slow| slow.chance > 0.0);
        if self.network.jitter.is_zero() && slow.is_none() {
            return self.network.latency;
        }
        let identity = identity(operation, request);
        let is_part = admitted && matches!(operation, "UploadPart" | "GetObject");
        let slow = slow.filter(|slow| is_part && self.slow.draw(identity) < slow.chance);
        self.round_trip(identity) + slow.map_or(Duration::ZERO, |slow| slow.delay)
    }

    /// How long a client waits that asks whether to go on.
    pub(crate) fn latency(&self) -> Duration {
        self.network.latency
    }

    fn round_trip(&self, identity: u64) -> Duration {
        let Network { latency, jitter, .. } = self.network;
        if jitter.is_zero() {
            return latency;
        }
        latency.saturating_sub(jitter) + jitter.mul_f64(2.0 * self.trips.draw(identity))
    }

    fn limits(&self, direction: Direction, connections: u64) -> Limits<'_> {
        let bucket = match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        };
        Limits {
            own_bytes_per_s: self.network.connection_bytes_per_s.map(|rate| rate as f64),
            slow_start: self.network.slow_start.then_some(self.network.latency),
            total: self.network.total_bytes_per_s.map(|rate| Total {
                bytes_per_s: rate as f64,
                bucket,
                connections,
            }),
        }
    }

    /// What may wait in a socket, if there is any limit.
    fn receive_bytes(&self) -> Option<usize> {
        let network = &self.network;
        let shared = network.total_bytes_per_s.map(|total| total / SHARING);
        let rate = [network.connection_bytes_per_s, shared].into_iter().flatten().min()?;
        let held = u128::from(rate) * (network.latency + RECEIVE_TIME).as_millis() / 1000;
        let (least, most) = RECEIVE_BYTES;
        let bytes = u64::try_from(held).unwrap_or(most).clamp(least, most);
        usize::try_from(bytes).ok()
    }
}

/// Waits, where there is anything to wait for.
pub(crate) async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
