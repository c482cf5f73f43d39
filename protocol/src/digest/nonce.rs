//! Nonces that are signed instead of stored, and the replay table of those in use.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::throttle::subscriber;
use crate::time::UnixMillis;

const SIGNED_BYTES: usize = 16;
const MAC_BYTES: usize = 16;

/// How far another node's clock may be ahead of ours.
const SKEW_MS: u64 = 60_000;

/// What a nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceCheck {
    /// Ours and young enough; `id` names its window in [`NonceWindows`].
    Fresh {
        /// The name of its window.
        id: u64,
    },
    /// Ours, and too old, or older than the process: what it was used for is not known any more.
    Expired,
    /// Not ours, or sent to another address.
    Foreign,
}

/// Makes and recognises nonces: base64url of (time, unique number, HMAC-SHA-256 of both and of the address it is sent
/// to, cut to 128 bits).
///
/// A nonce is worth something only from that address (of IPv6, its /64): so whoever uses one has received it, and is
/// where he says. RFC 7616 §3.3 warns that a client behind several proxies may change its address between
/// two requests; it is then asked again until it comes twice by the same. Nodes that share a key accept each other's nonces.
#[derive(Clone)]
pub struct NonceSigner {
    key: Hmac<Sha256>,
    process_start: UnixMillis,
}

impl fmt::Debug for NonceSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceSigner").field("process_start", &self.process_start).finish_non_exhaustive()
    }
}

impl NonceSigner {
    /// A signer with a secret key. A nonce signed before `process_start` counts as expired, because its window
    /// ended with the process before.
    pub fn new(key: [u8; 32], process_start: UnixMillis) -> Self {
        // HMAC pads a short key with zeros to the block of its hash (RFC 2104 §2): given so, it cannot fail.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        Self { key: Hmac::new(&block.into()), process_start }
    }

    /// A key for another purpose, which tells nothing of this one.
    pub fn derive(&self, purpose: &str) -> [u8; 16] {
        // Longer than what a nonce signs, so that no nonce has this MAC.
        self.mac(b"a key derived for another purpose", purpose.as_bytes())
    }

    fn sign(&self, signed: &[u8], source: IpAddr) -> [u8; MAC_BYTES] {
        match subscriber(source) {
            IpAddr::V4(ip) => self.mac(signed, &ip.octets()),
            IpAddr::V6(ip) => self.mac(signed, &ip.octets()[..8]),
        }
    }

    fn mac(&self, signed: &[u8], more: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.key.clone();
        mac.update(signed);
        mac.update(more);
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|index| full[index])
    }

    /// A nonce for a challenge sent to `source` at `now`; `unique` is a random number.
    pub fn challenge(&self, now: UnixMillis, unique: u64, source: IpAddr) -> String {
        // A clock that is set back below the process's start must not make every nonce too old.
        let now = now.max(self.process_start);
        let mut bytes = [0; SIGNED_BYTES + MAC_BYTES];
        bytes[..8].copy_from_slice(&now.0.to_be_bytes());
        bytes[8..SIGNED_BYTES].copy_from_slice(&unique.to_be_bytes());
        let mac = self.sign(&bytes[..SIGNED_BYTES], source);
        bytes[SIGNED_BYTES..].copy_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a nonce that comes from `source` was sent there by us, not longer than `max_age` ago.
    pub fn check(&self, nonce: &str, now: UnixMillis, max_age: Duration, source: IpAddr) -> NonceCheck {
        let mut bytes = [0; SIGNED_BYTES + MAC_BYTES];
        if URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes).ok() != Some(bytes.len()) {
            return NonceCheck::Foreign;
        }
        let (signed, mac) = bytes.split_at(SIGNED_BYTES);
        if !bool::from(self.sign(signed, source).ct_eq(mac)) {
            return NonceCheck::Foreign;
        }
        let now = now.max(self.process_start);
        let number = |range: &[u8]| range.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
        let (time, unique) = (number(&signed[..8]), number(&signed[8..]));
        let max_age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        let too_old = now.0.saturating_sub(time) > max_age || time < self.process_start.0;
        if too_old || time > now.0.saturating_add(SKEW_MS) {
            return NonceCheck::Expired;
        }
        NonceCheck::Fresh { id: window_id(UnixMillis(time), unique) }
    }
}

/// Bits of a window's id that hold the second of its nonce, so that a slot's age needs no word of its own.
const SECOND_BITS: u32 = 28;
const SECOND_MASK: u64 = (1 << SECOND_BITS) - 1;
const UNIQUE_BITS: u32 = 64 - SECOND_BITS;

fn window_id(time: UnixMillis, unique: u64) -> u64 {
    let unique = (unique ^ (unique >> SECOND_BITS)) & ((1 << UNIQUE_BITS) - 1);
    let id = ((time.0 / 1_000) << UNIQUE_BITS) | unique;
    // 0 marks an empty slot.
    id.max(1)
}

/// Whether a nonce count may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It was not used before; it is now.
    Ok,
    /// It was used before, is 0, or is more than 31 below the highest.
    Replay,
    /// No slot is free for a nonce that was not used before.
    TableFull,
}

