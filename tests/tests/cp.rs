//! `brigade cp` where all goes well: what it moves, what it says, whom it listens to.

use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use brigade::ObjectInfo;
use brigade_store::{Backend, Credentials, Options, synthetic};
use brigade_tests::cli::{
    ACCESS_KEY, BUCKET, Brigade, CUSTOMER_KEY, PART, Run, SECRET_KEY, Sandbox, binary,
};
use brigade_tests::files::{self, assert_same};
use brigade_tests::relay::{Fate, Relay};
use futures::executor::block_on;
use serde_json::Value;

fn info(sandbox: &Sandbox, key: &str) -> ObjectInfo {
    block_on(sandbox.session().bucket(BUCKET).object(key).info()).expect("the object is there")
}

/// The events of a run in their order, each kind once.
fn kinds(run: &Run) -> Vec<String> {
    let mut kinds: Vec<_> =
        run.json().iter().map(|line| line["event"].as_str().unwrap_or("").to_owned()).collect();
    kinds.dedup();
    kinds
}

#[test]
fn every_size_goes_up_and_comes_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::Folder(folder.path().join("store"));
    let sandbox = Sandbox::with(Options { backend, ..Sandbox::options() });
    for size in [0, 1, PART - 1, PART, PART + 1, 10 * PART] {
        let file = sandbox.file(format!("f{size}"), size);
        let up = sandbox.cp(&format!("f{size} s3://bucket/ --part-size 5MiB --json")).run();
        let up = up.report();
        let parts = size.div_ceil(PART).max(1);
        assert_eq!(up["operation"], "upload");
        assert_eq!(up["bytes"], size);
        assert_eq!(up["parts"], parts, "{up}");
        assert_eq!(up["verified"], "full-object", "{up}");
        assert_eq!(up["target"], format!("s3://bucket/f{size}"));
        let down = sandbox.cp(&format!("s3://bucket/f{size} c{size} --json")).run().report();
        assert_eq!(down["operation"], "download");
        assert_eq!((&down["bytes"], &down["verified"]), (&up["bytes"], &up["verified"]), "{down}");
        assert_eq!((&down["checksum"], &down["etag"]), (&up["checksum"], &up["etag"]), "{down}");
        assert_same(&file, &sandbox.path(format!("c{size}")));
    }
    sandbox.assert_clean();
}

#[test]
fn a_gibibyte_goes_up_and_comes_down() {
    let options = Options { md5_etags: false, ..Sandbox::options() };
    let sandbox = Sandbox::with(options);
    let file = sandbox.file("f", (1 << 30) + 12_345);
    let up = sandbox.cp("f s3://bucket/f --json --no-progress").run().report();
    assert_eq!(
        (&up["bytes"], &up["verified"]),
        (&((1 << 30) + 12_345).into(), &"full-object".into())
    );
    let down = sandbox.cp("s3://bucket/f copy --json --no-progress").run().report();
    assert_eq!(down["checksum"], up["checksum"]);
    assert_same(&file, &sandbox.path("copy"));
    sandbox.assert_clean();
}

#[test]
fn every_checksum_is_sent_and_proves_the_object() {
    let sandbox = Sandbox::new();
    sandbox.file("one", 100_000);
    sandbox.file("many", 2 * PART + 1);
    let cases = [
        ("crc32", "full-object", "FULL_OBJECT"),
        ("CRC32C", "full-object", "FULL_OBJECT"),
        ("crc64nvme", "full-object", "FULL_OBJECT"),
        ("sha1", "composite", "COMPOSITE"),
        ("SHA256", "composite", "COMPOSITE"),
        ("md5", "md5", "COMPOSITE"),
    ];
    for (name, proof, kind) in cases {
        for file in ["one", "many"] {
            let line = format!(
                "{file} s3://bucket/{name} --checksum-algorithm {name} --part-size 5MiB --verify \
                 require --json"
            );
            let up = sandbox.cp(&line).run().report();
            let whole = file == "one" && proof != "md5";
            assert_eq!(up["verified"], if whole { "full-object" } else { proof }, "{up}");
            assert_eq!(up["checksum"]["algorithm"], name.to_lowercase(), "{up}");
            let expected = if file == "one" { "FULL_OBJECT" } else { kind };
            assert_eq!(up["checksum"]["type"], expected, "{up}");
            let line = format!("s3://bucket/{name} copy --verify require --json");
            let down = sandbox.cp(&line).run().report();
            assert_ne!(down["verified"], "unverified", "{down}");
            assert_same(&sandbox.path(file), &sandbox.path("copy"));
        }
    }
}

