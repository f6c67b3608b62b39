//! Memory as direct I/O wants it: the disk's controller reads and writes it without the kernel in
//! between, so it begins where a page does.

/// What offsets, lengths and addresses of direct I/O are multiples of. Disks ask for 512 or 4096
/// bytes. A page is never less, and with whole pages no page of the cache ever holds both what went past
/// it and what went through it.
pub(super) fn alignment() -> usize {
    rustix::param::page_size().max(4096)
}

/// The last multiple of the alignment at or before `bytes`.
pub(super) fn floor(bytes: u64) -> u64 {
    bytes - bytes % alignment() as u64
}

/// So much memory from the beginning of a page on, and how much of it is filled.
#[derive(Debug)]
pub(super) struct Aligned {
    // Never grows, so it never moves.
    memory: Box<[u8]>,
    start: usize,
    capacity: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(capacity: usize) -> Self {
        let memory = vec![0; capacity + alignment()].into_boxed_slice();
        let start = memory.as_ptr().align_offset(alignment());
        Self { memory, start, capacity, len: 0 }
    }

    /// Takes from the front of `bytes` what there is room for. How much that was.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.capacity - self.len);
        let from = self.start + self.len;
        self.memory[from..from + len].copy_from_slice(&bytes[..len]);
        self.len += len;
        len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// What is filled.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The first `len` bytes, filled or not.
    pub(super) fn first(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + len.min(self.capacity)]
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
