//! The client against small servers of its own, over loopback.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use bytes::Bytes;
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

mod addresses;
mod secure;

const OK: &str = "HTTP/1.1 200 OK\r\nserver: Bucket/1\r\ncontent-length: 2\r\n\r\nok";
const SECOND: Duration = Duration::from_secs(1);

// ---- servers ----

/// A server that keeps what it was sent: every head, and how long the body after it was.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, usize)>>>,
    connections: Arc<AtomicU64>,
}

impl Server {
    /// Answers the requests of a connection with these, in turn, then closes it. Each connection
    /// starts with the first again. An empty answer is none.
    async fn start(answers: &[&'static str], tls: Option<TlsAcceptor>) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers, tls)
    }

    fn at(listener: TcpListener, answers: &[&'static str], tls: Option<TlsAcceptor>) -> Self {
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let answers = VecDeque::from(answers.to_vec());
        tokio::spawn(server.clone().accept(listener, answers, tls));
        server
    }

    async fn accept(
        self,
        listener: TcpListener,
        answers: VecDeque<&'static str>,
        tls: Option<TlsAcceptor>,
    ) {
        while let Ok((tcp, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (server, answers, tls) = (self.clone(), answers.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => server.answer(tcp, answers).await,
                    Some(tls) => match tls.accept(tcp).await {
                        Ok(tls) => server.answer(tls, answers).await,
                        Err(_) => None,
                    },
                }
            });
        }
    }

    async fn answer(
        self,
        mut io: impl AsyncRead + AsyncWrite + Unpin,
        mut answers: VecDeque<&'static str>,
    ) -> Option<()> {
        while let Some(answer) = answers.pop_front() {
            let head = read_head(&mut io).await?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            io.read_exact(&mut body).await.ok()?;
            let target = head.lines().next().and_then(|line| line.strip_prefix("CONNECT "));
            let target = target.and_then(|line| line.split(' ').next()).map(str::to_owned);
            self.seen.lock().unwrap().push((head, body.len()));
            io.write_all(answer.as_bytes()).await.ok()?;
            io.flush().await.ok()?;
            if let Some(target) = target.filter(|_| answer.contains("200")) {
                // Whatever the name, the tests' servers are all here.
                let port: u16 = target.rsplit(':').next()?.parse().ok()?;
                let mut onward = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
                tokio::io::copy_bidirectional(&mut io, &mut onward).await.ok()?;
            }
        }
        io.shutdown().await.ok()
    }

    fn url(&self) -> String {
        format!("http://{}/b/k", self.address)
    }

    fn head(&self, index: usize) -> String {
        self.seen.lock().unwrap()[index].0.clone()
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Listens, and never takes a connection: the kernel completes TCP, and then nothing happens.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A certificate authority, its certificate as a file, and what it issues.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    bundle: tempfile::NamedTempFile,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let bundle = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(bundle.path(), issuer.pem()).unwrap();
        Self { issuer, bundle }
    }

    /// TLS for a server called `localhost`.
    fn tls(&self) -> TlsAcceptor {
        self.tls_with(|_| ())
    }

    fn tls_with(&self, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let (certificate, key) = self.issue(&KeyPair::generate().unwrap(), change);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn issue(
        &self,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn trusted(&self) -> ConnectOptions {
        ConnectOptions { ca_bundle: Some(self.bundle.path().to_owned()), ..Default::default() }
    }
}

// ---- requests ----

fn client(options: &ConnectOptions) -> Client {
    http_client(options, &SharedTls::new(options).unwrap(), &Addresses::new(None)).unwrap()
}

fn through(http: String, https: String, no_proxy: &str) -> ConnectOptions {
    let no_proxy = Some(no_proxy.to_owned());
    let proxies = Proxies { http: Some(http), https: Some(https), no_proxy };
    ConnectOptions { proxies, ..Default::default() }
}

async fn call(
    client: &Client,
    url: &str,
    read_timeout: Option<Duration>,
) -> Result<HttpResponse, ConnectorError> {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(url).unwrap();
    Exchange { client: client.0.clone(), read_timeout }.call(request).await
}

/// The status and the body, or the failure.
async fn get(client: &Client, url: &str) -> Result<(u16, Bytes), ConnectorError> {
    let response = call(client, url, None).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    Ok((status, body.map_err(ConnectorError::io)?.to_bytes()))
}

async fn failure(options: &ConnectOptions, url: &str) -> ConnectorError {
    get(&client(options), url).await.unwrap_err()
}

// ---- plain ----

#[tokio::test]
async fn requests_in_sequence_share_a_connection() {
    let server = Server::start(&[OK, OK], None).await;
    let client = client(&ConnectOptions::default());
    assert_eq!(client.server_header(), None);
    for _ in 0..2 {
        let (status, body) = get(&client, &server.url()).await.unwrap();
        assert_eq!((status, &body[..]), (200, &b"ok"[..]));
    }
    assert!(server.head(1).starts_with("GET /b/k HTTP/1.1\r\n"), "{}", server.head(1));
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    assert_eq!(client.clone().connections_opened(), 1);
    assert_eq!(client.server_header().as_deref(), Some("Bucket/1"));
}

#[tokio::test]
async fn a_connection_closed_while_idle_goes_unnoticed() {
    let server = Server::start(&[OK], None).await;
    let client = client(&ConnectOptions::default());
    for expected in 1..=3 {
        assert_eq!(get(&client, &server.url()).await.unwrap().0, 200);
        assert_eq!(client.connections_opened(), expected);
        // Long enough for the server's end to arrive: it closes after every answer.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let server = Server::start(&[OK], None).await;
    let body = SdkBody::from(Bytes::from(vec![7; 5 << 20]));
    let mut request = HttpRequest::new(body);
    request.set_method("PUT").unwrap();
    request.set_uri(server.url()).unwrap();
    let client = client(&ConnectOptions::default());
    let exchange = Exchange { client: client.0.clone(), read_timeout: None };
    assert_eq!(exchange.call(request).await.unwrap().status().as_u16(), 200);
    assert_eq!(server.seen.lock().unwrap()[0].1, 5 << 20);
}

#[tokio::test]
async fn a_body_that_fails_is_not_the_networks_fault() {
    let server = Server::start(&[OK], None).await;
    let broken = futures::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"half"))),
        Err(std::io::Error::other("the file changed")),
    ]);
    let body = SdkBody::from_body_1_x(http_body_util::StreamBody::new(broken));
    let mut request = HttpRequest::new(body);
    request.set_uri(server.url()).unwrap();
    request.headers_mut().insert("content-length", "9");
    let client = client(&ConnectOptions::default());
    let exchange = Exchange { client: client.0.clone(), read_timeout: None };
    let error = exchange.call(request).await.unwrap_err();
    assert!(error.is_user(), "{error:?}");
    assert_eq!(describe(&error), "the file changed");
}