#[test]
fn no_checksum_is_a_choice_that_is_told() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
    let run = sandbox.cp("f s3://bucket/f --checksum-algorithm none").endpoint(relay.url()).run();
    let run = run.succeeded();
    assert_eq!(run.stderr, "brigade: warning: unverified: no checksum was sent\n");
    assert!(run.text().ends_with(", unverified: no checksum was sent\n"), "{run}");
    for request in relay.seen() {
        let sent = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]
            .iter()
            .any(|sum| request.header(&format!("x-amz-checksum-{sum}")).is_some());
        assert!(!sent && request.header("content-md5").is_none(), "{request:?}");
    }
    let said = sandbox.cp("f s3://bucket/g --checksum-algorithm none --verify require").run();
    assert_eq!(
        said.failed(2),
        "upload to s3://bucket/g: proof is required, and without a checksum there is none; use \
         --checksum-algorithm md5"
    );
}

#[test]
fn verification_can_be_turned_off() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 2 * PART);
    let up = sandbox.cp("f s3://bucket/f --verify off --json").run().report();
    assert_eq!((&up["verified"], &up["warnings"]), (&"unverified".into(), &Value::Array(vec![])));
    let down = sandbox.cp("s3://bucket/f copy --verify off --json").run().report();
    assert_eq!(down["verified"], "unverified");
    assert_same(&file, &sandbox.path("copy"));
    let said = sandbox.cp("s3://bucket/f copy --verify off").run().succeeded_silently();
    assert!(said.text().ends_with(", unverified\n"), "{said}");
}

#[test]
fn parts_and_concurrency_are_as_asked() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 8 * PART);
    let line = "f s3://bucket/f --part-size 10M --concurrency 2 --json";
    let run = sandbox.cp(line).run().succeeded();
    let in_flight = run.json().iter().filter_map(|line| line["parts_in_flight"].as_u64()).max();
    assert!(in_flight.is_none_or(|most| most <= 2), "{run}");
    let report = run.report();
    assert_eq!(report["part_size_bytes"], 10 << 20);
    assert_eq!((&report["parts"], &report["concurrency"]), (&4.into(), &2.into()));
    let line = "s3://bucket/f copy --part-size 1MiB --concurrency 3 --json";
    let report = sandbox.cp(line).run().report();
    assert_eq!((&report["parts"], &report["concurrency"]), (&40.into(), &3.into()));
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
}

#[test]
fn if_none_match_creates_and_never_replaces() {
    let sandbox = Sandbox::new();
    for size in [100, 3 * PART] {
        let key = format!("s3://bucket/{size}");
        sandbox.file("first", size);
        sandbox.file("second", size + 1);
        let create = |file: &str| {
            sandbox.cp(&format!("{file} {key} --part-size 5MiB --if-none-match")).run()
        };
        create("first").succeeded_silently();
        assert_eq!(
            create("second").failed(6),
            format!(
                "upload to {key}: the object exists already; leave out --if-none-match to replace it"
            )
        );
        sandbox.cp(&format!("{key} copy")).run().succeeded();
        assert_same(&sandbox.path("first"), &sandbox.path("copy"));
    }
    sandbox.assert_clean();
}

