//! The engine and boto3 at the same embedded store: what one uploads the other must read and prove.

use std::path::PathBuf;

use brigade::integrity::{Algorithm, Verified};
use brigade::{
    ChecksumChoice, CustomerKey, DownloadOptions, Encryption, Object, UploadOptions, Verify,
};
use brigade_store::{Backend, Credentials, Options, Server};
use brigade_tests::boto3::{Boto3, Checksums};
use brigade_tests::cli::{ACCESS_KEY, CUSTOMER_KEY, SECRET_KEY};
use brigade_tests::files;
use brigade_tests::peers::{self, Endpoint, assert_downloads};
use brigade_tests::python::Python;
use futures::executor::block_on;
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const PART: u64 = 5 * MIB;
const BUCKET: &str = "both";

/// S3's names of the algorithms that take a multipart upload of this type.
const FULL_OBJECT: [&str; 3] = ["CRC32", "CRC32C", "CRC64NVME"];
const COMPOSITE: [&str; 4] = ["CRC32", "CRC32C", "SHA1", "SHA256"];

/// An embedded store, and a folder for the files of a test.
struct Store {
    server: Server,
    endpoint: Endpoint,
    folder: TempDir,
}

impl Store {
    fn start(backend: Backend, tls: bool) -> Self {
        let server = Server::start(Options {
            backend,
            credentials: vec![Credentials::new(ACCESS_KEY, SECRET_KEY)],
            buckets: vec![BUCKET.into()],
            tls,
            ..Options::default()
        })
        .expect("a store");
        let folder = peers::folder();
        let ca_bundle = server.ca_pem().map(|pem| {
            let path = folder.path().join("ca.pem");
            std::fs::write(&path, pem).expect("written");
            path
        });
        let endpoint = Endpoint { ca_bundle, ..Endpoint::new(server.endpoint_url()) };
        Self { server, endpoint, folder }
    }

    /// One for every kind of storage that keeps bytes.
    fn each() -> impl Iterator<Item = (Self, Option<TempDir>)> {
        let data = peers::folder();
        let folder = Backend::Folder(data.path().join("data"));
        [(Backend::Memory, None), (folder, Some(data))]
            .into_iter()
            .map(|(backend, data)| (Self::start(backend, false), data))
    }

    fn object(&self, key: &str) -> Object {
        self.endpoint.session().bucket(BUCKET).object(key)
    }

    fn file(&self, size_bytes: u64, seed: u64) -> PathBuf {
        peers::file(self.folder.path(), size_bytes, seed)
    }

    /// Where boto3 writes what it downloads.
    fn copy(&self) -> PathBuf {
        self.folder.path().join("boto3")
    }

    fn assert_nothing_unfinished(&self) {
        assert_eq!(self.server.stats().unfinished_uploads, 0);
    }
}

#[test]
fn boto3_reads_and_validates_what_the_engine_uploads() {
    let Some(python) = Python::ready_or_skip() else { return };
    for (store, _data) in Store::each() {
        let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
        for algorithm in Algorithm::ALL {
            for size in [0, 1, PART, 2 * PART + 1] {
                let source = store.file(size, 0);
                let key = format!("{algorithm}/{size}");
                let options =
                    UploadOptions { checksum: ChecksumChoice::Use(algorithm), ..in_parts() };
                let report = block_on(store.object(&key).upload_file_with(&source, options))
                    .unwrap_or_else(|error| panic!("{key}: {error}"));
                let tier = ours(algorithm, size);
                assert_eq!(report.verified, tier, "{key}");

                let read = boto3.get(BUCKET, &key, &store.copy(), &json!({}));
                files::assert_same(&source, &store.copy());
                // boto3 has no way to validate a checksum of parts' checksums. Under an MD5 there
                // is the sum that the store makes of its own accord.
                assert_eq!(read["validated"], tier != Verified::Composite, "{key}: {read}");
                boto3.download(BUCKET, &key, &store.copy(), &json!({}));
                files::assert_same(&source, &store.copy());
            }
        }
        store.assert_nothing_unfinished();
    }
}

#[test]
fn every_size_goes_both_ways() {
    let Some(python) = Python::ready_or_skip() else { return };
    for (store, _data) in Store::each() {
        let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
        for size in peers::sizes(PART) {
            let source = store.file(size, 1);
            let ours = block_on(store.object("ours").upload_file_with(&source, in_parts()))
                .unwrap_or_else(|error| panic!("{size} bytes: {error}"));
            assert_eq!(ours.verified, Verified::FullObject, "{size} bytes");
            boto3.get(BUCKET, "ours", &store.copy(), &json!({}));
            files::assert_same(&source, &store.copy());

            boto3.upload(BUCKET, "theirs", &source, PART, &json!({}));
            let theirs =
                assert_downloads(&store.object("theirs"), &source, &DownloadOptions::default());
            assert_eq!(theirs, of_transfer_manager(size, PART), "{size} bytes");
        }
        store.assert_nothing_unfinished();
    }
}

