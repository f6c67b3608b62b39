//! `brigade serve`: the embedded store, until a signal ends it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use brigade::ErrorKind;
use brigade_store::Server;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::block_on;
use crate::args::ServeArgs;
use crate::failure::Usage;
use crate::meaning::Service;
use crate::printer::Printer;
use crate::signals::{Signals, Stopped};

/// What a client needs to know; the one object that `--json` prints.
#[derive(Serialize)]
struct Serving {
    endpoint_url: String,
    address: SocketAddr,
    access_key_id: String,
    secret_access_key: String,
    region: String,
    /// File with the authority that vouches for the store, with `--tls`.
    ca_bundle: Option<PathBuf>,
    buckets: Vec<String>,
}

pub(super) fn run(args: ServeArgs, printer: &mut Printer) -> Result<()> {
    let service = Service::from_args(args)?;
    for warning in &service.warnings {
        printer.warning(warning);
    }
    block_on(async {
        // Before the store starts, so that no signal from here on skips the clean-up.
        let mut signals = Signals::watch()?;
        let buckets = service.options.buckets.clone();
        let server = start(service.options)?;
        // Removed again when dropped.
        let authority = server.ca_pem().map(authority_file).transpose()?;
        let serving = Serving {
            endpoint_url: server.endpoint_url(),
            address: server.address(),
            access_key_id: service.keys.access,
            secret_access_key: service.keys.secret,
            region: service.region,
            ca_bundle: authority.as_ref().map(|file| file.path().to_owned()),
            buckets,
        };
        printer.result(&exports(&serving), "serving", &serving);
        printer.notice(&format!("serving {}; stop with Ctrl-C", serving.endpoint_url));
        signals.next().await;
        stop(server, &mut signals).await
    })
}

/// Starts a store, with errors that say what to do.
pub(super) fn start(options: brigade_store::Options) -> Result<Server> {
    use brigade_store::Error;
    Server::start(options).map_err(|error| match error {
        Error::Listen { address, source } => listen_error(address, source).into(),
        Error::Folder { path, source } => {
            let wrong_kind = source.kind() == std::io::ErrorKind::NotADirectory;
            let error = brigade::Error::io("use as the store's folder", &path, source);
            let advised = if wrong_kind { error.advise("name a folder") } else { error };
            advised.into()
        }
        Error::BucketName(_) => Usage::error(error.to_string()),
        // The message holds its causes already; as a chain they would be said twice.
        other => anyhow::anyhow!("{other}"),
    })
}

fn listen_error(address: SocketAddr, source: std::io::Error) -> brigade::Error {
    use std::io::ErrorKind as Os;
    let (kind, detail, advice) = match source.kind() {
        Os::AddrInUse => (
            ErrorKind::Io,
            "the port is taken",
            "choose another --port, or --port 0 for any free one",
        ),
        Os::AddrNotAvailable => {
            (ErrorKind::Io, "this machine has no such address", "give one of its own to --bind")
        }
        Os::PermissionDenied => (
            ErrorKind::AccessDenied,
            "ports below 1024 are for the superuser",
            "choose a higher --port",
        ),
        _ => (ErrorKind::Io, "the system refuses", "choose another --bind or --port"),
    };
    let error = brigade::Error::new(kind, "listen on", address.to_string(), detail);
    error.advise(advice).caused_by(source)
}

fn authority_file(pem: &str) -> Result<NamedTempFile> {
    let write = || {
        let mut file = tempfile::Builder::new().prefix("brigade-ca-").suffix(".pem").tempfile()?;
        file.write_all(pem.as_bytes())?;
        std::io::Result::Ok(file)
    };
    write().context(
        "cannot write the certificate to a temporary file; set TMPDIR to a folder with room",
    )
}

/// Waits until everything is on disk; a second signal waits no longer.
async fn stop(server: Server, signals: &mut Signals) -> Result<()> {
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    tokio::select! {
        stopped = stopping => stopped.context("the store did not stop in order"),
        exit = signals.next() => {
            let message = "left before everything was on disk, on a second signal".into();
            Err(Stopped { exit, message }.into())
        }
    }
}

/// Lines for a shell, and nothing else, so that they can be pasted or evaluated.
fn exports(serving: &Serving) -> String {
    let ca_bundle = serving.ca_bundle.as_ref().map(|path| path.display().to_string());
    let variables = [
        ("AWS_ACCESS_KEY_ID", Some(serving.access_key_id.as_str())),
        ("AWS_SECRET_ACCESS_KEY", Some(&serving.secret_access_key)),
        ("AWS_REGION", Some(&serving.region)),
        ("AWS_ENDPOINT_URL_S3", Some(&serving.endpoint_url)),
        ("AWS_CA_BUNDLE", ca_bundle.as_deref()),
    ];
    let lines: Vec<_> = variables
        .into_iter()
        .filter_map(|(name, value)| Some(format!("export {name}={}", shell_quoted(value?))))
        .collect();
    lines.join("\n")
}

/// `text` as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(ca_bundle: Option<PathBuf>) -> Serving {
        Serving {
            endpoint_url: "https://127.0.0.1:9000".into(),
            address: ([127, 0, 0, 1], 9000).into(),
            access_key_id: "KEY".into(),
            secret_access_key: "it's $ecret".into(),
            region: "us-east-1".into(),
            ca_bundle,
            buckets: Vec::new(),
        }
    }

    #[test]
    fn exports_survive_a_shell() {
        assert_eq!(
            exports(&serving(Some("/tmp/a b.pem".into()))),
            "export AWS_ACCESS_KEY_ID=KEY\n\
             export AWS_SECRET_ACCESS_KEY='it'\\''s $ecret'\n\
             export AWS_REGION=us-east-1\n\
             export AWS_ENDPOINT_URL_S3=https://127.0.0.1:9000\n\
             export AWS_CA_BUNDLE='/tmp/a b.pem'"
        );
        assert!(!exports(&serving(None)).contains("AWS_CA_BUNDLE"));
        assert_eq!(shell_quoted(""), "''");
    }

    #[test]
    fn a_taken_port_says_what_to_do() {
        let taken = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let said = listen_error(([127, 0, 0, 1], 9000).into(), taken).to_string();
        assert_eq!(
            said,
            "listen on 127.0.0.1:9000: the port is taken; choose another --port, or --port 0 for \
             any free one"
        );
    }
}
