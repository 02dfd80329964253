//! What a plugin keeps from call to call: small values in memory, shared by all its instances.
//!
//! Another engine would have to offer what [`Space`] does: to read, to write under a condition, to remove,
//! and to wait for a change.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// What an entry takes beside its key and its value, about.
const OVERHEAD: usize = 64;

/// Bytes of a key.
const KEY: usize = 256;

/// How often a full space is searched for what has expired.
const SEARCH: Duration = Duration::from_millis(100);

/// In how many parts those are who wait for a key.
const WAITING_ROOMS: usize = 64;

/// Nanoseconds since this was first asked.
pub(super) fn monotonic_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What one plugin keeps.
///
/// Its lock is held for the time of one look-up, and never while anything waits. It is one of the few
/// locks that workers share, and only plugins with a grant for it meet it.
#[derive(Debug)]
pub(super) struct Space {
    kept: Mutex<Kept>,
    /// Who waits for a key waits with some others, and not with all.
    changed: [Notify; WAITING_ROOMS],
}

#[derive(Debug)]
struct Kept {
    slots: HashMap<Box<str>, Slot>,
    /// Bytes of all of them.
    size: usize,
    most: usize,
    version: u64,
    searched: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    /// None while somebody makes it.
    value: Option<Vec<u8>>,
    version: u64,
    expires: Option<Instant>,
}

/// A value, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Vec<u8>,
    pub(super) version: u64,
}

/// When something is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition {
    /// In any case.
    Any,
    /// Where this version is there, or nothing.
    Version(Option<u64>),
}

/// What is there, or who makes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Found(Entry),
    /// Whoever asked, under this version.
    Reserved(u64),
}

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KvError {
    Conflict(Option<Entry>),
    Full,
    NotANumber,
}