#[test]
fn the_engine_proves_boto3s_uploads_with_every_algorithm() {
    let Some(python) = Python::ready_or_skip() else { return };
    for (store, _data) in Store::each() {
        let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
        for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] {
            for size in [0, PART + 1] {
                let (source, key) = (store.file(size, 2), format!("{algorithm}/{size}"));
                let extra = json!({ "ChecksumAlgorithm": algorithm });
                boto3.put(BUCKET, &key, &source, &extra);
                let tier =
                    assert_downloads(&store.object(&key), &source, &DownloadOptions::default());
                assert_eq!(tier, Verified::FullObject, "{key}");

                boto3.upload(BUCKET, &key, &source, PART, &extra);
                let joined = size < PART || algorithm == "CRC64NVME";
                let expected = if joined { Verified::FullObject } else { Verified::Composite };
                let tier =
                    assert_downloads(&store.object(&key), &source, &DownloadOptions::default());
                assert_eq!(tier, expected, "{key}, by the transfer manager");
            }
        }
    }
}

#[test]
fn the_engine_proves_boto3s_multipart_uploads_of_every_kind() {
    let Some(python) = Python::ready_or_skip() else { return };
    for (store, _data) in Store::each() {
        let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
        let full_object = FULL_OBJECT.map(|name| (name, "FULL_OBJECT", Verified::FullObject));
        let composite = COMPOSITE.map(|name| (name, "COMPOSITE", Verified::Composite));
        let source = store.file(3 * PART + 1, 3);
        let [usual, ambiguous, irregular] = shapes();
        // One kind that is joined, one that can be summed in any order, one that cannot.
        let unequal = [full_object[1], composite[0], composite[3]];
        let cases = full_object.into_iter().chain(composite).map(|kind| (&usual, kind));
        let cases = cases.chain(unequal.map(|kind| (&ambiguous, kind)));
        for (sizes, (algorithm, kind, tier)) in cases.chain(unequal.map(|kind| (&irregular, kind)))
        {
            let checksum = Some((algorithm, kind));
            boto3.multipart(BUCKET, "parts", &source, sizes, checksum, &json!({}));
            let downloaded =
                assert_downloads(&store.object("parts"), &source, &DownloadOptions::default());
            assert_eq!(downloaded, tier, "{algorithm} {kind}, parts of {sizes:?}");
        }
        store.assert_nothing_unfinished();
    }
}

#[test]
fn without_a_checksum_of_boto3s_the_stores_own_is_proof() {
    let Some(python) = Python::ready_or_skip() else { return };
    for (store, _data) in Store::each() {
        let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenRequired);
        let none = json!({});
        for size in [0, 1, PART] {
            let source = store.file(size, 4);
            boto3.put(BUCKET, "single", &source, &none);
            let tier =
                assert_downloads(&store.object("single"), &source, &DownloadOptions::default());
            assert_eq!(tier, Verified::FullObject, "{size} bytes");
        }
        let source = store.file(3 * PART + 1, 4);
        for sizes in shapes() {
            boto3.multipart(BUCKET, "parts", &source, &sizes, None, &none);
            let tier =
                assert_downloads(&store.object("parts"), &source, &DownloadOptions::default());
            assert_eq!(tier, Verified::FullObject, "parts of {sizes:?}");
        }
        // What the engine uploads with its checksum is fine for such a client too.
        block_on(store.object("ours").upload_file_with(&source, in_parts())).expect("uploaded");
        boto3.get(BUCKET, "ours", &store.copy(), &none);
        files::assert_same(&source, &store.copy());
    }
}