#[test]
fn what_an_object_is_stored_with_is_as_asked() {
    let sandbox = Sandbox::new();
    for (name, size) in [("one.json", 10), ("many.json", 2 * PART)] {
        sandbox.file(name, size);
        let line = format!(
            "{name} s3://bucket/ --part-size 5MiB --storage-class GLACIER_IR --metadata \
             Team=red,site=x=y --metadata {{\"note\":\"a,b\"}} --sse aws:kms --sse-kms-key-id \
             alias/test"
        );
        sandbox.cp(&line).run().succeeded();
        let stored = info(&sandbox, name);
        assert_eq!(stored.storage_class.as_deref(), Some("GLACIER_IR"));
        assert_eq!(stored.content_type.as_deref(), Some("application/json"));
        assert_eq!(stored.encryption.as_deref(), Some("aws:kms"));
        let metadata = |name: &str| stored.metadata.get(name).map(String::as_str);
        assert_eq!(metadata("team"), Some("red"));
        assert_eq!(metadata("site"), Some("x=y"));
        assert_eq!(metadata("note"), Some("a,b"));
        let line = format!("{name} s3://bucket/given --content-type text/x-test --sse");
        sandbox.cp(&line).run().succeeded();
        let stored = info(&sandbox, "given");
        assert_eq!(stored.content_type.as_deref(), Some("text/x-test"));
        assert_eq!(stored.encryption.as_deref(), Some("AES256"));
        assert_eq!(stored.storage_class, None);
    }
    sandbox.file("nameless", 10);
    sandbox.cp("nameless s3://bucket/").run().succeeded();
    let guessed = info(&sandbox, "nameless").content_type;
    assert!(guessed.is_none_or(|kind| kind.ends_with("/octet-stream")));
}

#[test]
fn the_kms_key_goes_along() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
    let line = "f s3://bucket/f --sse aws:kms --sse-kms-key-id alias/test";
    sandbox.cp(line).endpoint(relay.url()).run().succeeded();
    let puts: Vec<_> =
        relay.seen().into_iter().filter(|request| request.operation() == "PutObject").collect();
    let header = |name| puts[0].header(name).map(str::to_owned);
    assert_eq!(puts.len(), 1);
    assert_eq!(header("x-amz-server-side-encryption").as_deref(), Some("aws:kms"));
    let key = header("x-amz-server-side-encryption-aws-kms-key-id");
    assert_eq!(key.as_deref(), Some("alias/test"));
}

#[test]
fn a_customers_key_comes_from_a_file_or_a_variable() {
    let sandbox = Sandbox::with_tls();
    let with_key = |line: &str| {
        sandbox.cp(line).env("AWS_CA_BUNDLE", sandbox.ca_bundle()).env("KEY", CUSTOMER_KEY)
    };
    std::fs::write(sandbox.path("key"), format!("{CUSTOMER_KEY}\n")).expect("written");
    std::fs::write(sandbox.path("raw"), "secret of the tests, two of them").expect("written");
    std::fs::write(sandbox.path("wrong"), [7; 32]).expect("written");
    for size in [1_000, 2 * PART + 1] {
        sandbox.file("f", size);
        let up = "f s3://bucket/f --sse-c-key-file key --part-size 5MiB --verify require";
        with_key(up).run().succeeded_silently();
        for source in ["--sse-c-key-env KEY", "--sse-c-key-file raw"] {
            let line = format!("s3://bucket/f copy --verify require --json {source}");
            let report = with_key(&line).run().report();
            assert_eq!(report["verified"], "full-object");
            assert_same(&sandbox.path("f"), &sandbox.path("copy"));
        }
    }
    let said = with_key("s3://bucket/f x --sse-c-key-file wrong").run().failed(5);
    assert!(said.starts_with("download s3://bucket/f: access denied"), "{said}");
    let said = with_key("s3://bucket/f x").run().failed(1);
    assert_eq!(
        said,
        "download s3://bucket/f: the store answered with status 400; if it was stored with SSE-C, \
         give its key"
    );
    sandbox.assert_clean();
}

#[test]
fn a_customers_key_never_crosses_a_plain_network() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let refusal = "an SSE-C key must not cross the network unencrypted; use an https:// endpoint";
    for (line, what) in [("f s3://bucket/f", "upload to"), ("s3://bucket/f f", "download")] {
        let run = sandbox.cp(&format!("{line} --sse-c-key-env KEY")).env("KEY", CUSTOMER_KEY).run();
        assert_eq!(run.failed(2), format!("{what} s3://bucket/f: {refusal}"));
    }
    assert_eq!(sandbox.store().stats().requests.len(), 0);
}

