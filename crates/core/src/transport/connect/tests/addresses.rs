//! A name with several addresses: listeners on 127.0.0.2 and its neighbours, and a resolver that
//! says so.

use std::net::IpAddr;

use super::*;

/// A name that is wherever the test says.
#[derive(Debug, Clone, Default)]
struct Cluster {
    addresses: Arc<Mutex<Vec<IpAddr>>>,
    lookups: Arc<AtomicU64>,
}

impl Cluster {
    fn at(addresses: impl IntoIterator<Item = u8>) -> Self {
        let cluster = Self::default();
        cluster.move_to(addresses);
        cluster
    }

    fn move_to(&self, addresses: impl IntoIterator<Item = u8>) {
        *self.addresses.lock().unwrap() =
            addresses.into_iter().map(|last| [127, 0, 0, last].into()).collect();
    }

    /// A client whose list is fresh, and whose bad addresses are aside, for a moment.
    fn client(&self, options: &ConnectOptions) -> Client {
        let tls = SharedTls::new(options).unwrap();
        http_client(options, &tls, &Addresses::with_pace(Arc::new(self.clone()), SPAN)).unwrap()
    }
}

impl Resolve for Cluster {
    fn resolve(&self, host: &str) -> Resolving {
        assert_eq!(host, "store.example");
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let addresses = self.addresses.lock().unwrap().clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(addresses)
        })
    }
}

/// Longer than a few requests take on a busy machine.
const SPAN: Duration = Duration::from_millis(400);

/// Listeners on these addresses, all on a port that is free on each.
async fn listeners(addresses: impl IntoIterator<Item = u8> + Clone) -> Vec<TcpListener> {
    loop {
        let mut listeners: Vec<TcpListener> = Vec::new();
        for last in addresses.clone() {
            let port = listeners.first().map_or(0, |first| first.local_addr().unwrap().port());
            let address = SocketAddr::from(([127, 0, 0, last], port));
            listeners.extend(TcpListener::bind(address).await);
        }
        if listeners.len() == addresses.clone().into_iter().count() {
            return listeners;
        }
    }
}

fn start(listeners: Vec<TcpListener>) -> Vec<Server> {
    listeners.into_iter().map(|listener| Server::at(listener, &[OK], None)).collect()
}

fn url(server: &Server) -> String {
    format!("http://store.example:{}/", server.address.port())
}

fn connections(servers: &[Server]) -> Vec<u64> {
    servers.iter().map(|server| server.connections.load(Ordering::Relaxed)).collect()
}

