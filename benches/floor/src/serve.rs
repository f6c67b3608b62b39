//! Accepts connections; each has a thread of its own, which costs the kernel little and the eye nothing.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use rustls::{ServerConfig, ServerConnection};

use crate::Json;
use crate::connection::Connection;
use crate::s3::Store;

/// Connections that may wait to be accepted: a client may open hundreds at once, and one that finds no
/// room would try again only a second later.
const BACKLOG: i32 = 4096;

/// Of a connection's thread; TLS handshakes are what needs most.
const STACK_BYTES: usize = 256 << 10;

/// Serves until the process is ended. Prints where, once it listens.
pub(crate) fn serve(port: u16, tls: bool, cert_out: Option<&Path>) -> Result<Json> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("cannot listen")?;
    rustix::net::listen(&listener, BACKLOG)?;
    let scheme = if tls { "https" } else { "http" };
    let mut ready = Json::default()
        .text("event", "serving")
        .text("endpoint_url", &format!("{scheme}://{}", listener.local_addr()?));
    let mut config = None;
    if tls {
        let (server, ca_pem) = crate::tls::server()?;
        config = Some(server);
        if let Some(file) = cert_out {
            std::fs::write(file, ca_pem)
                .with_context(|| format!("cannot write {}", file.display()))?;
            ready = ready.text("ca_bundle", &file.to_string_lossy());
        }
    }
    let store = Arc::new(Store::new()?);
    println!("{ready}");
    loop {
        let (socket, _) = listener.accept().context("cannot accept")?;
        let (store, config) = (Arc::clone(&store), config.clone());
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // Clients end connections as they like: nobody needs to know.
            let _ = converse(&store, socket, config);
        })?;
    }
}

fn converse(store: &Store, socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    let session = tls.map(ServerConnection::new).transpose().map_err(io::Error::other)?;
    let mut connection = Connection::new(socket, session.map(Into::into))?;
    while let Some(head) = connection.head()? {
        if !store.exchange(&mut connection, &head)? {
            break;
        }
    }
    Ok(())
}