#[test]
fn a_public_bucket_needs_no_credentials() {
    let sandbox = Sandbox::with(Options { credentials: vec![], ..Sandbox::options() });
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
    let anonymous = |line: &str| {
        let run = sandbox.cp(line).args(["--no-sign-request"]).endpoint(relay.url());
        run.without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY").run()
    };
    anonymous("f s3://bucket/f --part-size 5MiB").succeeded_silently();
    anonymous("s3://bucket/f copy").succeeded_silently();
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
    assert!(relay.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_certificate_is_checked_against_the_given_authority() {
    let sandbox = Sandbox::with_tls();
    sandbox.file("f", PART + 1);
    let bundle = sandbox.ca_bundle();
    let given = format!("f s3://bucket/f --part-size 5MiB --ca-bundle {}", bundle.display());
    sandbox.cp(&given).run().succeeded_silently();
    sandbox.cp("s3://bucket/f copy").env("AWS_CA_BUNDLE", &bundle).run().succeeded_silently();
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));

    let other = Sandbox::with_tls();
    let run = sandbox.cp("s3://bucket/f x").env("AWS_CA_BUNDLE", other.ca_bundle()).run();
    assert_eq!(
        run.failed(8),
        "download s3://bucket/f: the server's certificate is not trusted (another authority of the same \
         name signed it); give the authority's certificate with --ca-bundle or AWS_CA_BUNDLE"
    );
    let run = sandbox.cp("s3://bucket/f copy2 --no-verify-ssl").run().succeeded();
    assert_eq!(
        run.stderr,
        "brigade: warning: the store's certificate is not checked (--no-verify-ssl): anyone on the \
         way can read and change what is moved\n"
    );
    assert_same(&sandbox.path("f"), &sandbox.path("copy2"));
}

#[test]
fn https_goes_through_a_tunnel() {
    let sandbox = Sandbox::with_tls();
    sandbox.file("f", PART + 1);
    let proxy = Relay::new(sandbox.store(), |_| Fate::Pass);
    let through = |line: &str| {
        sandbox.cp(line).env("AWS_CA_BUNDLE", sandbox.ca_bundle()).env("HTTPS_PROXY", proxy.url())
    };
    through("f s3://bucket/f --part-size 5MiB").run().succeeded_silently();
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.method == "CONNECT"), "{seen:?}");
    let around = through("s3://bucket/f copy").env("NO_PROXY", "127.0.0.1").run();
    around.succeeded_silently();
    assert_eq!(proxy.seen().len(), seen.len());
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
}

#[test]
fn http_goes_to_a_proxy_in_absolute_form() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PART + 1);
    let proxy = Relay::new(sandbox.store(), |_| Fate::Pass);
    let through = |line: &str| sandbox.cp(line).env("HTTP_PROXY", proxy.url());
    through("f s3://bucket/f --part-size 5MiB").run().succeeded_silently();
    let seen = proxy.seen();
    assert!(proxy.count("UploadPart") == 2 && seen.iter().all(|request| request.proxied));
    through("s3://bucket/f copy").env("NO_PROXY", "*").run().succeeded_silently();
    through("s3://bucket/f copy").env("REQUEST_METHOD", "GET").run().succeeded_silently();
    assert_eq!(proxy.seen().len(), seen.len());
    let run = sandbox.cp("s3://bucket/f x").env("http_proxy", "http://me:hidden@127.0.0.1:1").run();
    let said = run.failed(8);
    assert!(said.contains("proxy 127.0.0.1:1: connection refused"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
}

#[test]
fn the_nearest_endpoint_wins() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let nobody = "http://127.0.0.1:1";
    let (here, bare) = (sandbox.store().endpoint_url(), sandbox.cp("f s3://bucket/a"));
    let general = bare.without_env("AWS_ENDPOINT_URL_S3").env("AWS_ENDPOINT_URL", &here);
    general.run().succeeded_silently();
    let own = sandbox.cp("f s3://bucket/b").env("AWS_ENDPOINT_URL", nobody);
    own.run().succeeded_silently();
    let option = format!("f s3://bucket/c --endpoint-url {here}");
    sandbox.cp(&option).endpoint(nobody).env("AWS_ENDPOINT_URL", nobody).run().succeeded_silently();
}

