//! A store that is far away, narrow, or strict: what clients of it see, measured with a clock and with
//! margins that hold on a busy machine.
//!
//! Spoken over plain sockets where time is measured, so that no client's cleverness is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use brigade_store::{Backend, Network, NetworkError, Options, Server, SlowParts, Stats};
use brigade_tests::cli::{Brigade, Sandbox, eventually};
use rustix::process::Signal;

const MB: u64 = 1_000_000;

/// A synthetic store behind a network.
fn behind(network: Network) -> Server {
    let (backend, buckets) = (Backend::Synthetic, vec!["bucket".to_owned()]);
    Server::start(Options { backend, buckets, network, ..Options::default() }).expect("a store")
}

/// One connection to a store.
struct Client(BufReader<TcpStream>);

/// An answer, its body counted or, where it is short, kept.
struct Answer {
    head: String,
    body: String,
}

impl Client {
    fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        Self(BufReader::with_capacity(64 << 10, stream))
    }

    fn get(&mut self, key: &str) -> Answer {
        self.ask(&format!("GET /bucket/{key}"), 0)
    }

    fn put(&mut self, key: &str, bytes: u64) -> Answer {
        self.ask(&format!("PUT /bucket/{key}"), bytes)
    }

    fn ask(&mut self, line: &str, bytes: u64) -> Answer {
        let stream = self.0.get_mut();
        write!(stream, "{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n")
            .expect("sent");
        std::io::copy(&mut std::io::repeat(7).take(bytes), stream).expect("sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                self.0.read_line(&mut head).expect("an answer") > 0,
                "{line}: closed, {head:?}"
            );
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: u64 = length.map_or(0, |length| length.parse().expect("a number"));
        let mut body = (&mut self.0).take(length);
        let mut text = String::new();
        if length < 4096 && !head.contains(" 200 ") {
            body.read_to_string(&mut text).expect("text");
        }
        let whole = std::io::copy(&mut body, &mut std::io::sink()).expect("a body");
        assert_eq!(whole + text.len() as u64, length, "{head}");
        Answer { head, body: text }
    }
}

impl Answer {
    fn is_ok(&self) -> bool {
        self.head.starts_with("http/1.1 200 ")
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = work();
    (began.elapsed(), result)
}

#[track_caller]
fn assert_within(elapsed: Duration, seconds: std::ops::Range<f64>) {
    assert!(seconds.contains(&elapsed.as_secs_f64()), "{elapsed:?} is not in {seconds:?} s");
}

#[test]
fn a_connection_has_its_rate_in_each_direction() {
    let server = behind(Network { connection_bytes_per_s: Some(20 * MB), ..Network::default() });
    std::thread::scope(|scope| {
        let ways: Vec<_> = [false, true, true]
            .map(|up| {
                let mut client = Client::new(&server);
                scope.spawn(move || {
                    timed(|| if up { client.put("up", 20 * MB) } else { client.get("20000000") })
                })
            })
            .into_iter()
            .map(|way| way.join().expect("no panic"))
            .collect();
        for (elapsed, answer) in ways {
            assert!(answer.is_ok(), "{}", answer.head);
            assert_within(elapsed, 0.9..1.6);
        }
    });
}

#[test]
fn all_connections_share_the_total_evenly() {
    let server = behind(Network { total_bytes_per_s: Some(20 * MB), ..Network::default() });
    for up in [true, false] {
        std::thread::scope(|scope| {
            let shares = [(); 4].map(|()| {
                let mut client = Client::new(&server);
                scope.spawn(move || {
                    timed(|| if up { client.put("up", 5 * MB) } else { client.get("5000000") })
                })
            });
            let times = shares.map(|share| share.join().expect("no panic").0);
            // None is done long before the others.
            let (first, last) =
                (times.iter().min().expect("one"), times.iter().max().expect("one"));
            assert_within(*first, 0.6..1.6);
            assert_within(*last, 0.9..1.6);
        });
    }
}

#[test]
fn a_client_feels_how_narrow_it_is() {
    let server = behind(Network { connection_bytes_per_s: Some(MB), ..Network::default() });
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    let head = b"PUT /bucket/up HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head).expect("sent");
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket");
    let (mut sent, block) = (0, vec![0; 64 << 10]);
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        sent += stream.write(&block).unwrap_or(0);
    }
    // What the sender's own socket holds is the system's choice; the rest stays with the sender.
    assert!(sent < 16 << 20, "the store takes {sent} bytes at once");
    let taken = server.stats().bytes_in;
    assert!(taken < MB, "{taken} bytes in, of {sent} sent");
}

#[test]
fn answers_come_a_round_trip_later_and_connections_another() {
    let latency = Duration::from_millis(100);
    let server = behind(Network { latency, ..Network::default() });
    let (elapsed, mut client) = timed(|| {
        let mut client = Client::new(&server);
        assert!(client.get("1000").is_ok());
        client
    });
    assert_within(elapsed, 0.195..0.8);
    for ask in
        [|client: &mut Client| client.get("1000"), |client: &mut Client| client.put("up", 1000)]
    {
        assert_within(timed(|| ask(&mut client)).0, 0.095..0.6);
    }
    // Bytes that flow are not held up by it.
    assert_within(timed(|| client.get("50000000")).0, 0.095..1.0);
}