/// The replay windows of every nonce in use, shared by all threads.
///
/// A fixed table in buckets of eight slots; a nonce belongs to one bucket. A slot is the nonce's id and one word:
/// the highest count seen and a bitmap of it and the 31 below, so that requests may overtake each other. Counting
/// is a compare-and-set on that word. Only the first use of a nonce takes a slot, under a flag of its bucket that
/// a thread tries for a bounded time and never waits on; a slot is taken from an empty one or from a nonce that
/// expired.
pub struct NonceWindows {
    buckets: Box<[Bucket]>,
    max_age: Duration,
}

const BUCKET_SLOTS: usize = 8;

/// How often a thread looks again at a bucket that another one is filling, which takes that one some 20 ns.
const TRIES: u32 = 20_000;

/// A slot outlives its nonce by this much, so that a thread that checked the nonce just before it expired does
/// not count in another's window.
const GRACE_S: u64 = 10;

#[derive(Default)]
struct Bucket {
    filling: AtomicU64,
    slots: [Slot; BUCKET_SLOTS],
}

#[derive(Default)]
struct Slot {
    id: AtomicU64,
    window: AtomicU64,
}

impl fmt::Debug for NonceWindows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceWindows")
            .field("slots", &(self.buckets.len() * BUCKET_SLOTS))
            .field("max_age", &self.max_age)
            .finish()
    }
}

impl NonceWindows {
    /// A table of at least `slots` windows (rounded up to a power of two, 17 bytes each) for nonces that live
    /// `max_age`.
    pub fn new(slots: usize, max_age: Duration) -> Self {
        let buckets = slots.div_ceil(BUCKET_SLOTS).max(1).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect(), max_age }
    }

    /// How long a nonce may be used after its challenge.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Uses count `nc` of the nonce that [`NonceSigner::check`] called `id`.
    pub fn accept(&self, id: u64, nc: u32, now: UnixMillis) -> Accept {
        if nc == 0 || id == 0 {
            return Accept::Replay;
        }
        let bucket = self.bucket(id);
        for _ in 0..TRIES {
            if let Some(slot) = bucket.find(id) {
                return slot.count(id, nc);
            }
            if bucket.filling.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                std::hint::spin_loop();
                continue;
            }
            let accept = match bucket.find(id) {
                Some(slot) => slot.count(id, nc),
                None => bucket.insert(id, nc, |old| self.is_reusable(old, now)),
            };
            bucket.filling.store(0, Ordering::Release);
            return accept;
        }
        Accept::TableFull
    }

    fn bucket(&self, id: u64) -> &Bucket {
        // Fibonacci hashing: the high bits depend on every bit of the id.
        let hash = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.buckets[(hash as usize) & (self.buckets.len() - 1)]
    }

    fn is_reusable(&self, id: u64, now: UnixMillis) -> bool {
        let age = (now.0 / 1_000).wrapping_sub(id >> UNIQUE_BITS) & SECOND_MASK;
        // An age in the upper half of the range is a nonce of the near future, by another node's clock.
        id == 0 || (age > self.max_age.as_secs().saturating_add(GRACE_S) && age <= SECOND_MASK / 2)
    }
}

impl Bucket {
    fn find(&self, id: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id.load(Ordering::Acquire) == id)
    }

    /// Takes a slot; the caller holds `filling`.
    fn insert(&self, id: u64, nc: u32, reusable: impl Fn(u64) -> bool) -> Accept {
        let free = self.slots.iter().find(|slot| reusable(slot.id.load(Ordering::Relaxed)));
        let Some(slot) = free else { return Accept::TableFull };
        slot.id.store(0, Ordering::Release);
        slot.window.store(Window { highest: nc, seen: 1 }.pack(), Ordering::Release);
        slot.id.store(id, Ordering::Release);
        Accept::Ok
    }
}

impl Slot {
    fn count(&self, id: u64, nc: u32) -> Accept {
        let mut old = self.window.load(Ordering::Acquire);
        while let Some(new) = Window::unpack(old).with(nc) {
            match self.window.compare_exchange_weak(old, new.pack(), Ordering::AcqRel, Ordering::Acquire) {
                // The slot may have passed to another nonce since it was found; then nothing is accepted.
                Ok(_) if self.id.load(Ordering::Acquire) == id => return Accept::Ok,
                Ok(_) => return Accept::Replay,
                Err(seen) => old = seen,
            }
        }
        Accept::Replay
    }
}

/// The counts seen: bit `n` of `seen` stands for `highest - n`.
#[derive(Clone, Copy)]
struct Window {
    highest: u32,
    seen: u32,
}

impl Window {
    fn pack(self) -> u64 {
        (u64::from(self.highest) << 32) | u64::from(self.seen)
    }

    fn unpack(word: u64) -> Self {
        Self { highest: (word >> 32) as u32, seen: word as u32 }
    }

    /// With `nc` seen; `None` if it was seen before or is too far below.
    fn with(self, nc: u32) -> Option<Self> {
        if nc > self.highest {
            let seen = self.seen.checked_shl(nc - self.highest).unwrap_or(0) | 1;
            return Some(Self { highest: nc, seen });
        }
        let bit = 1_u32.checked_shl(self.highest - nc)?;
        (self.seen & bit == 0).then_some(Self { seen: self.seen | bit, ..self })
    }
}