#[test]
fn a_profile_of_the_aws_configuration_says_where_and_who() {
    let region = Some("eu-test-1".to_owned());
    let sandbox = Sandbox::with(Options { region, ..Sandbox::options() });
    sandbox.file("f", PART + 1);
    let mut config = String::new();
    let endpoint = sandbox.store().endpoint_url();
    write!(config, "[profile mine]\nregion = eu-test-1\nendpoint_url = {endpoint}\n")
        .expect("text");
    let keys =
        format!("[mine]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(sandbox.path("config"), config).expect("written");
    std::fs::write(sandbox.path("credentials"), keys).expect("written");
    let configured = |line: &str| {
        Brigade::new(&sandbox.folder(), ["cp"].into_iter().chain(line.split_whitespace()))
            .dir(sandbox.folder())
            .env("AWS_CONFIG_FILE", "config")
            .env("AWS_SHARED_CREDENTIALS_FILE", "credentials")
    };
    configured("f s3://bucket/f --profile mine").run().succeeded_silently();
    configured("s3://bucket/f copy").env("AWS_PROFILE", "mine").run().succeeded_silently();
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
}

#[test]
fn a_success_is_one_line() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    for options in ["", "--no-progress"] {
        let line = format!("f s3://bucket/f --part-size 5MiB {options}");
        let run = sandbox.cp(&line).run().succeeded_silently();
        let text = run.text();
        let (start, proof) = text.split_once(" in ").expect("a line");
        assert_eq!(start, "uploaded f to s3://bucket/f: 15.0 MiB");
        assert!(proof.contains(", 3 parts, verified full-object CRC32 "), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
    let run = sandbox.cp("s3://bucket/f .").run().succeeded_silently();
    assert!(run.text().starts_with("downloaded s3://bucket/f to "), "{run}");
    for quiet in ["-q", "--quiet"] {
        let run = sandbox.cp(&format!("s3://bucket/f copy {quiet}")).run().succeeded_silently();
        assert_eq!(run.text(), "");
        let run = sandbox.cp(&format!("s3://bucket/none copy {quiet}")).run();
        assert!(run.failed(4).contains("no such key"));
    }
}

#[test]
fn json_tells_a_transfer_from_start_to_report() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    let run = sandbox.cp("f s3://bucket/f --part-size 5MiB --json").run().succeeded_silently();
    let kinds = kinds(&run);
    assert_eq!(kinds.first().map(String::as_str), Some("started"));
    assert_eq!(kinds.last().map(String::as_str), Some("report"));
    for kind in ["part_started", "part_done", "progress", "finishing", "verifying"] {
        assert!(kinds.iter().any(|known| known == kind), "no {kind}: {run}");
    }
    let progress: Vec<_> =
        run.json().into_iter().filter(|line| line["event"] == "progress").collect();
    let last = progress.last().expect("at least one");
    assert_eq!(
        (&last["bytes_done"], &last["bytes_total"]),
        (&(3 * PART).into(), &(3 * PART).into())
    );
    for field in ["parts_done", "parts_total", "parts_in_flight", "throughput_bytes_per_s"] {
        assert!(last[field].is_u64(), "{field}: {last}");
    }
    let run = sandbox.cp("s3://bucket/f copy --json --no-progress").run().succeeded_silently();
    assert_eq!(self::kinds(&run), ["started", "verifying", "finishing", "report"]);
    let report = run.report();
    assert_eq!(report["target"], "copy");
}

#[test]
fn json_of_a_failure_ends_with_the_error() {
    let sandbox = Sandbox::new();
    let run = sandbox.cp("s3://bucket/none copy --json").run();
    let last = run.json().pop().expect("a line");
    assert_eq!((&last["event"], &last["kind"]), (&"error".into(), &"not_found".into()));
    assert_eq!((&last["exit_code"], &last["advice"]), (&4.into(), &"check the key".into()));
    assert_eq!(last["message"], run.failed(4));
    let run = sandbox.cp("s3://bucket/f copy --json --part-size 5XB").run();
    let last = run.json().pop().expect("a line");
    assert_eq!((&last["kind"], &last["exit_code"]), (&"invalid_input".into(), &2.into()));
}

#[test]
fn verbose_tells_what_begins_and_what_is_repeated() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" if request.attempt == 1 => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/f --part-size 5MiB -v";
    let run = sandbox.cp(line).endpoint(relay.url()).run().succeeded();
    let lines: Vec<_> = run.stderr.lines().collect();
    assert_eq!(lines[0], "brigade: uploading f to s3://bucket/f: 10.0 MiB in 2 parts of 5.0 MiB");
    assert_eq!(lines.len(), 3, "{run}");
    for line in &lines[1..] {
        assert!(line.contains(": attempt 1 failed, again in "), "{line}");
        assert!(line.ends_with(" ms: the store asks for fewer requests"), "{line}");
    }
    assert!(run.text().contains(", 2 repeated attempts, verified full-object"), "{run}");
}