impl Space {
    /// Room for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        let kept = Kept { slots: HashMap::new(), size: 0, most, version: 0, searched: None };
        Self { kept: Mutex::new(kept), changed: std::array::from_fn(|_| Notify::new()) }
    }

    /// From now on, room for so many bytes. What is there stays until it expires.
    pub(super) fn limit(&self, most: usize) {
        self.lock().most = most;
    }

    /// Bytes that are there, and for how many there is room.
    pub(super) fn size(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.size, kept.most)
    }

    pub(super) fn read(&self, key: &str) -> Option<Entry> {
        self.lock().live(key, Instant::now())?.entry()
    }

    pub(super) fn write(
        &self,
        key: &str,
        condition: Condition,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<u64, KvError> {
        let now = Instant::now();
        let mut kept = self.lock();
        if let Condition::Version(expected) = condition {
            let there = kept.live(key, now);
            if there.map(|slot| slot.version) != expected {
                return Err(KvError::Conflict(there.and_then(Slot::entry)));
            }
        }
        let version = kept.put(key, Some(value), expiry(now, ttl), now)?;
        drop(kept);
        self.changed(key).notify_waiters();
        Ok(version)
    }

    pub(super) fn increment(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, KvError> {
        let now = Instant::now();
        let mut kept = self.lock();
        let (sum, expires) = match kept.live(key, now) {
            Some(Slot { value: Some(value), expires, .. }) => {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
                (number.ok_or(KvError::NotANumber)?.saturating_add(by), *expires)
            }
            Some(Slot { value: None, .. }) | None => (by, expiry(now, ttl)),
        };
        kept.put(key, Some(sum.to_string().into_bytes()), expires, now)?;
        drop(kept);
        self.changed(key).notify_waiters();
        Ok(sum)
    }

    pub(super) fn remove(&self, key: &str) {
        self.lock().take(key);
        self.changed(key).notify_waiters();
    }

    /// What tells those who wait for this key, and a few others, that something has changed.
    fn changed(&self, key: &str) -> &Notify {
        // FNV-1a; who makes keys meet costs those who wait for them a look.
        let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = key.bytes().take(KEY).fold(0x811c_9dc5, step) as usize;
        let [first, ..] = &self.changed;
        self.changed.get(hash % WAITING_ROOMS).unwrap_or(first)
    }

    /// The value; or the task to make it, for the first who asks. The others wait.
    pub(super) async fn get_or_reserve(&self, key: &str, hold: Duration) -> Result<Lookup, KvError> {
        loop {
            let changed = self.changed(key).notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let until = {
                let mut kept = self.lock();
                match kept.live(key, now) {
                    Some(slot) => match slot.entry() {
                        Some(entry) => return Ok(Lookup::Found(entry)),
                        None => slot.expires,
                    },
                    None => {
                        return kept.put(key, None, expiry(now, Some(hold)), now).map(Lookup::Reserved);
                    }
                }
            };
            let left = until.map_or(hold, |until| until.saturating_duration_since(now));
            // Whether it came or its time is over: the next look tells. The call's own time bounds all.
            let _ = timeout(left.max(Duration::from_millis(1)), changed).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Far in the future is never.
fn expiry(now: Instant, ttl: Option<Duration>) -> Option<Instant> {
    now.checked_add(ttl?)
}

impl Kept {
    /// What is there and has not expired.
    fn live(&self, key: &str, now: Instant) -> Option<&Slot> {
        // A long one cannot be there, and takes its time to be looked for.
        if key.len() > KEY {
            return None;
        }
        self.slots.get(key).filter(|slot| slot.is_live(now))
    }

    fn put(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<u64, KvError> {
        let size = size(key, value.as_deref());
        if key.len() > KEY {
            return Err(KvError::Full);
        }
        if !self.fits(key, size) {
            self.search(now);
            if !self.fits(key, size) {
                return Err(KvError::Full);
            }
        }
        self.take(key);
        self.version += 1;
        self.size += size;
        self.slots.insert(key.into(), Slot { value, version: self.version, expires });
        Ok(self.version)
    }

    /// Whether there is room, once what is there of this key is gone.
    fn fits(&self, key: &str, size: usize) -> bool {
        let old = self.slots.get(key).map_or(0, |slot| self::size(key, slot.value.as_deref()));
        self.size - old + size <= self.most
    }

    fn take(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.size -= size(key, slot.value.as_deref());
        }
    }

    /// Frees what has expired; now and then only, since it looks at everything.
    fn search(&mut self, now: Instant) {
        if self.searched.is_some_and(|last| now.duration_since(last) < SEARCH) {
            return;
        }
        self.searched = Some(now);
        let mut freed = 0;
        self.slots.retain(|key, slot| {
            let is_live = slot.is_live(now);
            freed += if is_live { 0 } else { size(key, slot.value.as_deref()) };
            is_live
        });
        self.size -= freed;
    }
}

impl Slot {
    fn is_live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn entry(&self) -> Option<Entry> {
        Some(Entry { value: self.value.clone()?, version: self.version })
    }
}

fn size(key: &str, value: Option<&[u8]>) -> usize {
    OVERHEAD + key.len() + value.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn set(space: &Space, key: &str, value: &str, ttl: Option<Duration>) -> Result<u64, KvError> {
        space.write(key, Condition::Any, value.into(), ttl)
    }

    #[test]
    fn versions_decide_who_was_first() {
        let space = Space::new(1000);
        let first =
            space.write("k", Condition::Version(None), b"1".to_vec(), None).expect("nothing is there");
        let error =
            space.write("k", Condition::Version(None), b"2".to_vec(), None).expect_err("something is");
        assert_eq!(error, KvError::Conflict(Some(Entry { value: b"1".to_vec(), version: first })));
        let second =
            space.write("k", Condition::Version(Some(first)), b"2".to_vec(), None).expect("the version");
        assert!(second > first);
        assert!(space.write("k", Condition::Version(Some(first)), b"3".to_vec(), None).is_err());
        space.remove("k");
        assert_eq!(space.read("k"), None);
        let error = space.write("k", Condition::Version(Some(second)), Vec::new(), None);
        assert_eq!(error, Err(KvError::Conflict(None)));
    }

    #[test]
    fn the_grant_bounds_all_of_it_and_what_expired_makes_room() {
        let space = Space::new(2 * (OVERHEAD + 2));
        let soon = Some(Duration::from_nanos(1));
        set(&space, "a", "1", soon).expect("room");
        set(&space, "b", "1", None).expect("room");
        assert_eq!(space.read("a"), None, "expired");
        set(&space, "c", "1", None).expect("its room is free");
        assert_eq!(set(&space, "d", "1", None), Err(KvError::Full));
        set(&space, "c", "2", None).expect("the same size in its place");
        assert_eq!(set(&space, "c", "22", None), Err(KvError::Full));
        assert_eq!(space.read("c").map(|entry| entry.value), Some(b"2".to_vec()), "as it was");
        assert_eq!(set(&space, &"k".repeat(KEY + 1), "", None), Err(KvError::Full));
        space.limit(10_000);
        set(&space, "d", "1", None).expect("more room");
    }

    #[test]
    fn numbers_add_up_and_keep_their_time() {
        let space = Space::new(1000);
        assert_eq!(space.increment("n", 2, None), Ok(2));
        assert_eq!(space.increment("n", -5, Some(Duration::ZERO)), Ok(-3));
        assert_eq!(space.increment("n", i64::MAX, None), Ok(i64::MAX - 3), "its time was not shortened");
        assert_eq!(space.increment("n", 9, None), Ok(i64::MAX), "as far as numbers go");
        set(&space, "t", "text", None).expect("room");
        assert_eq!(space.increment("t", 1, None), Err(KvError::NotANumber));
    }

    #[test]
    fn many_threads_lose_no_step() {
        let space = Space::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert!(space.increment("n", 1, None).is_ok())));
            }
        });
        assert_eq!(space.increment("n", 0, None), Ok(4000));
    }

    #[tokio::test]
    async fn one_makes_it_and_the_others_wait_for_it() {
        let space = Arc::new(Space::new(1000));
        let hold = Duration::from_secs(60);
        let Ok(Lookup::Reserved(version)) = space.get_or_reserve("k", hold).await else {
            panic!("the first")
        };
        assert_eq!(space.read("k"), None, "there is nothing yet");
        let others: Vec<_> = (0..3)
            .map(|_| {
                let space = Arc::clone(&space);
                tokio::spawn(async move { space.get_or_reserve("k", hold).await })
            })
            .collect();
        tokio::task::yield_now().await;
        space.write("k", Condition::Version(Some(version)), b"made".to_vec(), None).expect("reserved");
        for other in others {
            let found = other.await.expect("no panic");
            assert!(matches!(found, Ok(Lookup::Found(entry)) if entry.value == b"made"));
        }
    }

    #[test]
    fn who_waits_for_a_key_is_not_woken_by_all_others() {
        let space = Space::new(1000);
        let rooms: std::collections::BTreeSet<usize> =
            (0..100).map(|key| std::ptr::from_ref(space.changed(&key.to_string())).addr()).collect();
        assert!(rooms.len() > WAITING_ROOMS / 2, "{}", rooms.len());
        assert!(std::ptr::eq(space.changed("a"), space.changed("a")));
    }

    #[tokio::test]
    async fn who_gives_up_or_takes_too_long_leaves_the_task_to_another() {
        let space = Space::new(1000);
        let short = Duration::from_millis(5);
        assert!(matches!(space.get_or_reserve("k", short).await, Ok(Lookup::Reserved(_))));
        assert!(
            matches!(space.get_or_reserve("k", Duration::from_secs(60)).await, Ok(Lookup::Reserved(_))),
            "late"
        );
        space.remove("k");
        assert!(matches!(space.get_or_reserve("k", short).await, Ok(Lookup::Reserved(_))), "given up");
    }
}
