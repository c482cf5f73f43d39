//! A running engine and its peers, for tests of what is seen on the wire.
//!
//! Every test has an [`engine::Engine`] of its own: a process, a directory, and a handful of loopback
//! addresses that no other test uses. So all of them run at once.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
// Each test binary uses another part of this.
#![allow(dead_code, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub(crate) mod calls;
pub(crate) mod digest;
pub(crate) mod engine;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod kamailio;
pub(crate) mod message;
pub(crate) mod network;
pub(crate) mod nsd;
pub(crate) mod offer;
pub(crate) mod phone;
pub(crate) mod replaces;
pub(crate) mod rtp;
pub(crate) mod sipp;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod ua;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use engine::Engine;
pub(crate) use message::Msg;
pub(crate) use nsd::Nsd;
pub(crate) use phone::TestPhone;
pub(crate) use sipp::Sipp;
pub(crate) use ua::{Leg, Ua, sdp};

/// What happens on loopback has happened after this, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Looks again and again until there is something, for at most [`SOON`].
///
/// # Panics
///
/// If there is nothing by then; `what` says what was missed.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(SOON, what, look)
}

/// [`eventually`] with a limit of the caller's.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// `Some(())` if it is so, for [`eventually`].
pub(crate) fn so(is: bool) -> Option<()> {
    is.then_some(())
}
