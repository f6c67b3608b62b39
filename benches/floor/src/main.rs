//! The floor: what moving S3 objects costs at least, measured with as little as the kernel allows.
//!
//! `serve` is a store that drops uploads inside the kernel and sends downloads out of the page cache, so
//! that almost nothing of a measurement is the store's. `up`, `down` and their siblings for many files
//! are clients that do nothing but move the bytes: no checksum, no signature, no retry. `disk-write` and
//! `disk-read` are what the disk itself can do, and `measure` runs any other client and tells what it
//! took. Everything prints one JSON object.

mod client;
mod connection;
mod content;
mod disk;
mod http;
mod measure;
mod objects;
mod s3;
mod serve;
mod tls;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// What moving S3 objects costs at least.
#[derive(Parser)]
#[command(name = "brigade-floor")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a store on 127.0.0.1 that discards uploads and makes up downloads, until it is ended.
    Serve {
        /// Port; 0 takes any free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// HTTPS, with a certificate made for this run.
        #[arg(long)]
        tls: bool,
        /// Where the certificate authority of this run is written, as PEM.
        #[arg(long, requires = "tls")]
        cert_out: Option<PathBuf>,
    },
    /// Uploads a file with sendfile, in parts.
    Up {
        url: String,
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Downloads an object with recv and pwrite, in ranges.
    Down {
        url: String,
        file: PathBuf,
        #[command(flatten)]
        how: How,
        /// What the bytes are written to.
        #[arg(long, value_enum, default_value_t = To::New)]
        to: To,
        /// Size of the object; asked for where it is not given.
        #[arg(long, value_parser = size)]
        size: Option<u64>,
    },
    /// Uploads every file of a folder, one request each.
    UpMany {
        /// Address of the prefix, with its last slash.
        url: String,
        folder: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Downloads every object of one of the store's sets into a folder.
    DownMany {
        /// Address of the set, such as `http://127.0.0.1:9000/bench/set/10000x16KiB/`.
        url: String,
        folder: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Writes a file past the page cache, by one to four threads, and syncs it.
    DiskWrite {
        file: PathBuf,
        #[arg(long, value_parser = size, default_value = "8GiB")]
        size: u64,
    },
    /// Reads a file past the page cache, by one to four threads.
    DiskRead {
        file: PathBuf,
        /// Read in order through the page cache instead, which is emptied of the file first.
        #[arg(long)]
        buffered: bool,
    },
    /// Runs a command and tells how long it took, its CPU time and its peak memory.
    Measure {
        /// What becomes of the command's standard output.
        #[arg(long, value_enum, default_value_t = measure::Stdout::Null)]
        stdout: measure::Stdout,
        /// Files, or folders whose file system, are synced before the clock stops.
        #[arg(long)]
        sync: Vec<PathBuf>,
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// How the raw clients go about it.
#[derive(clap::Args)]
struct How {
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Size of a part or range.
    #[arg(long, value_parser = size, default_value = "16MiB")]
    part_size: u64,
    /// Certificate authority to trust, for https.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Sums every part: before it is sent, as who names its CRC32 in the head has to, or as it is received.
    #[arg(long)]
    sum: bool,
}

/// What a download is written to.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// A file that was not there before.
    New,
    /// A file that has its pages already.
    Existing,
    /// Received into a buffer and dropped.
    Nothing,
    /// Standard output, in order: a part waits in its buffer for its turn.
    Stdout,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let is_taken = matches!(command, Command::Down { to: To::Stdout, .. });
    match run(command) {
        Ok(json) => {
            if is_taken {
                eprintln!("{json}");
            } else {
                println!("{json}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("brigade-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<Json> {
    match command {
        Command::Serve { port, tls, cert_out } => serve::serve(port, tls, cert_out.as_deref()),
        Command::Up { url, file, how } => client::up(&url, &file, &how),
        Command::Down { url, file, how, to, size } => client::down(&url, &file, &how, to, size),
        Command::UpMany { url, folder, how } => client::up_many(&url, &folder, &how),
        Command::DownMany { url, folder, how } => client::down_many(&url, &folder, &how),
        Command::DiskWrite { file, size } => disk::write(&file, size),
        Command::DiskRead { file, buffered } => disk::read(&file, buffered),
        Command::Measure { stdout, sync, command } => measure::measure(&command, stdout, &sync),
    }
}

fn size(text: &str) -> Result<u64, String> {
    objects::size(text).ok_or_else(|| format!("{text:?} is not a size such as 2GiB"))
}

/// One JSON object, put together field by field: all that is printed here is flat.
#[derive(Default)]
struct Json(String);

impl Json {
    fn number(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.raw(name, &value.to_string())
    }

    fn text(self, name: &str, value: &str) -> Self {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        self.raw(name, &format!("\"{escaped}\""))
    }

    fn list(self, name: &str, values: &[Json]) -> Self {
        let values: Vec<String> = values.iter().map(Json::to_string).collect();
        self.raw(name, &format!("[{}]", values.join(", ")))
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { ", " };
        let _ = write!(self.0, "{comma}\"{name}\": {value}");
        self
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{{{}}}", self.0)
    }
}
