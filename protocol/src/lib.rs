//! The sans-IO SIP rules of Tandem: messages, transactions, dialogs, SDP, digest, dial plan.
//!
//! Nothing here opens a socket, reads a clock or asks the operating system for randomness:
//! every machine takes its input and the time, and returns outputs and its next deadline.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod b2bua;
pub mod decimal;
pub mod dial_plan;
pub mod dialog;
pub mod digest;
pub mod diversion;
pub mod dns;
pub mod flow;
pub mod fnv;
pub mod happy_eyeballs;
pub mod header_rules;
pub mod identity;
pub mod index;
pub mod message;
pub mod number_rules;
pub mod overload;
pub mod overload_control;
pub mod proxy_list;
pub mod registrar;
pub mod registration;
pub mod sdp;
pub mod time;
pub mod toll_fraud;
pub mod transaction;
pub mod trunk_health;