#[test]
fn standard_output_gets_the_bytes_in_order() {
    let size = 96 << 20;
    let sandbox = Sandbox::with(Options { backend: Backend::Synthetic, ..Sandbox::options() });
    let mut run = sandbox.cp("s3://bucket/96MiB - --concurrency 4").start_raw();
    let mut stdout = run.stdout.take().expect("piped");
    let (mut got, mut expected, mut offset) = (vec![0; 1 << 20], vec![0; 1 << 20], 0_u64);
    while offset < size {
        stdout.read_exact(&mut got).expect("more bytes");
        synthetic::fill(offset, &mut expected);
        assert!(got == expected, "the bytes differ after {offset}");
        offset += got.len() as u64;
    }
    assert_eq!(stdout.read(&mut got).expect("the end"), 0);
    assert!(run.wait().expect("a child").success());
}

#[test]
fn what_is_told_goes_to_standard_error_when_the_object_takes_the_other() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", PART + 3);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    let run = sandbox.cp("s3://bucket/f -").run().succeeded();
    assert!(run.stdout == std::fs::read(&file).expect("read"));
    assert!(run.stderr.starts_with("downloaded s3://bucket/f to -: 5.0 MiB in "), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1);
    let run = sandbox.cp("s3://bucket/f - --json").run().succeeded();
    assert!(run.stdout == std::fs::read(&file).expect("read"));
    let last = run.json_on_stderr().pop().expect("a line");
    assert_eq!((&last["event"], &last["target"]), (&"report".into(), &"-".into()));
    assert_eq!(last["verified"], "full-object");
    let run = sandbox.cp("s3://bucket/none - --json").run();
    assert_eq!((run.code(), run.stdout.len()), (4, 0));
    assert_eq!(run.json_on_stderr().pop().expect("a line")["event"], "error");
}

#[test]
fn a_reader_that_had_enough_ends_it_quietly() {
    let sandbox = Sandbox::with(Options { backend: Backend::Synthetic, ..Sandbox::options() });
    let mut run = sandbox.cp("s3://bucket/1GiB -").start_raw();
    let mut first = [0; 10];
    run.stdout.take().expect("piped").read_exact(&mut first).expect("ten bytes");
    assert_eq!(first, synthetic::bytes(0, 10)[..]);
    let ended = run.wait_with_output().expect("a child");
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    // As a shell has it, with its own status for the whole.
    let script = format!("{} cp s3://bucket/1GiB - | head -c 10 | wc -c", binary().display());
    let shell = sandbox.cp("x y").under(["sh", "-c", &script]).run().succeeded_silently();
    assert_eq!(shell.text().trim(), "10");
}