#[tokio::test]
async fn the_sdk_drives_it_and_closes_what_a_503_came_over() {
    let down = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start(&[down, OK], None).await;
    let client = client(&ConnectOptions::default());
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(format!("http://{}", server.address))
        .force_path_style(true)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .http_client(client.clone())
        .build();
    let s3 = aws_sdk_s3::Client::from_conf(config);
    for _ in 0..2 {
        let error = s3.head_bucket().bucket("b").send().await.unwrap_err();
        assert_eq!(error.raw_response().unwrap().status().as_u16(), 503);
    }
    assert_eq!(client.connections_opened(), 2);
}

// ---- proxies ----

#[tokio::test]
async fn a_proxy_gets_http_requests_in_absolute_form_with_its_credentials() {
    let proxy = Server::start(&[OK], None).await;
    let server = Server::start(&[OK], None).await;
    let url = format!("http://u:pw@{}", proxy.address);
    let client_of = |no_proxy| client(&through(url.clone(), url.clone(), no_proxy));

    get(&client_of("other.example"), &server.url()).await.unwrap();
    let head = proxy.head(0);
    assert!(head.starts_with(&format!("GET {} HTTP/1.1\r\n", server.url())), "{head}");
    assert!(head.contains("proxy-authorization: Basic dTpwdw==\r\n"), "{head}");
    assert_eq!(server.requests(), 0);

    get(&client_of("127.0.0.0/8"), &server.url()).await.unwrap();
    assert!(server.head(0).starts_with("GET /b/k HTTP/1.1\r\n"));
    assert!(!server.head(0).contains("proxy-authorization"));
    assert_eq!(proxy.requests(), 1);
}

