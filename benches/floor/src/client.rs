//! Clients that only move bytes: `sendfile` up, `recv` and `pwrite` down, a thread for every connection.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::connection::{Connection, bounded};
use crate::http::Head;
use crate::measure::Clock;
use crate::objects::Set;
use crate::{How, Json, To};

/// Received and written at once: large enough for few calls, small enough for a processor's own cache.
const BUFFER_BYTES: usize = 256 << 10;

/// Uploads a file; in parts where it is larger than one.
pub(crate) fn up(url: &str, file: &Path, how: &How) -> Result<Json> {
    let (clock, place) = (Clock::start(), Place::new(url, how)?);
    let source = opened(file)?;
    let size = source.metadata()?.len();
    if size <= how.part_size {
        put(&mut place.connect()?, &place, "", &source, 0, size)?;
        return Ok(clock.stop(size));
    }
    let mut first = place.connect()?;
    place.ask(&mut first, "POST", "?uploads", "", 0)?;
    let created = String::from_utf8(answer(&mut first)?)?;
    let id = created.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once("</UploadId>"));
    let id = id.context("no upload id in the answer")?.0;
    in_parallel(how, size.div_ceil(how.part_size), &place, |connection, buffer, index| {
        let offset = index * how.part_size;
        let length = how.part_size.min(size - offset);
        if how.sum {
            black_box(sum(&source, buffer, offset, length)?);
        }
        let query = format!("?partNumber={}&uploadId={id}", index + 1);
        put(connection, &place, &query, &source, offset, length)
    })?;
    place.ask(&mut first, "POST", &format!("?uploadId={id}"), "", 0)?;
    answer(&mut first)?;
    Ok(clock.stop(size))
}

/// Reading costs as much as mapping does, and more of it at once no less.
fn sum(file: &File, buffer: &mut [u8], offset: u64, length: u64) -> Result<u32> {
    let (mut hasher, mut summed) = (crc32fast::Hasher::new(), 0);
    while summed < length {
        let next = &mut buffer[..bounded(length - summed, BUFFER_BYTES)];
        file.read_exact_at(next, offset + summed)?;
        hasher.update(next);
        summed += next.len() as u64;
    }
    Ok(hasher.finalize())
}

/// Downloads an object by ranges.
pub(crate) fn down(url: &str, file: &Path, how: &How, to: To, size: Option<u64>) -> Result<Json> {
    if to == To::New && file.exists() {
        fs::remove_file(file)?;
    }
    let (clock, place) = (Clock::start(), Place::new(url, how)?);
    if to == To::Stdout {
        return to_stdout(&place, how, size, clock);
    }
    let target = (to != To::Nothing)
        .then(|| OpenOptions::new().write(true).create(true).truncate(false).open(file))
        .transpose()
        .with_context(|| format!("cannot open {}", file.display()))?;
    let size = match size {
        Some(size) => size,
        None => place.size()?,
    };
    if let Some(target) = &target {
        target.set_len(size)?;
    }
    in_parallel(how, size.div_ceil(how.part_size), &place, |connection, buffer, index| {
        let offset = index * how.part_size;
        let length = how.part_size.min(size - offset);
        let range = format!("Range: bytes={offset}-{}\r\n", offset + length - 1);
        place.ask(connection, "GET", "", &range, 0)?;
        ensure!(accepted(connection)?.content_length() == length, "not what was asked for");
        receive(connection, buffer, length, target.as_ref(), offset)
    })?;
    Ok(clock.stop(size))
}

/// Writes an object to standard output, in order: who has received a part waits for its turn.
fn to_stdout(place: &Place, how: &How, size: Option<u64>, clock: Clock) -> Result<Json> {
    let size = size.map_or_else(|| place.size(), Ok)?;
    let (turn, next) = (Mutex::new(Some(0)), Condvar::new());
    let in_turn = |index: u64, part: &[u8]| -> Result<()> {
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |turn: &mut Option<u64>| turn.is_some_and(|turn| turn != index);
        let mut turn = next.wait_while(turn, waiting).unwrap_or_else(PoisonError::into_inner);
        ensure!(turn.is_some(), "another part failed");
        let written = std::io::stdout().write_all(part);
        // Nobody waits for a turn that will not come.
        *turn = written.is_ok().then_some(index + 1);
        next.notify_all();
        Ok(written?)
    };
    in_parallel(how, size.div_ceil(how.part_size), place, |connection, buffer, index| {
        let offset = index * how.part_size;
        let length = how.part_size.min(size - offset);
        let range = format!("Range: bytes={offset}-{}\r\n", offset + length - 1);
        place.ask(connection, "GET", "", &range, 0)?;
        ensure!(accepted(connection)?.content_length() == length, "not what was asked for");
        buffer.resize(bounded(how.part_size, usize::MAX), 0);
        let part = &mut buffer[..bounded(length, usize::MAX)];
        let mut hasher = how.sum.then(crc32fast::Hasher::new);
        let mut done = 0;
        while done < part.len() {
            let end = part.len().min(done + BUFFER_BYTES);
            let received = connection.receive(&mut part[done..end])?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&part[done..done + received]);
            }
            done += received;
        }
        black_box(hasher.map(crc32fast::Hasher::finalize));
        in_turn(index, part)
    })?;
    Ok(clock.stop(size))
}

