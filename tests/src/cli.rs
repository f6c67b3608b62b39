//! The command under test, run as a person runs it: in a folder of its own, with an environment that
//! holds nothing but what a test puts there, against a store of its own.
//!
//! Every run is held against two rules, whatever it is about: it ends in time, and the store's
//! secret key appears nowhere in what it prints.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use brigade_store::{Backend, Credentials, Options, Server};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::files;

/// The access key of every sandbox's store.
pub const ACCESS_KEY: &str = "BRIGADETESTS00000000";
/// Its secret key, which no output may hold.
pub const SECRET_KEY: &str = "hush/this+is/the-secret-key/of-the-tests";
/// Its bucket.
pub const BUCKET: &str = "bucket";
/// An SSE-C key in base64, which no output may hold either.
pub const CUSTOMER_KEY: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgdHdvIG9mIHRoZW0=";

/// The smallest part of a multipart upload.
pub const PART: u64 = 5 << 20;

/// A user without rights, to whom the tests' process may change when it is root.
const NOBODY: u32 = 65_534;

/// How long a run may take unless a test says otherwise.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A folder to run in, and a store to talk to.
pub struct Sandbox {
    folder: TempDir,
    store: Server,
    endpoint: String,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// With an empty store in memory.
    pub fn new() -> Self {
        Self::with(Self::options())
    }

    /// With a store that runs as `options` have it.
    pub fn with(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("brigade-tests-").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("work")).expect("a folder");
        let store = Server::start(options).expect("a store");
        let endpoint = store.endpoint_url();
        Self { folder, store, endpoint }
    }

    /// With a store that serves HTTPS.
    pub fn with_tls() -> Self {
        let sandbox = Self::with(Options { tls: true, ..Self::options() });
        std::fs::write(sandbox.ca_bundle(), sandbox.store.ca_pem().expect("an authority"))
            .expect("written");
        sandbox
    }

    /// What [`Sandbox::new`] starts a store with.
    pub fn options() -> Options {
        Options {
            backend: Backend::Memory,
            credentials: vec![Credentials::new(ACCESS_KEY, SECRET_KEY)],
            buckets: vec![BUCKET.into()],
            ..Options::default()
        }
    }

    /// The store.
    pub fn store(&self) -> &Server {
        &self.store
    }

    /// The folder that commands run in.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// A path in that folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder().join(name)
    }

    /// A file of `size_bytes` in that folder; its content depends on the size.
    pub fn file(&self, name: impl AsRef<Path>, size_bytes: u64) -> PathBuf {
        let path = self.path(name);
        files::make(&path, size_bytes, size_bytes);
        path
    }

    /// Where the certificate authority of a store with TLS is.
    pub fn ca_bundle(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The command with these arguments and the sandbox's store in its environment.
    pub fn brigade<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Brigade {
        let mut brigade = Brigade::new(self.folder.path(), args);
        brigade.command.current_dir(self.folder());
        brigade
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL_S3", &self.endpoint)
    }

    /// `brigade cp`, then the words of `line`.
    pub fn cp(&self, line: &str) -> Brigade {
        self.brigade(["cp"].into_iter().chain(line.split_whitespace()))
    }

    /// A session with the sandbox's store, for a look at it that does not go through the command.
    pub fn session(&self) -> brigade::Session {
        futures::executor::block_on(brigade::Session::new(self.session_options()))
            .expect("a session")
    }

    /// How to reach the sandbox's store.
    pub fn session_options(&self) -> brigade::SessionOptions {
        brigade::SessionOptions {
            endpoint_url: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            credentials: brigade::Credentials::Static {
                access_key: ACCESS_KEY.into(),
                secret_key: SECRET_KEY.into(),
                session_token: None,
            },
            ca_bundle: self.store.ca_pem().map(|_| self.ca_bundle()),
            ..Default::default()
        }
    }

    /// Where the command keeps the manifests of uploads, and links to those of downloads.
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("home/.local/state/brigade")
    }

    /// How many parts are recorded as done, of all unfinished transfers together.
    pub fn recorded_parts(&self) -> usize {
        let unfinished = brigade::unfinished(&self.manifests()).expect("a folder");
        unfinished.into_iter().flatten().map(|found| found.manifest.parts.len()).sum()
    }

    /// Fails unless the folder holds no partial file, the store no unfinished upload, and nothing is
    /// recorded of one. A store may still be at work for a client that is gone, so it is given a
    /// moment.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = files::leftovers(&self.folder());
        assert!(left.is_empty(), "partial files were left: {left:?}");
        let left: Vec<_> = std::fs::read_dir(self.manifests()).into_iter().flatten().collect();
        assert!(left.is_empty(), "manifests were left: {left:?}");
        let clean = || self.store.stats().unfinished_uploads == 0;
        eventually("the store has no unfinished upload", Duration::from_secs(2), clean);
    }
}

