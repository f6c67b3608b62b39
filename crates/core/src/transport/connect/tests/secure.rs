//! TLS as it is done here, against rustls' own: every cipher, and what comes after a handshake.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ServerConfig, SupportedCipherSuite};
use tokio::io::DuplexStream;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::transport::connect::records::{ALERT, APPLICATION_DATA, HANDSHAKE, MAX_SEALED, Sealer};
use crate::transport::connect::secure::{Tls, secure};

/// More than fits any buffer, in no multiple of a record.
const LEN: usize = 3_000_001;

fn large() -> &'static str {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n");
    // Each byte tells its place, so that a record that is lost or comes twice shows.
    let body: String =
        (0..LEN).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
    (head + &body).leak()
}

fn is_large(body: &[u8]) -> bool {
    body.len() == LEN && body.iter().zip(0..).all(|(byte, at)| usize::from(byte - b'a') == at % 23)
}

/// A server of one suite only.
fn config(authority: &Authority, suite: SupportedCipherSuite) -> ServerConfig {
    let key = if format!("{:?}", suite.suite()).contains("_RSA_") {
        let size = rcgen::RsaKeySize::_2048;
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap()
    } else {
        KeyPair::generate().unwrap()
    };
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let (certificate, key) = authority.issue(&key, |_| {});
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

fn suite(name: CipherSuite) -> SupportedCipherSuite {
    *aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == name).unwrap()
}

async fn put_large(client: &Client, url: &str) -> u16 {
    let frames = (0..LEN).step_by(100_000).map(|at| {
        Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![7; 100_000.min(LEN - at)])))
    });
    let stream = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let mut request = HttpRequest::new(SdkBody::from_body_1_x(stream));
    request.set_method("PUT").unwrap();
    request.set_uri(url).unwrap();
    request.headers_mut().insert("content-length", LEN.to_string());
    let exchange = Exchange { client: client.0.clone(), read_timeout: None };
    exchange.call(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_cipher_works_both_ways() {
    let authority = Authority::new("us");
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let tls = TlsAcceptor::from(Arc::new(config(&authority, *suite)));
        let server = Server::start(&[large(), OK, large()], Some(tls)).await;
        let url = format!("https://localhost:{}/", server.address.port());
        let client = client(&authority.trusted());
        assert!(is_large(&get(&client, &url).await.unwrap().1), "{suite:?}");
        assert_eq!(put_large(&client, &url).await, 200, "{suite:?}");
        assert!(is_large(&get(&client, &url).await.unwrap().1), "{suite:?}");
        assert_eq!(server.seen.lock().unwrap()[1].1, LEN);
        assert_eq!(client.connections_opened(), 1);
    }
}

// ---- in pieces ----

/// A connection that moves as little as it likes at a time, and sometimes nothing.
struct Choppy {
    io: TokioIo<DuplexStream>,
    random: fastrand::Rng,
}

impl Choppy {
    /// The most bytes to move now, `None` for later.
    fn allowance(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        if self.random.u8(..4) == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(if self.random.bool() {
            self.random.usize(1..64)
        } else {
            self.random.usize(1..1 << 17)
        })
    }
}

impl Read for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Some(most) = self.allowance(cx) else { return Poll::Pending };
        let mut bytes = vec![0; most.min(cursor.remaining())];
        let mut read = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, read.unfilled()))?;
        cursor.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Some(most) = self.allowance(cx) else { return Poll::Pending };
        Pin::new(&mut self.io).poll_write(cx, &bytes[..most.min(bytes.len())])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Both ends of a connection in memory, shaken hands and all.
async fn pair(
    authority: &Authority,
    config: ServerConfig,
    random: fastrand::Rng,
) -> (Tls<Choppy>, TlsStream<DuplexStream>) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let io = Choppy { io: TokioIo::new(here), random };
    let client = SharedTls::new(&authority.trusted()).unwrap().config().await.unwrap();
    let client = ClientConfig::clone(&client);
    let tls = TlsAcceptor::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    tokio::try_join!(secure(io, Arc::new(client), name), tls.accept(there)).unwrap()
}

