//! RFC 3261 §17 transactions, with the corrections of RFC 6026.
//!
//! A machine here knows nothing of bytes or addresses. It is told what came (a provisional, a final, a retransmission,
//! the time) and says what to do: pass it up, send the last message again, acknowledge, end. The endpoint keeps the
//! messages.

mod invite_client;
mod invite_server;
mod non_invite;
mod timer;

pub use invite_client::{ClientAction, InviteClient};
pub use invite_server::{InviteServer, ServerAction};
pub use non_invite::{NonInviteClient, NonInviteServer};
pub use timer::{Expiry, Timers, timer_f};