#[tokio::test]
async fn https_goes_through_a_tunnel_even_of_an_https_proxy() {
    let authority = Authority::new("us");
    let server = Server::start(&[OK], Some(authority.tls())).await;
    let url = format!("https://localhost:{}/b/k", server.address.port());
    for (scheme, tls) in [("http", None), ("https", Some(authority.tls()))] {
        let proxy = Server::start(&["HTTP/1.1 200 Welcome\r\n\r\n"], tls).await;
        let port = proxy.address.port();
        let proxies =
            through(String::new(), format!("{scheme}://u:pw@localhost:{port}"), "").proxies;
        let options = ConnectOptions { proxies, ..authority.trusted() };
        assert_eq!(get(&client(&options), &url).await.unwrap().0, 200);
        let head = proxy.head(0);
        let target = format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address.port());
        assert!(head.starts_with(&target), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic dTpwdw==\r\n"), "{head}");
    }
    assert!(!server.head(0).to_lowercase().contains("authorization"), "{}", server.head(0));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let demand = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    let demanding = Server::start(&[demand], None).await.address;
    let refusing = Server::start(&[refusal], None).await.address;
    let wants = format!(
        "proxy {demanding}: it asks for credentials; give the right user and password in its URL"
    );
    for url in ["http://store.invalid/", "https://store.invalid/"] {
        let options = through(format!("http://{demanding}"), format!("http://{demanding}"), "");
        let error = failure(&options, url).await;
        assert_eq!(describe(&error), wants);
        assert!(error.is_other());
    }
    let options = through(String::new(), format!("http://{refusing}"), "");
    let error = failure(&options, "https://store.invalid/").await;
    assert_eq!(describe(&error), format!("proxy {refusing}: it refused the tunnel"));

    let nobody = nobody().await;
    let options = through(format!("http://{nobody}"), String::new(), "");
    let error = failure(&options, "http://store.invalid/").await;
    assert_eq!(describe(&error), format!("proxy {nobody}: connection refused"));
}

// ---- TLS ----

#[tokio::test]
async fn clients_share_trust_and_not_connections() {
    let authority = Authority::new("us");
    let server = Server::start(&[OK, OK], Some(authority.tls())).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let options = authority.trusted();
    let shared = SharedTls::new(&options).unwrap();
    for _ in 0..2 {
        let client = http_client(&options, &shared, &Addresses::new(None)).unwrap();
        for _ in 0..2 {
            assert_eq!(get(&client, &url).await.unwrap().1, "ok");
        }
        assert_eq!(client.connections_opened(), 1);
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_explained() {
    let (ours, theirs) = (Authority::new("us"), Authority::new("them"));
    let trusted = ours.trusted();
    let check = async |tls, host: &str, expected: &str| {
        let server = Server::start(&[OK], Some(tls)).await;
        let url = format!("https://{host}:{}/", server.address.port());
        let error = failure(&trusted, &url).await;
        assert_eq!(describe(&error), format!("the server's certificate {expected}"));
        assert!(is_certificate_problem(&error) && error.is_other());

        let anyone = ConnectOptions { verify_tls: false, ..trusted.clone() };
        assert_eq!(get(&client(&anyone), &url).await.unwrap().0, 200);
    };
    check(theirs.tls(), "localhost", "is not trusted (unknown issuer)").await;
    check(ours.tls(), "127.0.0.1", "is not for 127.0.0.1 but for localhost").await;
    let old = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    check(ours.tls_with(old), "localhost", "has expired").await;
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let expected = "is that of a certificate authority itself, which must not be a server's";
    check(ours.tls_with(authority), "localhost", expected).await;
}

#[tokio::test]
async fn https_to_a_port_without_tls_says_so() {
    let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_all(answer.as_bytes()).await.unwrap();
        io.read_u8().await.unwrap();
    });
    let anyone = ConnectOptions { verify_tls: false, ..Default::default() };
    let error = failure(&anyone, &format!("https://{address}/")).await;
    assert_eq!(describe(&error), "the server does not speak TLS on this port");
}