#[test]
fn a_target_is_a_file_a_folder_or_here() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 1_000);
    sandbox.cp("f s3://bucket/deep/key.bin").run().succeeded();
    std::fs::create_dir(sandbox.path("folder")).expect("made");
    std::fs::write(sandbox.path("old"), "something else").expect("written");
    for (target, path) in [
        ("new", "new"),
        ("old", "old"),
        ("folder", "folder/key.bin"),
        ("folder/", "folder/key.bin"),
        (".", "key.bin"),
        ("folder/other", "folder/other"),
    ] {
        sandbox.cp(&format!("s3://bucket/deep/key.bin {target}")).run().succeeded_silently();
        assert_same(&file, &sandbox.path(path));
    }
    for (target, key) in [
        ("s3://bucket", "f"),
        ("s3://bucket/", "f"),
        ("s3://bucket/prefix/", "prefix/f"),
        ("s3://bucket/named", "named"),
    ] {
        sandbox.cp(&format!("f {target}")).run().succeeded_silently();
        assert_eq!(info(&sandbox, key).size_bytes, 1_000);
    }
    sandbox.assert_clean();
}

#[test]
fn a_link_keeps_pointing_and_its_file_gets_the_bytes() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 1_000);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    std::fs::write(sandbox.path("real"), "old").expect("written");
    std::os::unix::fs::symlink("real", sandbox.path("link")).expect("linked");
    sandbox.cp("s3://bucket/f link").run().succeeded();
    assert!(sandbox.path("link").symlink_metadata().expect("there").is_symlink());
    assert_same(&file, &sandbox.path("real"));
    // And a link is as good a source as what it points to.
    sandbox.cp("link s3://bucket/g").run().succeeded();
    assert_eq!(info(&sandbox, "g").size_bytes, 1_000);
}

#[test]
fn keys_are_taken_as_they_stand() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 1_000);
    for key in [
        "with spaces/and more",
        "ünïcödé/文件/🪣",
        "a+b&c=d?e#f%20g",
        "quotes'and\"these\\too",
        "a//b",
        "./dots/../inside",
        "tab\tand\nnewline",
        "~!@$^*()[]{}|;:,<>",
        "percent%2Fslash",
    ] {
        let url = format!("s3://bucket/{key}");
        sandbox.brigade(["cp", "f", &url]).run().succeeded_silently();
        sandbox.brigade(["cp", &url, "copy"]).run().succeeded_silently();
        assert_same(&file, &sandbox.path("copy"));
        assert_eq!(info(&sandbox, key).size_bytes, 1_000, "{key}");
    }
}

#[test]
fn a_file_may_have_any_name() {
    let sandbox = Sandbox::new();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9 \n-x");
    files::make(&sandbox.path(odd), 1_000, 1);
    sandbox.brigade(["cp".as_ref(), odd, "s3://bucket/odd".as_ref()]).run().succeeded_silently();
    let back = std::ffi::OsStr::from_bytes(b"back\xff");
    sandbox.brigade(["cp".as_ref(), "s3://bucket/odd".as_ref(), back]).run().succeeded_silently();
    assert_same(&sandbox.path(odd), &sandbox.path(back));
    for name in ["-dash", "s3:file", "--help"] {
        files::make(&sandbox.path(name), 1_000, 2);
        let path = format!("./{name}");
        sandbox.brigade(["cp", &path, "s3://bucket/n/"]).run().succeeded_silently();
        assert_eq!(info(&sandbox, &format!("n/{name}")).size_bytes, 1_000);
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let run = sandbox.cp("f s3://bucket/f").env("AWS_CA_BUNDLE", "").env("HTTP_PROXY", "");
    run.env("AWS_PROFILE", "").run().succeeded_silently();
}

#[test]
fn only_the_stores_own_credentials_are_good() {
    let sandbox = Sandbox::with(Options {
        credentials: vec![
            Credentials::new(ACCESS_KEY, SECRET_KEY),
            Credentials { read_only: true, ..Credentials::new("READER", "read") },
        ],
        ..Sandbox::options()
    });
    sandbox.file("f", 10);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    let reader = |line: &str| {
        sandbox.cp(line).env("AWS_ACCESS_KEY_ID", "READER").env("AWS_SECRET_ACCESS_KEY", "read")
    };
    reader("s3://bucket/f copy").run().succeeded_silently();
    let said = reader("f s3://bucket/g").run().failed(5);
    assert_eq!(
        said,
        "upload to s3://bucket/g: access denied; check the credentials and their permissions"
    );
}