#[tokio::test]
async fn lanes_spread_their_connections_over_all_addresses() {
    let servers = start(listeners(2..=5).await);
    let (cluster, options) = (Cluster::at(2..=5), ConnectOptions::default());
    let tls = SharedTls::new(&options).unwrap();
    let addresses = Addresses::new(Some(Arc::new(cluster.clone())));
    let lanes: Vec<_> = (0..3).map(|_| http_client(&options, &tls, &addresses).unwrap()).collect();
    let url = url(&servers[0]);
    let requests = lanes.iter().flat_map(|lane| (0..8).map(|_| get(lane, &url)));
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!(connections(&servers), [6; 4]);
    assert_eq!(cluster.lookups.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_address_that_refuses_is_left_out_and_comes_back() {
    let mut listeners = listeners([2, 3]).await;
    let absent = listeners.pop().unwrap().local_addr().unwrap();
    let servers = start(listeners);
    let client = Cluster::at([3, 2]).client(&ConnectOptions::default());
    for _ in 0..3 {
        assert_eq!(get(&client, &url(&servers[0])).await.unwrap().0, 200);
    }
    let back = Server::at(TcpListener::bind(absent).await.unwrap(), &[OK], None);
    assert_eq!(get(&client, &url(&servers[0])).await.unwrap().0, 200);
    assert_eq!(connections(&servers), [4]);
    tokio::time::sleep(SPAN).await;
    for _ in 0..4 {
        assert_eq!(get(&client, &url(&servers[0])).await.unwrap().0, 200);
    }
    assert!(back.connections.load(Ordering::Relaxed) >= 2, "{:?}", back.connections);
}

#[tokio::test]
async fn a_name_that_moves_is_followed() {
    let servers = start(listeners([2, 3]).await);
    let cluster = Cluster::at([2]);
    let client = cluster.client(&ConnectOptions::default());
    get(&client, &url(&servers[0])).await.unwrap();
    cluster.move_to([3]);
    tokio::time::sleep(SPAN).await;
    get(&client, &url(&servers[0])).await.unwrap();
    assert_eq!(connections(&servers), [1, 1]);
    // A resolver that knows nothing any more does not take away what is known.
    cluster.move_to([]);
    tokio::time::sleep(SPAN).await;
    get(&client, &url(&servers[0])).await.unwrap();
    assert_eq!(connections(&servers), [1, 2]);
    assert_eq!(cluster.lookups.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_name_without_addresses_is_an_error() {
    let client = Cluster::at([]).client(&ConnectOptions::default());
    let error = get(&client, "http://store.example/").await.unwrap_err();
    assert_eq!(describe(&error), "name not found: store.example (it has no address)");
}

#[tokio::test]
async fn where_a_request_stood_still_the_next_goes_elsewhere() {
    let mut listeners = listeners([2, 3]).await;
    let servers = start(vec![listeners.pop().unwrap()]);
    let _silent = listeners.pop().unwrap();
    let stall_timeout = SPAN;
    let options = ConnectOptions { stall_timeout, ..Default::default() };
    let client = Cluster::at([2, 3]).client(&options);
    let url = url(&servers[0]);
    let error = call(&client, &url, Some(stall_timeout)).await.unwrap_err();
    assert_eq!(describe(&error), "no answer within 400 ms");
    for _ in 0..2 {
        assert_eq!(call(&client, &url, Some(stall_timeout)).await.unwrap().status().as_u16(), 200);
    }
}

#[tokio::test]
async fn where_an_answer_stood_still_the_next_goes_elsewhere_and_later_comes_back() {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let mut listeners = listeners([2, 3]).await.into_iter();
    // Sends no more than half, and does not close either: it waits for a second request.
    let half = Server::at(listeners.next().unwrap(), &[HALF, OK], None);
    let good = Server::at(listeners.next().unwrap(), &[OK], None);
    let options = ConnectOptions { stall_timeout: SPAN, ..Default::default() };
    let client = Cluster::at([2, 3]).client(&options);
    let url = url(&good);
    let body = call(&client, &url, None).await.unwrap().into_body();
    assert!(tokio::time::timeout(SPAN, body.collect()).await.is_err());
    for _ in 0..3 {
        assert_eq!(get(&client, &url).await.unwrap().1, "ok");
    }
    assert_eq!(connections(&[half.clone(), good.clone()]), [1, 3]);
    tokio::time::sleep(SPAN).await;
    for _ in 0..2 {
        drop(call(&client, &url, None).await.unwrap());
    }
    assert_eq!(connections(&[half, good]), [2, 4]);
}

/// What swallows packets instead of refusing them (192.0.2.1 is reserved for examples).
#[tokio::test]
async fn an_address_that_is_dead_costs_a_moment_once() {
    let servers = start(listeners([2]).await);
    let cluster = Cluster::at([2]);
    cluster.addresses.lock().unwrap().insert(0, [192, 0, 2, 1].into());
    let options = ConnectOptions::default();
    let tls = SharedTls::new(&options).unwrap();
    let addresses = Addresses::new(Some(Arc::new(cluster)));
    let client = http_client(&options, &tls, &addresses).unwrap();
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(get(&client, &url(&servers[0])).await.unwrap().0, 200);
    }
    assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
}