// ---- failures ----

#[tokio::test]
async fn connections_that_cannot_be_made_say_why() {
    let options = ConnectOptions::default();
    let error = failure(&options, &format!("http://{}/", nobody().await)).await;
    assert_eq!(describe(&error), "connection refused");
    assert!(error.is_io() && !is_certificate_problem(&error));

    let error = failure(&options, "http://store.invalid/").await;
    let sentence = describe(&error);
    assert!(sentence.starts_with("name not found: store.invalid ("), "{sentence}");
    assert!(error.is_io());
}

#[tokio::test]
async fn exchanges_that_end_early_say_where() {
    let options = ConnectOptions::default();
    let server = Server::start(&[""], None).await;
    let error = failure(&options, &server.url()).await;
    assert_eq!(describe(&error), "the server closed the connection before answering");
    assert!(error.is_io());

    let short = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nonly"], None).await;
    let error = failure(&options, &short.url()).await;
    assert_eq!(describe(&error), "the server closed the connection too early");

    let chatter = Server::start(&["220 mail.example ESMTP\r\n"], None).await;
    let error = failure(&options, &chatter.url()).await;
    assert_eq!(describe(&error), "the server's answer is not HTTP");
    assert!(error.is_other());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        io.readable().await.unwrap();
        io.set_zero_linger().unwrap();
    });
    let error = failure(&options, &format!("http://{address}/")).await;
    assert_eq!(describe(&error), "connection reset");
    assert!(error.is_io());
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out() {
    let (_listener, address) = silent().await;
    let connect_timeout = Duration::from_millis(100);
    let options = ConnectOptions { connect_timeout, verify_tls: false, ..Default::default() };
    let started = Instant::now();
    let error = failure(&options, &format!("https://{address}/")).await;
    assert_eq!(describe(&error), "timed out connecting");
    assert!(error.is_timeout() && started.elapsed() < SECOND);
}

#[tokio::test]
async fn an_operation_with_a_read_timeout_does_not_wait_longer() {
    let (_listener, address) = silent().await;
    let client = client(&ConnectOptions::default());
    let started = Instant::now();
    let limit = Some(Duration::from_millis(100));
    let error = call(&client, &format!("http://{address}/"), limit).await.unwrap_err();
    assert_eq!(describe(&error), "no answer within 100 ms");
    assert!(error.is_timeout() && started.elapsed() < SECOND);
}

/// Outside EC2 the address of the metadata service may swallow packets (192.0.2.1 is reserved for
/// examples, and so does that), or be a host that never answers.
#[tokio::test]
async fn looking_for_credentials_where_there_are_none_ends_soon() {
    let (_listener, address) = silent().await;
    for endpoint in [format!("http://{address}"), "http://192.0.2.1".to_owned()] {
        let config =
            ProviderConfig::without_region().with_http_client(client(&ConnectOptions::default()));
        let imds = aws_config::imds::Client::builder()
            .configure(&config)
            .endpoint(&endpoint)
            .unwrap()
            .build();
        let provider = aws_config::imds::credentials::ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(imds)
            .build();
        let started = Instant::now();
        provider.provide_credentials().await.unwrap_err();
        assert!(started.elapsed() < 4 * SECOND, "{endpoint}: {:?}", started.elapsed());
    }
}