#[test]
fn round_trips_differ_as_the_seed_has_it() {
    let times = |seed| {
        let network = Network {
            latency: Duration::from_millis(40),
            jitter: Duration::from_millis(40),
            seed,
            ..Network::default()
        };
        let server = behind(network);
        let mut client = Client::new(&server);
        [1, 2, 3, 4, 5, 6].map(|key| timed(|| client.get(&key.to_string())).0.as_secs_f64())
    };
    let (one, again, other) = (times(1), times(1), times(2));
    let distance = |other: [f64; 6]| -> f64 {
        one.iter().zip(other).map(|(one, other)| (one - other).abs()).sum()
    };
    assert!(one.iter().all(|time| *time < 0.5), "{one:?}");
    assert!(distance(again) < distance(other), "{one:?} {again:?} {other:?}");
}

#[test]
fn some_parts_are_slow_and_nothing_else_is() {
    let slow = |chance| {
        let slow_parts = Some(SlowParts { chance, delay: Duration::from_millis(300) });
        behind(Network { slow_parts, ..Network::default() })
    };
    let server = slow(1.0);
    let mut client = Client::new(&server);
    assert_within(timed(|| client.get("1000")).0, 0.295..1.0);
    assert_within(timed(|| client.put("up", 1000)).0, 0.0..0.2);
    let server = slow(0.5);
    let mut client = Client::new(&server);
    let mut is_slow =
        |number: u64| timed(|| client.get(&number.to_string())).0 > Duration::from_millis(250);
    let count = (1..=8).filter(|number| is_slow(*number)).count();
    assert!((1..8).contains(&count), "{count}");
}

#[test]
fn too_many_requests_are_told_to_slow_down() {
    let server = behind(Network { max_requests_per_s: Some(20), ..Network::default() });
    let mut client = Client::new(&server);
    let (elapsed, answers) = timed(|| {
        let until = Instant::now() + Duration::from_secs(1);
        let mut answers = Vec::new();
        while Instant::now() < until {
            answers.push(client.get("10"));
        }
        answers
    });
    let (answered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_ok());
    let allowed = 20.0 * elapsed.as_secs_f64();
    let near =
        (answered.len() as f64) > allowed * 0.7 && (answered.len() as f64) < allowed * 1.3 + 2.0;
    assert!(near, "{} of {allowed}", answered.len());
    let answer = refused.first().expect("most are");
    assert!(answer.head.starts_with("http/1.1 503 "), "{}", answer.head);
    assert!(answer.head.contains("content-type: application/xml"), "{}", answer.head);
    assert!(answer.body.contains("<Error><Code>SlowDown</Code>"), "{}", answer.body);
    // An upload is refused as well, and its connection goes on.
    eventually("an upload is refused", Duration::from_secs(5), || {
        !client.put("up", 2 * MB).is_ok()
    });
    eventually("an upload is served", Duration::from_secs(5), || client.put("up", 2 * MB).is_ok());
    let stats = server.stats();
    assert!(stats.refused_requests > refused.len() as u64, "{stats:?}");
    assert_eq!((stats.connections, stats.peak_requests_in_flight), (1, 1));
}

#[test]
fn transfers_succeed_where_requests_are_few() {
    let network = Network { max_requests_per_s: Some(20), ..Network::default() };
    let sandbox = Sandbox::with(Options { network, ..Sandbox::options() });
    sandbox.file("f", 60 << 20);
    let up = "f s3://bucket/f --part-size 5MiB --concurrency 12 --verify require";
    sandbox.cp(up).run().succeeded();
    let down = "s3://bucket/f copy --part-size 5MiB --concurrency 12 --verify require";
    sandbox.cp(down).run().succeeded();
    sandbox.assert_clean();
    assert!(sandbox.store().stats().refused_requests > 0, "nobody was refused");
}

#[test]
fn it_can_be_changed_under_a_transfer() {
    let narrow = Network { connection_bytes_per_s: Some(2 * MB), ..Network::default() };
    let server = behind(narrow.clone());
    let mut client = Client::new(&server);
    let changed = |to: Network, work: &mut dyn FnMut()| {
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                server.set_network(to).expect("a network");
            });
            let elapsed = timed(work).0;
            changing.join().expect("no panic");
            elapsed
        })
    };
    // Ten seconds' worth, had it stayed so.
    let elapsed = changed(Network::default(), &mut || drop(client.get("20000000")));
    assert_within(elapsed, 0.2..2.0);
    assert_eq!(server.network(), Network::default());
    // Held up from the first byte after the change, on the same connection.
    server.set_network(narrow).expect("a network");
    let later = Network { total_bytes_per_s: Some(20 * MB), ..Network::default() };
    let elapsed = changed(later, &mut || drop(client.put("up", 20 * MB)));
    assert_within(elapsed, 0.9..2.2);
}