/// A command to be run.
#[must_use]
pub struct Brigade {
    command: Command,
    folder: PathBuf,
    timeout: Duration,
    may_tell_secrets: bool,
    input: Option<Stdio>,
}

impl Brigade {
    /// With nothing in its environment but a home below `folder` and no way to find AWS.
    pub fn new<I: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = I>) -> Self {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env_clear()
            .env("HOME", folder.join("home"))
            .env("TMPDIR", folder)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_CONFIG_FILE", folder.join("no-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", folder.join("no-credentials"))
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let folder = folder.to_owned();
        Self { command, folder, timeout: TIMEOUT, may_tell_secrets: false, input: None }
    }

    /// More arguments.
    pub fn args<I: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Talks to another endpoint than the sandbox's store.
    pub fn endpoint(self, url: impl AsRef<OsStr>) -> Self {
        self.env("AWS_ENDPOINT_URL_S3", url)
    }

    /// Runs in another folder.
    pub fn dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Reads standard input from there; without it, there is nothing to be read.
    pub fn input(mut self, from: impl Into<Stdio>) -> Self {
        self.input = Some(from.into());
        self
    }

    /// For what prints its keys on purpose.
    pub fn may_tell_secrets(mut self) -> Self {
        self.may_tell_secrets = true;
        self
    }

    /// Runs as a user without rights, where the tests run as root; as who they are otherwise. The
    /// sandbox's folder becomes readable for that user, and the command is copied into it, because
    /// the folder where it was built may not be.
    pub fn as_nobody(mut self) -> Self {
        if rustix::process::getuid().is_root() {
            use std::os::unix::fs::PermissionsExt as _;
            let copy = self.folder.join("brigade");
            std::fs::copy(binary(), &copy).expect("copied");
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&self.folder, open).expect("opened");
            let args: Vec<_> = self.command.get_args().map(OsStr::to_owned).collect();
            self.command = like(&self.command, copy.as_os_str(), args);
            self.command.uid(NOBODY).gid(NOBODY);
        }
        self
    }

    /// Runs the same under another program: `wrapper`, then the command and its arguments.
    pub fn under<I: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = I>) -> Self {
        let mut words = wrapper.into_iter().map(|word| word.as_ref().to_owned());
        let outer = words.next().expect("a program");
        let inner = self.command.get_program().to_owned();
        let args: Vec<_> =
            words.chain([inner]).chain(self.command.get_args().map(Into::into)).collect();
        self.command = like(&self.command, &outer, args);
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Run {
        self.start().wait()
    }

    /// Starts it, for a test that reads its standard output itself.
    pub fn start_raw(mut self) -> Child {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().expect("it can be run")
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        self.command
            .stdin(self.input.take().unwrap_or_else(Stdio::null))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shown = shown(&self.command);
        let started = Instant::now();
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("{shown} cannot be run: {error}"));
        let stdout = Paper::read(child.stdout.take().expect("piped"));
        let stderr = Paper::read(child.stderr.take().expect("piped"));
        let may_tell_secrets = self.may_tell_secrets;
        Running {
            child,
            shown,
            started,
            stdout,
            stderr,
            timeout: self.timeout,
            may_tell_secrets,
            ended: false,
        }
    }
}

/// A command that runs. Killed when dropped before its end.
pub struct Running {
    child: Child,
    shown: String,
    started: Instant,
    stdout: Paper,
    stderr: Paper,
    timeout: Duration,
    may_tell_secrets: bool,
    ended: bool,
}

impl Running {
    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// What it printed so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// What it complained of so far.
    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Waits until `text` was printed on standard output.
    pub fn wait_for_stdout(&self, text: &str) {
        eventually(&format!("{text:?} on standard output"), self.timeout, || {
            self.stdout_so_far().contains(text)
        });
    }

