//! How many bytes of voxels are held, of those that may be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for the voxels of some volumes together.
#[derive(Debug, Clone)]
pub(super) struct Room {
    bytes: u64,
    taken: Arc<Mutex<u64>>,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn of(bytes: u64) -> Self {
        Self { bytes, taken: Arc::default() }
    }

    /// How many slices of so many bytes each fill it.
    pub(super) fn slices(&self, bytes: u64) -> u64 {
        self.bytes / bytes.max(1)
    }

    /// A part of it that has nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { room: self.clone(), bytes: 0 }
    }

    /// A number is whole whoever panicked.
    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one volume has of a [`Room`], until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    bytes: u64,
}

impl Share {
    /// Takes so many bytes, whether there is room or not.
    pub(super) fn insist(&mut self, bytes: u64) {
        *self.room.taken() += bytes;
        self.bytes += bytes;
    }

    /// Takes so many bytes where there is room; whether there was.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let mut taken = self.room.taken();
        let is_room = taken.saturating_add(bytes) <= self.room.bytes;
        if is_room {
            *taken += bytes;
            self.bytes += bytes;
        }
        is_room
    }

    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        *self.room.taken() -= back;
        self.bytes -= back;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn what_is_taken_comes_back() {
        let room = Room::of(10);
        let (mut one, mut other) = (room.share(), room.share());
        one.insist(12);
        assert!(!other.take(1) && room.slices(4) == 2);
        one.shrink_to(6);
        assert!(other.take(4) && !other.take(1) && !one.take(1));
        drop(one);
        assert!(other.take(6) && !other.take(1));
        drop(other);
        assert_eq!(*room.taken(), 0);
    }
}