#[test]
fn what_is_impossible_stays_out() {
    let jitter = Duration::from_millis(1);
    let impossible = Network { jitter, ..Network::default() };
    let error = Server::start(Options { network: impossible.clone(), ..Options::default() });
    assert_eq!(
        error.expect_err("impossible").to_string(),
        "the network cannot be simulated: a jitter of 1ms is more than the latency of 0ns: give less of it"
    );
    let server = behind(Network::default());
    let error: NetworkError = server.set_network(impossible).expect_err("impossible");
    assert!(error.problem.contains("jitter"), "{error}");
    assert_eq!(server.network(), Network::default());
}

#[test]
fn what_is_open_and_under_way_is_counted() {
    let latency = Duration::from_millis(30);
    let network = Network { latency, ..Network::default() };
    let sandbox =
        Sandbox::with(Options { backend: Backend::Synthetic, network, ..Sandbox::options() });
    let line = "s3://bucket/60MiB copy --part-size 5MiB --concurrency 4";
    sandbox.cp(line).run().succeeded();
    let stats = sandbox.store().stats();
    assert!((2..=4).contains(&stats.peak_requests_in_flight), "{stats:?}");
    assert!((2..=8).contains(&stats.peak_connections), "{stats:?}");
    eventually("all is over", Duration::from_secs(5), || {
        let Stats { open_connections, requests_in_flight, .. } = sandbox.store().stats();
        (open_connections, requests_in_flight) == (0, 0)
    });
}

#[test]
fn tls_is_paced_as_well() {
    let sandbox = Sandbox::with_tls();
    sandbox.file("f", 10 * MB);
    let network = Network {
        latency: Duration::from_millis(20),
        connection_bytes_per_s: Some(10 * MB),
        slow_start: true,
        ..Network::default()
    };
    sandbox.store().set_network(network).expect("a network");
    let ca_bundle = sandbox.ca_bundle();
    let one = |line: &str| {
        let run = sandbox.cp(line).args(["--ca-bundle".as_ref(), ca_bundle.as_os_str()]).run();
        run.succeeded().elapsed
    };
    assert_within(one("f s3://bucket/f --part-size 64MiB"), 0.9..3.0);
    assert_within(one("s3://bucket/f copy --part-size 64MiB"), 0.9..3.0);
}

#[test]
fn a_served_store_is_behind_a_network_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = |line: &str| {
        Brigade::new(folder.path(), line.split_whitespace()).dir(folder.path()).may_tell_secrets()
    };
    let serve = "serve --synthetic --port 0 --bucket bucket --region us-east-1 --access-key me";
    let network = "--latency 100ms --jitter 10ms --bandwidth-per-connection 160Mbit/s \
                   --bandwidth-total 400MB/s --max-rps 200 --slow-parts 0.1%:5s --seed 1";
    let serving = command(&format!("{serve} {network}")).env("BRIGADE_SECRET_KEY", "mine").start();
    serving.wait_for_stdout("AWS_ENDPOINT_URL_S3=");
    eventually("it says where it is", Duration::from_secs(5), || {
        serving.stderr_so_far().contains("; stop with Ctrl-C")
    });
    assert!(
        serving.stderr_so_far().contains("warning: this store pretends to be behind a network")
    );
    let exports = serving.stdout_so_far();
    let endpoint =
        exports.lines().find_map(|line| line.strip_prefix("export AWS_ENDPOINT_URL_S3="));
    let down = command("cp s3://bucket/20MiB copy --part-size 64MiB")
        .env("AWS_ACCESS_KEY_ID", "me")
        .env("AWS_SECRET_ACCESS_KEY", "mine")
        .env("AWS_REGION", "us-east-1")
        .endpoint(endpoint.expect("an endpoint"))
        .run()
        .succeeded();
    // A second for the bytes, and a tenth each for the connection, the HEAD and the GET.
    assert_within(down.elapsed, 1.2..3.0);
    serving.signal(Signal::INT);
    serving.wait().succeeded();
    for (wrong, said) in [
        (
            "--bandwidth-total 85MB",
            "--bandwidth-total <RATE>': write a number and its unit, such as 85MB/s",
        ),
        ("--latency 50", "--latency <TIME>': write a number and its unit, such as 50ms"),
        (
            "--slow-parts 5s",
            "--slow-parts <PERCENT:TIME>': write how many and how slow, such as 0.1%:5s",
        ),
        ("--max-rps 0", "--max-rps <N>'"),
        ("--jitter 5ms", "--latency <TIME>"),
        ("--latency 1ms --jitter 5ms", "--jitter is more than --latency"),
    ] {
        let complaint = command(&format!("{serve} {wrong}")).run().failed(2);
        assert!(complaint.contains(said), "{complaint}");
    }
}