#[test]
fn customer_keys_and_attributes_go_both_ways_over_tls() {
    let Some(python) = Python::ready_or_skip() else { return };
    let store = Store::start(Backend::Memory, true);
    let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
    let key = CustomerKey::parse(CUSTOMER_KEY.as_bytes()).expect("a key");
    let with_key = json!({ "SSECustomerAlgorithm": "AES256", "SSECustomerKey": CUSTOMER_KEY });
    let with_attributes = |extra: &Value| {
        let mut extra = extra.clone();
        extra["ContentType"] = "application/x-brigade".into();
        extra["Metadata"] = json!({ "origin": "a, b; c" });
        extra
    };
    let downloading =
        DownloadOptions { customer_key: Some(key.clone()), ..DownloadOptions::default() };
    for size in [1, 2 * PART + 1] {
        let source = store.file(size, 5);
        let options = UploadOptions {
            encryption: Encryption::Customer(key.clone()),
            content_type: Some("application/x-brigade".into()),
            metadata: [("origin".to_owned(), "a, b; c".to_owned())].into(),
            ..in_parts()
        };
        let report = block_on(store.object("ours").upload_file_with(&source, options));
        assert_eq!(report.expect("uploaded").verified, Verified::FullObject);
        let read = boto3.get(BUCKET, "ours", &store.copy(), &with_key);
        files::assert_same(&source, &store.copy());
        assert_eq!(read["ContentType"], "application/x-brigade");
        assert_eq!(read["Metadata"]["origin"], "a, b; c");
        boto3.download(BUCKET, "ours", &store.copy(), &with_key);
        files::assert_same(&source, &store.copy());

        boto3.upload(BUCKET, "theirs", &source, PART, &with_attributes(&with_key));
        let object = store.object("theirs");
        let tier = assert_downloads(&object, &source, &downloading);
        assert_eq!(tier, of_transfer_manager(size, PART));
        let info = block_on(object.info_of(None, Some(key.clone()))).expect("it is there");
        assert_eq!(info.content_type.as_deref(), Some("application/x-brigade"));
        assert_eq!(info.metadata.get("origin").map(String::as_str), Some("a, b; c"));
        assert_eq!(info.encryption.as_deref(), Some("SSE-C"));

        // Part by part, where every request must carry the key.
        if size > PART {
            let (sizes, checksum) = ([PART + 1, PART], Some(("SHA256", "COMPOSITE")));
            boto3.multipart(BUCKET, "parts", &source, &sizes, checksum, &with_key);
            let tier = assert_downloads(&store.object("parts"), &source, &downloading);
            assert_eq!(tier, Verified::Composite);
        }
        // Without the key there is nothing to be had.
        let target = store.folder.path().join("never");
        block_on(store.object("theirs").download_file(&target)).expect_err("no key");
        assert!(!target.exists());
    }
}

#[test]
fn a_gibibyte_goes_both_ways() {
    let Some(python) = Python::ready_or_skip() else { return };
    let data = peers::folder();
    let store = Store::start(Backend::Folder(data.path().join("data")), false);
    let mut boto3 = Boto3::new(&python, &store.endpoint, Checksums::WhenSupported);
    let source = store.file(1024 * MIB + 1, 6);
    let options = UploadOptions { verify: Verify::Require, ..UploadOptions::default() };
    let report = block_on(store.object("large").upload_file_with(&source, options));
    assert_eq!(report.expect("uploaded").verified, Verified::FullObject);
    let read = boto3.get(BUCKET, "large", &store.copy(), &json!({}));
    assert_eq!(read["validated"], true);
    files::assert_same(&source, &store.copy());

    boto3.upload(BUCKET, "large", &source, 16 * MIB, &json!({}));
    let copy = store.copy();
    let proven = DownloadOptions { verify: Verify::Require, ..DownloadOptions::default() };
    let report = block_on(store.object("large").download_file_with(&copy, proven));
    assert_eq!(report.expect("downloaded").verified, Verified::Composite);
    files::assert_same(&source, &copy);
}

/// Ways to cut `3 * PART + 1` bytes: as most clients do; with a first part that says nothing of the
/// others although their number would fit; and with one where even that does not.
fn shapes() -> [Vec<u64>; 3] {
    [vec![PART, PART, PART, 1], vec![PART + MIB, PART, PART - MIB + 1], vec![PART, 2 * PART + 1]]
}

/// What the engine's uploads to this store are proven by.
fn ours(algorithm: Algorithm, size_bytes: u64) -> Verified {
    match algorithm {
        Algorithm::Md5 => Verified::Md5,
        Algorithm::Sha1 | Algorithm::Sha256 if size_bytes > PART => Verified::Composite,
        _ => Verified::FullObject,
    }
}

/// What there is to compare of an upload by boto3's transfer manager, which asks for a CRC32 and not
/// for its type: parts, from that size on, get one over their checksums.
fn of_transfer_manager(size_bytes: u64, threshold_bytes: u64) -> Verified {
    if size_bytes < threshold_bytes { Verified::FullObject } else { Verified::Composite }
}

fn in_parts() -> UploadOptions {
    UploadOptions {
        part_size_bytes: Some(PART),
        verify: Verify::Require,
        ..UploadOptions::default()
    }
}
