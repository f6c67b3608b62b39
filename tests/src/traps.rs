//! What the tests of `traps` have in common: a sandbox whose store is told how to
//! misbehave, and looks at the whole of what comes of it.

use std::ops::Deref;
use std::time::Duration;

use brigade::ErrorKind;
use brigade_store::faults::{Action, Faults, Place, Rule};
use brigade_store::{Backend, Options, Pretended};
use futures::executor::block_on;
use rustix::process::Signal;
use serde_json::Value;

use crate::cli::{BUCKET, PART, Sandbox, eventually};
use crate::files;

/// What is uploaded: the file `f`.
pub const UP: &str = "f s3://bucket/f --part-size 5MiB";
/// And downloaded.
pub const DOWN: &str = "s3://bucket/f copy --part-size 5MiB";

/// How long something may take to happen.
pub const SOON: Duration = Duration::from_secs(20);

/// A sandbox whose store is told how to misbehave.
pub struct Trap(Sandbox);

impl Deref for Trap {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Trap {
    /// In this sandbox.
    pub fn of(sandbox: Sandbox) -> Self {
        Self(sandbox)
    }

    /// With a file of so many bytes.
    pub fn with_file(size: u64) -> Self {
        let trap = Self(Sandbox::new());
        trap.file("f", size);
        trap
    }

    /// The same, and the file is the object already.
    pub fn with_object(size: u64) -> Self {
        let trap = Self::with_file(size);
        trap.cp(UP).run().succeeded();
        trap
    }

    /// With a store that lists so many objects.
    pub fn pretending(objects: u64) -> Self {
        let pretended = Pretended { objects, object_size_bytes: 1 };
        let backend = Backend::Synthetic;
        Self(Sandbox::with(Options { backend, pretended, ..Sandbox::options() }))
    }

    /// What `ls -r` shows of the bucket.
    pub fn listed(&self, more: &str) -> String {
        let line = ["ls", "s3://bucket", "-r"].into_iter().chain(more.split_whitespace());
        self.brigade(line).run().succeeded().text().to_owned()
    }

    /// With a store that takes parts of 64 KiB, the profile `small.toml` that says so, and a file of so
    /// many.
    pub fn with_small_parts(parts: u64) -> Self {
        const SMALL: u64 = 64 << 10;
        let options = Options { min_part_size_bytes: SMALL, ..Sandbox::options() };
        let trap = Self(Sandbox::with(options));
        let profile = format!("base = \"generic\"\nmin_part_size_bytes = {SMALL}\n");
        std::fs::write(trap.path("small.toml"), profile).expect("written");
        trap.file("f", parts * SMALL);
        trap
    }

    /// With an upload of so many parts that was killed when some of them were there.
    pub fn killed_upload(parts: u32, there: u32) -> Self {
        let trap = Self::with_file(u64::from(parts) * PART);
        trap.kill_upload(Faults::default(), parts, there);
        trap
    }

    /// Begins an upload of so many parts that follows these rules, and kills it when the first of them
    /// are recorded, and no more arrive. How often each rule fired.
    pub fn kill_upload(&self, rules: impl Into<Faults>, parts: u32, there: u32) -> Vec<u64> {
        let mut rules = rules.into();
        let stall = Action::stall(Place::RequestEnd);
        rules.rules.push(Rule::on("UploadPart").parts(there + 1..=parts).then(stall));
        self.misbehave(rules);
        let running = self.cp(UP).start();
        // Also the ones that are not to arrive: they must not be on their way when the rules end.
        let stalled = || self.fired().last() == Some(&u64::from(parts - there));
        eventually("some parts are there", SOON, || {
            stalled() && self.recorded_parts() == there as usize
        });
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
        let fired = self.fired();
        self.store().faults().clear();
        fired
    }

    /// Begins an upload, and kills it when the store has begun it and not answered: it is the so-many-th
    /// that is unfinished then.
    pub fn kill_at_create(&self, more: &str, unfinished: u64) {
        self.misbehave(Rule::on("CreateMultipartUpload").then(Action::stall(Place::Response)));
        let running = self.cp(&format!("{UP} {more}")).start();
        eventually("it is begun", SOON, || {
            self.store().stats().unfinished_uploads == unfinished && self.fired() == [1]
        });
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
        self.behave();
    }

    /// Puts away what was left alone on purpose.
    pub fn abort_uploads(&self, number: u64) {
        let run = self.brigade(["uploads", "abort", "s3://bucket", "--yes"]).run().succeeded();
        assert!(run.text().contains(&format!("aborted {number};")), "{run}");
    }

    /// Stores an object of somebody else under the key.
    pub fn put_theirs(&self) {
        std::fs::write(self.path("theirs"), "theirs").expect("written");
        self.cp("theirs s3://bucket/f").run().succeeded();
    }

    /// The store follows these rules from now on, and no others.
    pub fn misbehave(&self, rules: impl Into<Faults>) {
        self.store().faults().set(rules).expect("rules that make sense");
    }

    /// The store is itself again, and what hangs goes on.
    pub fn behave(&self) {
        self.store().faults().clear();
        self.store().faults().release();
    }

    /// How often each rule fired.
    pub fn fired(&self) -> Vec<u64> {
        self.store().faults().fired().rules
    }

    /// How often the store was asked for this since it was started.
    pub fn count(&self, operation: &str) -> u64 {
        self.store().stats().count(operation)
    }

    /// Uploads, and looks at all that can be seen of it: the report.
    #[track_caller]
    pub fn upload(&self, more: &str) -> Value {
        let report = self.cp(&format!("{UP} {more} --json")).run().report();
        self.assert_stored();
        report
    }

    /// Downloads, and looks at all that can be seen of it: the report.
    #[track_caller]
    pub fn download(&self, more: &str) -> Value {
        let report = self.cp(&format!("{DOWN} {more} --json")).run().report();
        self.assert_copied();
        report
    }

    /// Fails unless the object holds the file's bytes, and nothing else is left. The rules end.
    #[track_caller]
    pub fn assert_stored(&self) {
        self.behave();
        self.cp("s3://bucket/f back").run().succeeded();
        files::assert_same(&self.path("f"), &self.path("back"));
        self.assert_clean();
    }

    /// Fails unless the copy holds the file's bytes, and nothing else is left.
    #[track_caller]
    pub fn assert_copied(&self) {
        files::assert_same(&self.path("f"), &self.path("copy"));
        self.assert_clean();
    }

    /// Fails if there is a copy, or anything of one.
    #[track_caller]
    pub fn assert_no_copy(&self) {
        assert!(!self.path("copy").exists());
        self.assert_clean();
    }

    /// Fails if there is an object, or anything of one. The rules end.
    #[track_caller]
    pub fn assert_nothing_stored(&self) {
        self.behave();
        let missing = block_on(self.session().bucket(BUCKET).object("f").info());
        assert_eq!(missing.expect_err("no object").kind(), ErrorKind::NotFound);
        self.assert_clean();
    }

    /// Fails unless the object is what somebody else put there. The rules end.
    #[track_caller]
    pub fn assert_theirs(&self) {
        self.behave();
        assert_eq!(self.cp("s3://bucket/f -").run().succeeded().text(), "theirs");
        self.assert_clean();
    }
}
