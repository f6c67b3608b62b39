//! Parts received where they belong in the whole object, so that completing an upload copies nothing.
//!
//! Nearly every client sends parts of one size, the last one excepted. So the first part to come decides how
//! long the slots of a common file are, and part N is written to slot N of it, if it fits. When the parts of a
//! completed upload turn out to lie one behind the other from the file's start to its end, the file is the
//! object. Whatever does not fit that picture (longer parts, a part that is sent again, whose first version
//! must stay until the new one is checked) goes to a file of its own, and the completion copies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::locks::lock;

/// The slots of one upload.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    slot_bytes: Option<u64>,
    /// By part number: whether the part is in, or still on its way.
    taken: BTreeMap<u32, bool>,
    /// Set once the file has become, or may become, an object's.
    closed: bool,
}

/// One part's slot. Free again when dropped before the part [was kept](Self::keep).
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    number: u32,
    length_bytes: u64,
}

impl Slots {
    /// The slot of a part of that length; `None` where it has to go elsewhere.
    pub(super) fn claim(self: &Arc<Self>, number: u32, length: u64) -> Option<Slot> {
        let mut state = lock(&self.0);
        if state.closed || length == 0 || state.taken.contains_key(&number) {
            return None;
        }
        let slot_bytes = *state.slot_bytes.get_or_insert(length);
        if length > slot_bytes {
            return None;
        }
        state.taken.insert(number, false);
        Some(Slot { slots: Arc::clone(self), number, length_bytes: slot_bytes })
    }

    /// Takes a slot for a part that was kept in an earlier run.
    pub(super) fn restore(self: &Arc<Self>, number: u32, slot_bytes: u64) -> Slot {
        let mut state = lock(&self.0);
        state.slot_bytes = Some(slot_bytes);
        state.taken.insert(number, true);
        Slot { slots: Arc::clone(self), number, length_bytes: slot_bytes }
    }

    /// Lets no more parts in; `false` where some are still on their way, and might yet write.
    pub(super) fn close(&self) -> bool {
        let mut state = lock(&self.0);
        state.closed = true;
        state.taken.values().all(|kept| *kept)
    }
}

impl Slot {
    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Where in the common file the slot begins.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.number.saturating_sub(1)) * self.length_bytes
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn keep(&self) {
        lock(&self.slots.0).taken.insert(self.number, true);
    }

    pub(super) fn free(&self) {
        lock(&self.slots.0).taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_have_slots() {
        let slots = Arc::new(Slots::default());
        let second = slots.claim(2, 10).unwrap();
        assert_eq!(second.offset(), 10);
        let last = slots.claim(3, 4).unwrap();
        assert_eq!((last.offset(), last.length_bytes()), (20, 10));
        assert!(slots.claim(1, 11).is_none(), "longer than a slot");
        assert!(slots.claim(2, 10).is_none(), "sent again");
        second.keep();
        last.free();
        assert!(slots.claim(3, 4).is_some());
    }

    #[test]
    fn a_closed_file_takes_no_parts() {
        let slots = Arc::new(Slots::default());
        let first = slots.claim(1, 10).unwrap();
        assert!(!slots.close(), "a part is on its way");
        first.keep();
        assert!(slots.close());
        assert!(slots.claim(2, 10).is_none());
    }
}
