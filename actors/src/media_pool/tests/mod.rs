//! Workers and sessions as shards and phones see them, in virtual time.

mod faults;
pub(crate) mod fixture;
mod lives;
mod packets;
mod real;
mod recordings;
mod rig;
