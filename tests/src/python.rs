//! Clients and stores of other makers, as Python packages, in a virtual environment below the build
//! folder.
//!
//! It is made once for a list of requirements, by whichever test comes first; the others wait at a
//! lock. Where it cannot be made (no Python, no network) a test prints why and passes without having
//! tested anything, unless `BRIGADE_REQUIRE_PEERS=1` says that this is a failure: continuous
//! integration sets that.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal};

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");

/// A download of some 100 MB, and their unpacking on a busy machine.
const INSTALL_TIMEOUT: Duration = Duration::from_mins(5);

/// Making an empty environment, asking an interpreter for its version.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a server may take to be killed and its data to be removed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// An environment with everything of `tests/python/requirements.txt` in it.
#[derive(Debug, Clone)]
pub struct Python {
    folder: PathBuf,
}

impl Python {
    /// The environment, made if need be; or why there is none.
    pub fn ready() -> Result<Self, String> {
        static READY: OnceLock<Result<Python, String>> = OnceLock::new();
        READY.get_or_init(|| Self::make(&peers_folder())).clone()
    }

    /// The environment; or `None`, and the reason on standard error, where it cannot be had and
    /// `BRIGADE_REQUIRE_PEERS` is not set.
    pub fn ready_or_skip() -> Option<Self> {
        let reason = match Self::ready() {
            Ok(python) => return Some(python),
            Err(reason) => reason,
        };
        let required = std::env::var_os("BRIGADE_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "BRIGADE_REQUIRE_PEERS is set, and {reason}");
        // Not by `eprintln!`, whose words are kept from sight where a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {reason}");
        None
    }

    /// A program in the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// `program` with nothing in its environment that could lead it to an account or a
    /// configuration of whoever runs the tests.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(home);
        command
    }

    /// Starts a server that ends with this process, however that ends, if it is not dropped before.
    /// `folder` is where it runs, and is removed in the end with everything in `leftovers`. What it
    /// prints goes to `log`.
    pub fn serve<S: AsRef<std::ffi::OsStr>>(
        &self,
        folder: &Path,
        leftovers: &[PathBuf],
        log: &Path,
        command: impl IntoIterator<Item = S>,
    ) -> Server {
        let log = File::create(log).expect("a log");
        let child = self
            .command(self.program("python"), folder)
            .arg(script("leash.py"))
            .arg(folder)
            .args(leftovers)
            .arg("--")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            // A Ctrl-C in the terminal is for the tests; the leash notices when they are gone.
            .process_group(0)
            .spawn()
            .expect("the environment has an interpreter");
        Server { leash: child }
    }

    fn make(folder: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(io)?;
        let lock = File::create(folder.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let python = Self { folder: folder.join("venv") };
        // A copy of the requirements, written last.
        let stamp = python.folder.join("installed.txt");
        let installed = fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENTS);
        if installed && python.starts(folder) {
            return Ok(python);
        }
        let log = folder.join("install.log");
        python.install(&log)?;
        fs::write(stamp, REQUIREMENTS).map_err(io)?;
        Ok(python)
    }

    /// Whether the interpreter that the environment was made with is still there.
    fn starts(&self, folder: &Path) -> bool {
        let mut command = self.command(self.program("python"), folder);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        end_of(command, COMMAND_TIMEOUT).is_ok()
    }

    fn install(&self, log: &Path) -> Result<(), String> {
        let written = |what: &str| format!("{what}; see {}", log.display());
        let out = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let run = |mut command: Command, limit| {
            // How to reach a package index stays; accounts and other Python settings do not.
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("AWS_") || text.starts_with("PYTHON") {
                    command.env_remove(&name);
                }
            }
            // Its words may name an index and whoever may use it: they stay in the log.
            command.stdout(out.try_clone().map_err(|error| error.to_string())?);
            command.stderr(out.try_clone().map_err(|error| error.to_string())?);
            end_of(command, limit)
        };
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&self.folder);
        run(venv, COMMAND_TIMEOUT)
            .map_err(|why| written(&format!("no Python environment can be made: {why}")))?;
        let mut pip = Command::new(self.program("python"));
        pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
            .args(["--quiet", "--no-compile", "--retries", "2", "--timeout", "20"])
            // What has to be built would need compilers, and runs code while it is installed.
            .args(["--only-binary", ":all:", "--requirement"])
            .arg(script("requirements.txt"));
        run(pip, INSTALL_TIMEOUT).map_err(|why| {
            written(&format!(
                "the packages cannot be installed, perhaps for want of a network: {why}"
            ))
        })
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    leash: Child,
}

impl Server {
    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.leash.try_wait().map_or(true, |status| status.is_some())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        let _ = wait(&mut self.leash, END_TIMEOUT);
    }
}

/// A file of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Where what other makers wrote is kept, with the logs of its last runs.
pub fn peers_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    let marked = test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let target = marked
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), Path::to_path_buf);
    target.join("test-peers")
}

/// Runs a command, and all that it starts, for no longer than `limit`.
fn end_of(mut command: Command, limit: Duration) -> Result<(), String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let program = program.to_string_lossy();
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    match wait(&mut child, limit) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(why) => Err(format!("{program} {why}")),
    }
}

/// Waits for a child; past `limit` it is killed with its whole process group.
fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended this very moment.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    Err(format!("did not end within {} s", limit.as_secs()))
}
