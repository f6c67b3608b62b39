//! Measures the store alone: raw HTTP over a few connections, as fast as one thread each can send.
//!
//! ```text
//! load put ENDPOINT CONNECTIONS PART_BYTES TOTAL_BYTES
//! load get ENDPOINT CONNECTIONS PART_BYTES TOTAL_BYTES [KEY]
//! ```
//!
//! `put` sends parts of the synthetic pattern with a CRC32 header, `get` downloads ranges of one object
//! (default: the virtual `1TiB` of a synthetic store), both in the bucket `load`, which must exist and be open
//! to everyone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use brigade_store::synthetic;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [verb, endpoint, connections, part, total, key @ ..] = &words[..] else {
        return Err("usage: load put|get ENDPOINT CONNECTIONS PART_BYTES TOTAL_BYTES [KEY]".into());
    };
    let key = key.first().map_or("1TiB", String::as_str);
    let address = endpoint.strip_prefix("http://").ok_or("only http:// endpoints")?;
    let (connections, part): (usize, usize) = (connections.parse()?, part.parse()?);
    let total: usize = total.parse()?;
    let each = total / part / connections;
    let mut content = vec![0; part];
    synthetic::fill(0, &mut content);
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let content = &content[..];
        let lanes: Vec<_> = (0..connections)
            .map(|lane| {
                scope.spawn(move || match verb.as_str() {
                    "put" => put(address, content, lane, each),
                    _ => get(address, key, part, lane, each),
                })
            })
            .collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| "a lane panicked")?)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let gib = (each * part * connections) as f64 / f64::from(1 << 30);
    println!("{verb}: {:.2} GiB/s over {connections} connections", gib / seconds);
    Ok(())
}

fn put(address: &str, content: &[u8], lane: usize, count: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    let mut answer = [0; 4096];
    let crc = synthetic::crc32(0, content.len() as u64).to_be_bytes();
    let crc = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, crc);
    for number in 0..count {
        let head = format!(
            "PUT /load/{lane}/part-{number} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\
             x-amz-checksum-crc32: {crc}\r\n\r\n",
            content.len(),
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(content)?;
        let length = stream.read(&mut answer)?;
        if !answer[..length].starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&answer[..length]).into());
        }
    }
    Ok(())
}

fn get(address: &str, key: &str, part: usize, lane: usize, count: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    let mut buffer = vec![0; 1 << 20];
    for number in 0..count {
        let from = (lane * count + number) * part;
        let head = format!(
            "GET /load/{key} HTTP/1.1\r\nHost: {address}\r\nRange: bytes={from}-{}\r\n\r\n",
            from + part - 1,
        );
        stream.write_all(head.as_bytes())?;
        let mut received = stream.read(&mut buffer)?;
        let end = buffer[..received]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or("no end of head")?;
        if !buffer.starts_with(b"HTTP/1.1 206") {
            return Err(String::from_utf8_lossy(&buffer[..received]).into());
        }
        received -= end + 4;
        while received < part {
            match stream.read(&mut buffer)? {
                0 => return Err("cut short".into()),
                more => received += more,
            }
        }
    }
    Ok(())
}
