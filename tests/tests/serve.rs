//! `brigade serve`: a store that a shell can be pointed at, and that tells its keys to nobody else.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use brigade_tests::cli::{Brigade, PART, Run, Running, eventually};
use brigade_tests::files::{self, assert_same};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A command in `folder`, with nothing but a home in its environment.
fn brigade(folder: &TempDir, line: &str) -> Brigade {
    Brigade::new(folder.path(), line.split_whitespace()).dir(folder.path()).may_tell_secrets()
}

/// A store that listens; `line` is what follows `serve`.
fn serving(folder: &TempDir, line: &str) -> (Running, Value) {
    let running = brigade(folder, &format!("serve {line} --port 0 --json")).start();
    running.wait_for_stdout("\"serving\"");
    eventually("the line is whole", Duration::from_secs(5), || {
        running.stdout_so_far().ends_with('\n')
    });
    // A warning may come before it.
    let told = running.stdout_so_far();
    let told: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    assert_eq!(told["event"], "serving");
    (running, told)
}

/// A transfer with what a store told of itself.
fn with_store(folder: &TempDir, told: &Value, line: &str) -> Run {
    let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
    brigade(folder, &format!("cp {line}"))
        .env("AWS_ACCESS_KEY_ID", text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", text("secret_access_key"))
        .env("AWS_REGION", text("region"))
        .env("AWS_CA_BUNDLE", text("ca_bundle"))
        .endpoint(text("endpoint_url"))
        .run()
}

fn stop(running: Running) -> Run {
    running.signal(Signal::INT);
    running.wait().succeeded()
}

#[test]
fn its_exports_work_in_a_shell() {
    let folder = tempfile::tempdir().expect("a folder");
    files::make(&folder.path().join("f"), 3 * PART, 1);
    let running = brigade(&folder, "serve store --port 0 --bucket my-bucket").start();
    running.wait_for_stdout("AWS_ENDPOINT_URL_S3=");
    eventually("it says where it is", Duration::from_secs(5), || {
        running.stderr_so_far().contains("; stop with Ctrl-C")
    });
    let exports = running.stdout_so_far();
    let names: Vec<_> = exports.lines().filter_map(|line| line.split('=').next()).collect();
    let expected =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3"];
    assert_eq!(names, expected.map(|name| format!("export {name}")));
    let script = format!(
        "{exports}\n\"$1\" cp f s3://my-bucket/f --quiet && \"$1\" cp s3://my-bucket/f copy --quiet"
    );
    let shell = brigade(&folder, "unused").under(["sh", "-c", &script, "sh"]);
    shell.run().succeeded_silently();
    assert_same(&folder.path().join("f"), &folder.path().join("copy"));
    let run = stop(running);
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
}

#[test]
fn a_folder_keeps_its_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    files::make(&folder.path().join("f"), 3 * PART, 1);
    let (running, told) = serving(&folder, "store --bucket kept --bucket other");
    assert_eq!(told["buckets"], serde_json::json!(["kept", "other"]));
    assert_eq!(told["ca_bundle"], Value::Null);
    with_store(&folder, &told, "f s3://kept/f --part-size 5MiB").succeeded();
    stop(running);
    let (running, told) = serving(&folder, "store");
    with_store(&folder, &told, "s3://kept/f copy --verify require").succeeded();
    assert_same(&folder.path().join("f"), &folder.path().join("copy"));
    stop(running);
}

#[test]
fn memory_forgets() {
    let folder = tempfile::tempdir().expect("a folder");
    files::make(&folder.path().join("f"), 1_000, 1);
    let (running, told) = serving(&folder, "--memory --bucket bucket");
    with_store(&folder, &told, "f s3://bucket/f").succeeded();
    stop(running);
    let (running, told) = serving(&folder, "--memory --bucket bucket");
    with_store(&folder, &told, "s3://bucket/f copy").failed(4);
    stop(running);
}

