//! Clocks: of this process, and of another one with its children.
//!
//! Another process is started from here rather than from a large program, because the kernel counts the
//! memory of whoever starts a process into that process's own peak.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rustix::pipe::SpliceFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::Json;

/// Taken out of a pipe with one call at most.
const SPLICE_BYTES: usize = 1 << 20;

/// What becomes of a command's standard output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stdout {
    /// It is `/dev/null`.
    Null,
    /// It is a pipe, whose reader moves everything to `/dev/null` without looking at it.
    Pipe,
}

/// Wall time and CPU time of this process.
pub(crate) struct Clock {
    wall: Instant,
    cpu_s: f64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu_s: own_cpu_s() }
    }

    pub(crate) fn stop(self, bytes: u64) -> Json {
        Json::default()
            .number("wall_s", self.wall.elapsed().as_secs_f64())
            .number("cpu_s", own_cpu_s() - self.cpu_s)
            .number("bytes", bytes)
    }
}

/// Runs a command to its end.
pub(crate) fn measure(command: &[OsString], stdout: Stdout, sync: &[PathBuf]) -> Result<Json> {
    let (program, arguments) = command.split_first().context("no command")?;
    let out = if stdout == Stdout::Pipe { Stdio::piped() } else { Stdio::null() };
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out)
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let mut stdout_bytes = 0;
    if let Some(pipe) = child.stdout.take() {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        loop {
            let how = SpliceFlags::MOVE;
            match rustix::pipe::splice(&pipe, None, &nowhere, None, SPLICE_BYTES, how)? {
                0 => break,
                moved => stdout_bytes += moved as u64,
            }
        }
    }
    let (status, usage) = ended(&child)?;
    for path in sync {
        let file = File::open(path).with_context(|| format!("cannot sync {}", path.display()))?;
        if file.metadata()?.is_dir() {
            rustix::fs::syncfs(&file)?;
        } else {
            file.sync_all()?;
        }
    }
    Ok(Json::default()
        .number("status", status)
        .number("wall_s", begun.elapsed().as_secs_f64())
        .number("user_s", seconds(usage.ru_utime))
        .number("system_s", seconds(usage.ru_stime))
        .number("peak_kib", usage.ru_maxrss)
        .number("stdout_bytes", stdout_bytes))
}

/// Waits for a process: its exit code (128 and the signal where one ended it, as shells have it), and
/// what it and the children it waited for used.
#[allow(unsafe_code, reason = "no safe wrapper of wait4 tells what was used")]
fn ended(child: &Child) -> Result<(i32, libc::rusage)> {
    let pid = i32::try_from(child.id())?;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: both pointers are to live memory of the right type, and nothing else waits for this
        // child.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait");
        }
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    // SAFETY: plain integers, which are valid as zeroes already.
    Ok((code, unsafe { usage.assume_init() }))
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

fn own_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
