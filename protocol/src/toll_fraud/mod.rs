//! What keeps a stolen password, or an open door, from becoming a bill: which numbers are [`international`](International), how
//! many new calls there may be ([`call_rate`]), and when there are suddenly more of them than ever ([`Surge`]).

pub mod call_rate;
mod international;
mod surge;

pub use international::International;
pub use surge::{Change, Measure, Past, Surge, Thresholds};