/// Gives back what it gets, in other pieces, and changes its keys at times.
async fn echo(mut io: TlsStream<DuplexStream>, mut random: fastrand::Rng, is_13: bool) {
    let mut bytes = vec![0; 1 << 17];
    loop {
        let most = random.usize(1..=bytes.len());
        let len = io.read(&mut bytes[..most]).await.unwrap();
        if len == 0 {
            break;
        }
        for piece in bytes[..len].chunks(random.usize(1000..40_000)) {
            if is_13 && random.u8(..8) == 0 {
                io.get_mut().1.refresh_traffic_keys().unwrap();
            }
            io.write_all(piece).await.unwrap();
        }
        io.flush().await.unwrap();
    }
    io.shutdown().await.unwrap();
}

/// Sends all of `bytes` and receives at the same time, in pieces; says goodbye, and waits for theirs.
async fn exchange(tls: &mut Tls<Choppy>, bytes: &[u8], mut random: fastrand::Rng) -> Vec<u8> {
    let mut sent = 0;
    let mut got = Vec::new();
    let mut room = vec![0; 1 << 18];
    std::future::poll_fn(|cx| {
        while sent < bytes.len() {
            let ends = [(); 3].map(|()| (sent + random.usize(..60_000)).min(bytes.len()));
            let mut slices = [IoSlice::new(&[]); 3];
            let mut start = sent;
            for (slice, end) in slices.iter_mut().zip(ends) {
                *slice = IoSlice::new(&bytes[start..end.max(start)]);
                start = end.max(start);
            }
            match Pin::new(&mut *tls).poll_write_vectored(cx, &slices) {
                Poll::Ready(taken) => sent += taken.unwrap(),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(flushed) = Pin::new(&mut *tls).poll_flush(cx) {
            flushed.unwrap();
        }
        loop {
            if sent == bytes.len() && got.len() == bytes.len() {
                return Poll::Ready(());
            }
            let most = random.usize(1..room.len());
            let mut read = ReadBuf::new(&mut room[..most]);
            match Pin::new(&mut *tls).poll_read(cx, read.unfilled()) {
                Poll::Ready(done) => {
                    done.unwrap();
                    assert!(!read.filled().is_empty(), "an end after {} bytes", got.len());
                    got.extend_from_slice(read.filled());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    std::future::poll_fn(|cx| Pin::new(&mut *tls).poll_shutdown(cx)).await.unwrap();
    let mut read = ReadBuf::new(&mut room);
    std::future::poll_fn(|cx| Pin::new(&mut *tls).poll_read(cx, read.unfilled())).await.unwrap();
    assert_eq!(read.filled(), b"", "something after the end");
    got
}

#[tokio::test]
async fn what_moves_in_pieces_of_any_size_arrives_whole() {
    let authority = Authority::new("us");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let is_13 = suite.tls13().is_some();
        // Enough to wear keys out; a connection of 1.2 is not meant to go on then.
        let len = if is_13 { 20_000_000 } else { 2_000_000 };
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        for max_fragment_size in [None, Some(random.usize(200..9000))] {
            let mut config = config(&authority, *suite);
            config.max_fragment_size = max_fragment_size;
            let (mut here, there) = pair(&authority, config, random.fork()).await;
            let echo = tokio::spawn(echo(there, random.fork(), is_13));
            let got = exchange(&mut here, &bytes, random.fork()).await;
            assert!(got == bytes, "{suite:?}, {max_fragment_size:?}");
            echo.await.unwrap();
        }
    }
}

#[tokio::test]
async fn keys_changed_before_the_first_request_are_followed() {
    let authority = Authority::new("us");
    for seed in 0..20 {
        let config = config(&authority, suite(CipherSuite::TLS13_AES_128_GCM_SHA256));
        let (here, there) = tokio::io::duplex(1 << 16);
        let io = Choppy { io: TokioIo::new(here), random: fastrand::Rng::with_seed(seed) };
        let client = SharedTls::new(&authority.trusted()).unwrap().config().await.unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            let mut io = tls.accept(there).await.unwrap();
            // Asks for other keys in return, and speaks first.
            io.get_mut().1.refresh_traffic_keys().unwrap();
            io.write_all(b"well?").await.unwrap();
            io.flush().await.unwrap();
            echo(io, fastrand::Rng::with_seed(seed), true).await;
        });
        let mut here = secure(io, client, "localhost".try_into().unwrap()).await.unwrap();
        // So that what the server said is there.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut greeting = [0; 5];
        let mut read = ReadBuf::new(&mut greeting);
        while read.filled().len() < 5 {
            let next =
                std::future::poll_fn(|cx| Pin::new(&mut here).poll_read(cx, read.unfilled()));
            next.await.unwrap();
        }
        assert_eq!(&greeting, b"well?");
        let bytes = vec![9; 100_000];
        assert!(exchange(&mut here, &bytes, fastrand::Rng::with_seed(seed)).await == bytes);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_key_of_tls_1_2_that_is_worn_ends_the_connection() {
    let authority = Authority::new("us");
    let suite = suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let (mut here, mut there) =
        pair(&authority, config(&authority, suite), fastrand::Rng::with_seed(1)).await;
    tokio::spawn(async move { tokio::io::copy(&mut there, &mut tokio::io::sink()).await });
    let mut sent = 0;
    let error = loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut here).poll_write(cx, &[0; 1 << 14]));
        match next.await {
            Ok(taken) => sent += taken,
            Err(error) => break error,
        }
    };
    // As many as tests allow, less the handshake's and the goodbye.
    assert!((400..512).contains(&(sent >> 14)), "{sent}");
    assert_eq!(error.to_string(), "a TLS 1.2 connection has carried as much as its key may");
    std::future::poll_fn(|cx| Pin::new(&mut here).poll_shutdown(cx)).await.unwrap();
}

// ---- what may go wrong ----

/// What the client reads, or why it stops, when a server with these manners sends this after the
/// handshake: records to seal, and where the kind is 0, bytes as they are.
async fn after_handshake(name: CipherSuite, records: &[(u8, &[u8])]) -> Result<Vec<u8>, String> {
    let authority = Authority::new("us");
    let suite = suite(name);
    let mut config = config(&authority, suite);
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    let (mut here, there) = pair(&authority, config, fastrand::Rng::with_seed(3)).await;
    let (mut there, session) = there.into_inner();
    let secrets = session.dangerous_extract_secrets().unwrap();
    let mut sealer = Sealer::new(suite.version().version, secrets.tx).unwrap();
    for (kind, bytes) in records {
        let mut out = bytes.to_vec();
        if *kind != 0 {
            out.resize(MAX_SEALED, 0);
            let len = sealer.seal(*kind, bytes, &mut out).unwrap();
            out.truncate(len);
        }
        there.write_all(&out).await.unwrap();
    }
    drop(there);
    let mut got = Vec::new();
    loop {
        let mut room = [0; 100];
        let mut read = ReadBuf::new(&mut room);
        let next = std::future::poll_fn(|cx| Pin::new(&mut here).poll_read(cx, read.unfilled()));
        match next.await {
            Ok(()) if read.filled().is_empty() => return Ok(got),
            Ok(()) => got.extend_from_slice(read.filled()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn what_does_not_belong_after_a_handshake_is_refused() {
    const TLS_12: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    const TLS_13: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;
    const BYE: (u8, &[u8]) = (ALERT, &[1, 0]);
    const TEXT: (u8, &[u8]) = (APPLICATION_DATA, b"text");
    let text = Ok(b"text".to_vec());
    let wrong = Err("a record is none of TLS, or came at the wrong time".to_owned());
    let change_cipher_spec: (u8, &[u8]) = (0, &[20, 3, 3, 0, 1, 1]);
    let plain_alert: (u8, &[u8]) = (0, &[21, 3, 3, 0, 2, 2, 40]);
    for (suite, records, expected) in [
        // The end is where it is said to be.
        (TLS_13, &[TEXT, BYE, TEXT][..], &text),
        (TLS_12, &[TEXT, BYE, TEXT], &text),
        // Records may be empty.
        (TLS_13, &[(APPLICATION_DATA, b""), TEXT, BYE], &text),
        // "User canceled" is followed by a goodbye.
        (TLS_13, &[(ALERT, &[1, 90]), TEXT, BYE], &text),
        // An offer to shake hands anew is passed over, in one piece or two, and so are warnings.
        (TLS_12, &[(HANDSHAKE, &[0; 4]), TEXT, BYE], &text),
        (TLS_12, &[(HANDSHAKE, &[0; 3]), (HANDSHAKE, &[0]), TEXT, BYE], &text),
        (TLS_12, &[(ALERT, &[1, 100]), TEXT, BYE], &text),
        // 1.3 has no such thing, nor has 1.2 what 1.3 has.
        (TLS_13, &[(HANDSHAKE, &[0; 4]), TEXT, BYE], &wrong),
        (TLS_12, &[(HANDSHAKE, &[24, 0, 0, 1, 0]), TEXT, BYE], &wrong),
        (TLS_12, &[(HANDSHAKE, &[4, 0, 0, 1, 0]), TEXT, BYE], &wrong),
        // Other hellos.
        (TLS_13, &[(HANDSHAKE, &[2, 0, 0, 1, 0]), TEXT, BYE], &wrong),
        (TLS_12, &[(HANDSHAKE, &[2, 0, 0, 1, 0]), TEXT, BYE], &wrong),
        // A change of keys that asks for neither, or is not the last of its record.
        (TLS_13, &[(HANDSHAKE, &[24, 0, 0, 1, 2]), TEXT, BYE], &wrong),
        (TLS_13, &[(HANDSHAKE, &[24, 0, 0, 1, 0, 4]), TEXT, BYE], &wrong),
        // Something between the halves of a message.
        (TLS_13, &[(HANDSHAKE, &[24, 0]), TEXT, BYE], &wrong),
        (TLS_13, &[(HANDSHAKE, &[24, 0]), BYE], &wrong),
        // What anybody could have put in.
        (TLS_13, &[change_cipher_spec, TEXT, BYE], &wrong),
        (TLS_13, &[plain_alert, TEXT, BYE], &wrong),
        (TLS_12, &[change_cipher_spec, TEXT, BYE], &damaged()),
        (TLS_12, &[plain_alert, TEXT, BYE], &damaged()),
        // Kinds that nobody knows, and alerts that are none.
        (TLS_13, &[(99, b"?"), TEXT, BYE], &wrong),
        (TLS_13, &[(ALERT, b"?"), TEXT, BYE], &wrong),
        (TLS_13, &[(ALERT, &[2, 40])], &Err("received fatal alert: HandshakeFailure".to_owned())),
        (TLS_13, &[TEXT], &Err("the server closed the connection without a word".to_owned())),
    ] {
        assert_eq!(&after_handshake(suite, records).await, expected, "{suite:?}: {records:?}");
    }
}

fn damaged() -> Result<Vec<u8>, String> {
    Err("a record did not arrive as it was sent".to_owned())
}

#[tokio::test]
async fn a_server_is_told_why_its_handshake_failed() {
    let (ours, theirs) = (Authority::new("us"), Authority::new("them"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        theirs.tls().accept(tcp).await.unwrap_err().to_string()
    });
    failure(&ours.trusted(), &url).await;
    assert_eq!(server.await.unwrap(), "received fatal alert: UnknownCA");
}

/// Accepts one connection and answers its first request as `answer` does.
async fn once<F>(
    tls: TlsAcceptor,
    answer: impl FnOnce(TlsStream<TcpStream>) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut io = tls.accept(tcp).await.unwrap();
        read_head(&mut io).await.unwrap();
        answer(io).await;
    });
    format!("https://localhost:{port}/")
}

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nonly";

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error_with_and_without_a_goodbye() {
    let authority = Authority::new("us");
    let too_early = "the server closed the connection too early";
    let url = once(authority.tls(), async |mut io| {
        io.write_all(HALF.as_bytes()).await.unwrap();
        io.shutdown().await.unwrap();
    });
    assert_eq!(describe(&failure(&authority.trusted(), &url.await).await), too_early);

    let url = once(authority.tls(), async |mut io| {
        io.write_all(HALF.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        // Without the record that says that this is all: anybody could have cut the connection.
        io.into_inner().0.shutdown().await.unwrap();
    });
    assert_eq!(describe(&failure(&authority.trusted(), &url.await).await), too_early);

    // Nor does it count as the end of a body whose length nobody told.
    let url = once(authority.tls(), async |mut io| {
        io.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await.unwrap();
        io.flush().await.unwrap();
        io.into_inner().0.shutdown().await.unwrap();
    });
    assert_eq!(describe(&failure(&authority.trusted(), &url.await).await), too_early);
    let url = once(authority.tls(), async |mut io| {
        io.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await.unwrap();
        io.shutdown().await.unwrap();
    });
    let client = client(&authority.trusted());
    assert_eq!(get(&client, &url.await).await.unwrap().1, "some");
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused() {
    let authority = Authority::new("us");
    let url = once(authority.tls(), async |mut io| {
        io.write_all(HALF.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        // A record of the right shape that no key made.
        io.get_mut().0.write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).await.unwrap();
        // The client says why it goes.
        let error = io.read_u8().await.unwrap_err().to_string();
        assert!(error.contains("BadRecordMac"), "{error}");
    });
    let error = failure(&authority.trusted(), &url.await).await;
    assert!(error.is_io(), "{error:?}");
    assert_eq!(describe(&error), "a record did not arrive as it was sent");
}

#[tokio::test]
async fn keys_are_changed_when_the_server_asks_for_it() {
    let authority = Authority::new("us");
    let (told, answered) = tokio::sync::oneshot::channel();
    let url = once(authority.tls(), async move |mut io| {
        io.write_all(HALF.as_bytes()).await.unwrap();
        io.get_mut().1.refresh_traffic_keys().unwrap();
        io.write_all(b" half").await.unwrap();
        io.flush().await.unwrap();
        // What comes now is sealed with another key.
        let head = read_head(&mut io).await.unwrap();
        io.write_all(OK.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        told.send(head).unwrap();
    })
    .await;
    let client = client(&authority.trusted());
    assert_eq!(get(&client, &url).await.unwrap().1, "only half");
    assert_eq!(get(&client, &url).await.unwrap().1, "ok");
    assert!(answered.await.unwrap().starts_with("GET / "));
    assert_eq!(client.connections_opened(), 1);
}

#[tokio::test]
async fn a_second_lane_resumes_what_the_first_began() {
    let authority = Authority::new("us");
    let options = authority.trusted();
    let shared = SharedTls::new(&options).unwrap();
    let tls = authority.tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut io = tls.accept(tcp).await.unwrap();
            read_head(&mut io).await.unwrap();
            io.write_all(OK.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
            kinds.push(io.get_ref().1.handshake_kind().unwrap());
        }
        kinds
    });
    for _ in 0..2 {
        let client = http_client(&options, &shared, &Addresses::new(None)).unwrap();
        assert_eq!(get(&client, &url).await.unwrap().1, "ok");
    }
    assert_eq!(server.await.unwrap(), [HandshakeKind::Full, HandshakeKind::Resumed]);
}