/// Uploads every file of a folder.
pub(crate) fn up_many(url: &str, folder: &Path, how: &How) -> Result<Json> {
    let (clock, place) = (Clock::start(), Place::new(url, how)?);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    let bytes = AtomicU64::new(0);
    in_parallel(how, files.len() as u64, &place, |connection, _, index| {
        let file = &files[bounded(index, files.len())];
        let source = opened(file)?;
        let size = source.metadata()?.len();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        bytes.fetch_add(size, Ordering::Relaxed);
        put(connection, &place, &name, &source, 0, size)
    })?;
    Ok(clock.stop(bytes.into_inner()).number("objects", files.len()))
}

/// Downloads every object of a set.
pub(crate) fn down_many(url: &str, folder: &Path, how: &How) -> Result<Json> {
    let (clock, place) = (Clock::start(), Place::new(url, how)?);
    let named = place.path.trim_end_matches('/').splitn(3, '/').nth(2).and_then(Set::named);
    let set = named.context("the address is not that of a set")?;
    in_parallel(how, set.count.into(), &place, |connection, buffer, index| {
        let name = format!("{index:06}");
        place.ask(connection, "GET", &name, "", 0)?;
        ensure!(accepted(connection)?.content_length() == set.size, "not what was expected");
        let target = File::create(folder.join(name))?;
        receive(connection, buffer, set.size, Some(&target), 0)
    })?;
    Ok(clock.stop(u64::from(set.count) * set.size).number("objects", set.count))
}

/// Where an object or a prefix is, and how it is reached.
struct Place {
    address: SocketAddr,
    path: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Place {
    fn new(url: &str, how: &How) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").context("the address has no scheme")?;
        let (host, path) = rest.split_once('/').context("the address has no path")?;
        let tls = match (scheme, &how.ca) {
            ("http", _) => None,
            ("https", Some(ca)) => Some(crate::tls::client(ca)?),
            ("https", None) => bail!("https needs --ca"),
            _ => bail!("{scheme} is neither http nor https"),
        };
        let address = host.parse().context("the address needs an IP address and a port")?;
        Ok(Self { address, path: format!("/{path}"), tls })
    }

    fn connect(&self) -> Result<Connection> {
        let session = match &self.tls {
            None => None,
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                Some(ClientConnection::new(Arc::clone(config), name)?.into())
            }
        };
        Connection::connect(self.address, session).context("cannot connect")
    }

    /// Sends a request's head. `more` is what comes after the path, `headers` whole lines.
    fn ask(
        &self,
        connection: &mut Connection,
        method: &str,
        more: &str,
        headers: &str,
        length: u64,
    ) -> Result<()> {
        let (path, address) = (&self.path, self.address);
        let head = format!(
            "{method} {path}{more} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        Ok(connection.send(head.as_bytes(), length > 0)?)
    }

    fn size(&self) -> Result<u64> {
        let mut connection = self.connect()?;
        self.ask(&mut connection, "HEAD", "", "", 0)?;
        Ok(accepted(&mut connection)?.content_length())
    }
}

/// Runs `job` for each index below `count`, over as many connections as asked for.
fn in_parallel(
    how: &How,
    count: u64,
    place: &Place,
    job: impl Fn(&mut Connection, &mut Vec<u8>, u64) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        let (mut connection, mut buffer) = (place.connect()?, vec![0; BUFFER_BYTES]);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            job(&mut connection, &mut buffer, index)?;
        }
    };
    thread::scope(|scope| {
        let workers = count.min(how.connections.max(1) as u64);
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| match worker.join() {
            Ok(ended) => ended,
            Err(_) => bail!("a connection's thread panicked"),
        })
    })
}

fn put(
    connection: &mut Connection,
    place: &Place,
    more: &str,
    source: &File,
    offset: u64,
    length: u64,
) -> Result<()> {
    place.ask(connection, "PUT", more, "", length)?;
    connection.send_file(source, offset, length)?;
    answer(connection).map(drop)
}

fn receive(
    connection: &mut Connection,
    buffer: &mut [u8],
    length: u64,
    target: Option<&File>,
    offset: u64,
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let wanted = bounded(length - done, buffer.len());
        let received = connection.receive(&mut buffer[..wanted])?;
        if let Some(target) = target {
            target.write_all_at(&buffer[..received], offset + done)?;
        }
        done += received as u64;
    }
    Ok(())
}

/// The head of an answer, which must be a success.
fn accepted(connection: &mut Connection) -> Result<Head> {
    let head = connection.head()?.context("the store ended the connection")?;
    ensure!(head.word(1).starts_with('2'), "the store answers {}", head.word(1));
    Ok(head)
}

/// A small answer with its body.
fn answer(connection: &mut Connection) -> Result<Vec<u8>> {
    let head = accepted(connection)?;
    let mut body = vec![0; bounded(head.content_length(), 1 << 20)];
    let mut done = 0;
    while done < body.len() {
        done += connection.receive(&mut body[done..])?;
    }
    Ok(body)
}

fn opened(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("cannot open {}", file.display()))
}
