//! Runs a store until standard input ends: for trying other S3 clients against it by hand.
//!
//! ```text
//! serve [--listen ADDRESS] [--folder PATH | --synthetic] [--bucket NAME]... [--key ACCESS:SECRET]...
//!       [--read-only-key ACCESS:SECRET]... [--region NAME] [--tls] [--no-md5]
//! ```
//!
//! Prints the endpoint (and, with `--tls`, the certificate to trust), and the counters at the end.

use std::io::Read;

use brigade_store::{Backend, Credentials, Options, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start(options(std::env::args().skip(1))?)?;
    println!("{}", server.endpoint_url());
    if let Some(pem) = server.ca_pem() {
        println!("{pem}");
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{:#?}", server.stats());
    Ok(())
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--listen" => {
                options.listen = value()?.parse().map_err(|e| format!("--listen: {e}"))?;
            }
            "--folder" => options.backend = Backend::Folder(value()?.into()),
            "--synthetic" => options.backend = Backend::Synthetic,
            "--bucket" => options.buckets.push(value()?),
            "--key" => options.credentials.push(key(&value()?, false)?),
            "--read-only-key" => options.credentials.push(key(&value()?, true)?),
            "--region" => options.region = Some(value()?),
            "--tls" => options.tls = true,
            "--no-md5" => options.md5_etags = false,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(options)
}

fn key(text: &str, read_only: bool) -> Result<Credentials, String> {
    let (access_key, secret_key) = text.split_once(':').ok_or("a key is ACCESS:SECRET")?;
    Ok(Credentials { read_only, ..Credentials::new(access_key, secret_key) })
}