#[test]
fn a_synthetic_store_has_every_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let (running, told) = serving(&folder, "--synthetic --bucket bucket");
    let report = with_store(&folder, &told, "s3://bucket/32MiB copy --json").report();
    assert_eq!(
        (&report["bytes"], &report["verified"]),
        (&(32 << 20).into(), &"full-object".into())
    );
    stop(running);
}

#[test]
fn tls_comes_with_an_authority_for_the_time_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    files::make(&folder.path().join("f"), 2 * PART, 1);
    let (running, told) = serving(&folder, "--memory --tls --bucket bucket");
    assert!(told["endpoint_url"].as_str().is_some_and(|url| url.starts_with("https://")), "{told}");
    let authority = told["ca_bundle"].as_str().expect("a file").to_owned();
    with_store(&folder, &told, "f s3://bucket/f").succeeded();
    with_store(&folder, &told, "s3://bucket/f copy").succeeded();
    assert_same(&folder.path().join("f"), &folder.path().join("copy"));
    stop(running);
    assert!(!std::path::Path::new(&authority).exists());
}

#[test]
fn a_taken_port_is_said_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let run = brigade(&folder, &format!("serve --memory --port {port}")).run();
    assert_eq!(
        run.failed(1),
        format!(
            "listen on 127.0.0.1:{port}: the port is taken; choose another --port, or --port 0 for \
             any free one"
        )
    );
}

#[test]
fn other_machines_are_let_in_with_a_warning_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (running, told) = serving(&folder, "--memory --bind 0.0.0.0 --bucket bucket");
    let warning = running.stdout_so_far();
    assert!(
        warning.contains(
            "listening on 0.0.0.0: other machines can reach this store and, without --tls, listen in"
        ),
        "{warning}"
    );
    assert!(told["endpoint_url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")));
    stop(running);
    let run = brigade(&folder, "serve --memory --bind 192.0.2.1 --port 0").run();
    assert_eq!(
        run.failed_in_the_end(1),
        "listen on 192.0.2.1:0: this machine has no such address; give one of its own to --bind"
    );
}

#[test]
fn a_secret_from_the_environment_is_in_no_argument() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "hush-hush-from-the-environment";
    let running = brigade(&folder, "serve --memory --port 0 --access-key me --bucket bucket")
        .env("BRIGADE_SECRET_KEY", secret)
        .start();
    running.wait_for_stdout(secret);
    let arguments = std::fs::read(format!("/proc/{}/cmdline", running.id())).expect("arguments");
    assert!(!String::from_utf8_lossy(&arguments).contains(secret));
    let run = stop(running);
    assert!(!run.stderr.contains(secret), "{run}");
    assert!(run.text().contains("AWS_ACCESS_KEY_ID=me\n"), "{run}");
    for name in ["BRIGADE_SECRET_KEY", "BRIGADE_ACCESS_KEY"] {
        let run = brigade(&folder, "serve --memory --port 0").env(name, "two words").run();
        let said = run.failed(2);
        assert!(!said.contains("two words"), "{said}");
    }
    let help = brigade(&folder, "serve --help").env("BRIGADE_SECRET_KEY", secret).run();
    assert!(!help.succeeded_silently().text().contains(secret));
}

#[test]
fn a_signal_ends_it_with_clients_still_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (running, told) = serving(&folder, "--memory");
    let address = told["address"].as_str().expect("an address");
    let _idle = TcpStream::connect(address).expect("it listens");
    running.signal(Signal::TERM);
    let run = running.wait().succeeded();
    assert!(run.elapsed < Duration::from_secs(10), "{run}");
}

#[test]
fn a_store_must_be_somewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = brigade(&folder, "serve").run().failed(2);
    assert!(said.contains("<DIR|--memory|--synthetic>"), "{said}");
    std::fs::write(folder.path().join("file"), "").expect("written");
    let said = brigade(&folder, "serve file --port 0").run().failed(1);
    assert!(said.starts_with("use as the store's folder file"), "{said}");
    let said = brigade(&folder, "serve --memory --port 0 --bucket No_Bucket").run().failed(2);
    assert!(said.contains("No_Bucket"), "{said}");
}