    /// Waits for its end, and looks at what it printed.
    pub fn wait(mut self) -> Run {
        let deadline = self.started + self.timeout;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let said = self.stderr_so_far();
                panic!("{} did not end within {:?}: {said}", self.shown, self.timeout);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.ended = true;
        let elapsed = self.started.elapsed();
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let stderr = String::from_utf8(stderr).expect("messages are UTF-8");
        if !self.may_tell_secrets {
            let printed = String::from_utf8_lossy(&stdout);
            for secret in [SECRET_KEY, CUSTOMER_KEY] {
                let told = printed.contains(secret) || stderr.contains(secret);
                assert!(!told, "{} told a secret:\n{printed}\n{stderr}", self.shown);
            }
        }
        Run { shown: self.shown.clone(), status, stdout, stderr, elapsed }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that ran.
pub struct Run {
    shown: String,
    status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained of.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

// A check that gives back what it checked is done without it.
#[allow(clippy::return_self_not_must_use)]
impl Run {
    /// The exit code; negative for a signal that ended it.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| -signal)).unwrap_or(-1)
    }

    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// Fails unless it was a success.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code(), 0, "{self}");
        self
    }

    /// Fails unless it was a success that said nothing on standard error.
    #[track_caller]
    pub fn succeeded_silently(self) -> Self {
        let run = self.succeeded();
        assert_eq!(run.stderr, "", "{run}");
        run
    }

    /// Fails unless it ended with `code` and exactly one line on standard error: the error, which
    /// is returned without `brigade: error: ` before it.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        let errors = self.errors();
        assert_eq!((self.code(), errors.len()), (code, 1), "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "{self}");
        errors.into_iter().next().expect("one")
    }

    /// The same, where warnings and notices may come before the error.
    #[track_caller]
    pub fn failed_in_the_end(self, code: i32) -> String {
        let errors = self.errors();
        assert_eq!((self.code(), errors.len()), (code, 1), "{self}");
        errors.into_iter().next().expect("one")
    }

    /// The words on standard error of a run that ended with `code`, whatever the number of its errors.
    #[track_caller]
    pub fn code_and_words(self, code: i32) -> String {
        assert_eq!(self.code(), code, "{self}");
        self.stderr
    }

    /// Every line of standard output as the JSON object it must be.
    pub fn json(&self) -> Vec<Value> {
        objects(self.text(), self)
    }

    /// The same of standard error.
    pub fn json_on_stderr(&self) -> Vec<Value> {
        objects(&self.stderr, self)
    }

    /// The report of a run with `--json`, which must be its last line.
    #[track_caller]
    pub fn report(self) -> Value {
        let run = self.succeeded();
        let last = run.json().pop().expect("a line");
        assert_eq!(last["event"], "report", "{run}");
        last
    }

    fn errors(&self) -> Vec<String> {
        let errors = self.stderr.lines().filter_map(|line| line.strip_prefix("brigade: error: "));
        errors.map(str::to_owned).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let printed = &self.stdout[..self.stdout.len().min(4_000)];
        write!(
            f,
            "{}\n{} after {:?}\nstdout:\n{}\nstderr:\n{}",
            self.shown,
            self.status,
            self.elapsed,
            String::from_utf8_lossy(printed),
            self.stderr
        )
    }
}

/// Waits until `holds`, and fails when it does not within `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The command under test, which cargo built beside the tests.
pub fn binary() -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test is a program");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder.join("brigade-under-test")
}

fn objects(text: &str, run: &Run) -> Vec<Value> {
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{line:?} is no JSON ({error}): {run}"));
        assert!(value["event"].is_string(), "{line} names no event: {run}");
        value
    };
    text.lines().map(object).collect()
}

fn shown(command: &Command) -> String {
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    format!("brigade {}", args.join(" "))
}

/// Another program in the same folder and environment.
fn like(command: &Command, program: &OsStr, args: Vec<OsString>) -> Command {
    let mut other = Command::new(program);
    other.args(args).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// A pipe that is read while the command runs, so that it never waits for a reader.
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Paper {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                written.lock().expect("no panic").extend_from_slice(&chunk[..count]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.text.lock().expect("no panic").clone()
    }

    fn take(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        std::mem::take(&mut self.text.lock().expect("no panic"))
    }
}
