//! What the store keeps of a call: an attempt in progress, or the checkpoint of an established call.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tandem_media::session::SessionConfig;
use tandem_protocol::b2bua::LegId;

use crate::calls::Info;
use crate::config::ServiceKind;
use crate::directory::{Directory, Permit};
use crate::media_pool::order::Lease;

/// The number of the record's format.
const FORMAT: u8 = 3;

/// The media of one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSide {
    pub(crate) lease: Lease,
    pub(crate) config: Option<SessionConfig>,
}

/// The media of a call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedMedia {
    pub(crate) sides: Vec<SavedSide>,
    pub(crate) record: bool,
    pub(crate) segments: u32,
    pub(crate) service: Option<ServiceKind>,
}

/// Whose limit a call counts against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Counted {
    Station(Arc<str>),
    Trunk(Arc<str>),
}

impl Counted {
    pub(crate) fn of(permit: &Permit) -> Counted {
        match permit {
            Permit::Station(station) => Counted::Station(station.config.name.clone()),
            Permit::Trunk(trunk) => Counted::Trunk(trunk.config.name.clone()),
        }
    }

    /// The trunk whose place it is.
    pub(crate) fn trunk(&self) -> Option<String> {
        match self {
            Counted::Station(_) => None,
            Counted::Trunk(name) => Some(name.to_string()),
        }
    }

    /// The place again; `None` if its owner is no longer configured or has as many calls as it may.
    pub(crate) fn permit(&self, directory: &Directory) -> Option<Permit> {
        match self {
            Counted::Station(name) => directory.station(name)?.permit(),
            Counted::Trunk(name) => directory.trunk(name)?.permit_again(),
        }
    }
}

/// One record.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CallRecord {
    pub(crate) info: Info,
    /// The call's checkpoint; `None`: it had not been answered.
    pub(crate) call: Option<Bytes>,
    /// Each leg's checkpoint, with its Call-ID.
    pub(crate) legs: Vec<(LegId, Bytes, String)>,
    pub(crate) media: SavedMedia,
    /// The limits it counts against.
    pub(crate) counted: Vec<Counted>,
}

/// [`CallRecord`] as it is written, with the same fields in the same order.
#[derive(Serialize)]
pub(crate) struct RecordView<'a> {
    pub(crate) info: &'a Info,
    pub(crate) call: Option<Bytes>,
    pub(crate) legs: Vec<(LegId, Bytes, &'a str)>,
    pub(crate) media: SavedMedia,
    pub(crate) counted: Vec<Counted>,
}

impl RecordView<'_> {
    pub(crate) fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }
}

impl CallRecord {
    pub(crate) fn thaw(frozen: &[u8]) -> Option<CallRecord> {
        crate::checkpoint::thaw(FORMAT, frozen)
    }
}
