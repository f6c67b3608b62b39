//! TLS as it is done here, against rustls' own: every cipher, and what comes after a handshake.

use rustls::{HandshakeKind, ServerConfig, SupportedCipherSuite, crypto::aws_lc_rs};

use super::*;

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

fn acceptor(authority: &Authority, suite: SupportedCipherSuite) -> TlsAcceptor {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let (certificate, key) = authority.issue(|_| {});
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
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
        // The certificate has a key of elliptic curves, which suites with RSA cannot use.
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        let server =
            Server::start(&[large(), OK, large()], Some(acceptor(&authority, *suite))).await;
        let url = format!("https://localhost:{}/", server.address.port());
        let client = client(&authority.trusted());
        assert!(is_large(&get(&client, &url).await.unwrap().1), "{suite:?}");
        assert_eq!(put_large(&client, &url).await, 200, "{suite:?}");
        assert!(is_large(&get(&client, &url).await.unwrap().1), "{suite:?}");
        assert_eq!(server.seen.lock().unwrap()[1].1, LEN);
        assert_eq!(client.connections_opened(), 1);
    }
}

/// Accepts one connection and answers its first request as `answer` does.
async fn once<F>(
    tls: TlsAcceptor,
    answer: impl FnOnce(tokio_rustls::server::TlsStream<TcpStream>) -> F + Send + 'static,
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
