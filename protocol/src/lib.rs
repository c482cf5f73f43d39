//! The sans-IO SIP rules of Tandem: messages, transactions, dialogs, SDP, digest, dial plan.
//!
//! Nothing here opens a socket, reads a clock or asks the operating system for randomness:
//! every machine takes its input and the time, and returns outputs and its next deadline.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod message;
pub mod time;
