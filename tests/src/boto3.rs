//! boto3 as another client of the same store: a Python process that is asked in lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peers::Endpoint;
use crate::python::{Python, script};

/// What boto3 does about checksums that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Its default: a CRC of every upload, validation of every download.
    WhenSupported,
    /// What it did until 2025, and what its users set for stores that fail otherwise.
    WhenRequired,
}

/// A boto3 client.
#[derive(Debug)]
pub struct Boto3 {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    _home: TempDir,
}

impl Boto3 {
    /// A client of the store at `endpoint`.
    pub fn new(python: &Python, endpoint: &Endpoint, checksums: Checksums) -> Self {
        let home = crate::peers::folder();
        let mut process = python
            .command(python.program("python"), home.path())
            .arg(script("client.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the environment has an interpreter");
        let requests = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut client = Self { process, requests, answers, _home: home };
        client.send(&json!({
            "endpoint": endpoint.url,
            "access_key": endpoint.access_key,
            "secret_key": endpoint.secret_key,
            "ca_bundle": endpoint.ca_bundle,
            "checksums": match checksums {
                Checksums::WhenSupported => "when_supported",
                Checksums::WhenRequired => "when_required",
            },
        }));
        client
    }

    /// `put_object` of the file at `path`, with more arguments in boto3's own words.
    pub fn put(&mut self, bucket: &str, key: &str, path: &Path, extra: &Value) -> Value {
        self.ask("put", json!({ "bucket": bucket, "key": key, "path": path, "extra": extra }))
    }

    /// `upload_file`, in parts of `part_size_bytes` from that size on.
    pub fn upload(
        &mut self,
        bucket: &str,
        key: &str,
        path: &Path,
        part_size_bytes: u64,
        extra: &Value,
    ) {
        self.ask(
            "upload",
            json!({
                "bucket": bucket,
                "key": key,
                "path": path,
                "part_size": part_size_bytes,
                "extra": extra,
            }),
        );
    }

    /// A multipart upload call by call, in parts of exactly `sizes`, with the checksum of that
    /// algorithm and type (in S3's words) or none.
    pub fn multipart(
        &mut self,
        bucket: &str,
        key: &str,
        path: &Path,
        sizes: &[u64],
        checksum: Option<(&str, &str)>,
        extra: &Value,
    ) -> Value {
        let (algorithm, kind) = checksum.unzip();
        self.ask(
            "multipart",
            json!({
                "bucket": bucket,
                "key": key,
                "path": path,
                "sizes": sizes,
                "algorithm": algorithm,
                "kind": kind,
                "extra": extra,
            }),
        )
    }

    /// `get_object` of all of it into the file at `path`. The answer's `validated` tells whether
    /// boto3 held the bytes against a checksum of the store's.
    pub fn get(&mut self, bucket: &str, key: &str, path: &Path, extra: &Value) -> Value {
        self.ask("get", json!({ "bucket": bucket, "key": key, "path": path, "extra": extra }))
    }

    /// `download_file`, in ranges.
    pub fn download(&mut self, bucket: &str, key: &str, path: &Path, extra: &Value) {
        self.ask("download", json!({ "bucket": bucket, "key": key, "path": path, "extra": extra }));
    }

    /// `head_object`.
    pub fn head(&mut self, bucket: &str, key: &str, extra: &Value) -> Value {
        self.ask("head", json!({ "bucket": bucket, "key": key, "extra": extra }))
    }

    /// Keys of the multipart uploads that were neither completed nor aborted.
    pub fn unfinished(&mut self, bucket: &str) -> Vec<String> {
        let keys = self.ask("unfinished", json!({ "bucket": bucket }));
        serde_json::from_value(keys).expect("keys")
    }

    /// Asks, and fails with boto3's own words if it failed.
    fn ask(&mut self, operation: &str, mut request: Value) -> Value {
        request["operation"] = operation.into();
        self.send(&request);
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let mut answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("boto3 answered {line:?} to {request}: {error}"));
        assert!(answer.get("ok").is_some(), "boto3 failed at {request}: {}", answer["error"]);
        answer["ok"].take()
    }

    fn send(&mut self, line: &Value) {
        writeln!(self.requests, "{line}").expect("boto3 listens");
    }
}

impl Drop for Boto3 {
    fn drop(&mut self) {
        // It has nothing to put away.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
