//! What the store keeps of a call: an attempt in progress, or the checkpoint of an established call.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tandem_media::session::SessionConfig;
use tandem_protocol::b2bua::LegId;

use super::Replaced;
use crate::calls::Info;
use crate::config::ServiceKind;
use crate::directory::{Directory, Permit, PlaceOf};
use crate::media_pool::order::Lease;
use crate::seat::Seat;

/// The number of the record's format.
const FORMAT: u8 = 4;
/// What a record of the format before ends without: nobody has taken a side's place.
const FORMER_LACKS: &[u8] = &[0];

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
        match permit.of() {
            PlaceOf::Station(station) => Counted::Station(station.config.name.clone()),
            PlaceOf::Trunk(trunk) => Counted::Trunk(trunk.config.name.clone()),
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
    pub(crate) fn permit(&self, directory: &Directory, seat: &Arc<Seat>) -> Option<Permit> {
        match self {
            Counted::Station(name) => directory.station(name)?.permit(seat),
            Counted::Trunk(name) => directory.trunk(name)?.permit_again(seat),
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
    // What is newer than the format before stands at the end: see [`FORMER_LACKS`].
    pub(crate) replaced: Option<Replaced>,
}

/// [`CallRecord`] as it is written, with the same fields in the same order.
#[derive(Serialize)]
pub(crate) struct RecordView<'a> {
    pub(crate) info: &'a Info,
    pub(crate) call: Option<Bytes>,
    pub(crate) legs: Vec<(LegId, Bytes, &'a str)>,
    pub(crate) media: SavedMedia,
    pub(crate) counted: Vec<Counted>,
    pub(crate) replaced: Option<&'a Replaced>,
}

impl RecordView<'_> {
    pub(crate) fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }
}

impl CallRecord {
    pub(crate) fn thaw(frozen: &[u8]) -> Option<CallRecord> {
        crate::checkpoint::thaw_grown(FORMAT, frozen, FORMER_LACKS)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tandem_media::codec::Codec;
    use tandem_media::session::{Direction, Learn, Mode};
    use tandem_protocol::b2bua::{CALLER, Side};
    use tandem_protocol::time::{Instant, UnixMillis};

    use super::super::replaces::Taken;
    use super::*;
    use crate::calls::CallKey;
    use crate::checkpoint::golden::Golden;

    fn config(service: bool) -> SessionConfig {
        SessionConfig {
            remote_rtp: Some(([192, 0, 2, 1], 4_000).into()),
            remote_rtcp: Some(([192, 0, 2, 1], 4_003).into()),
            signalling_ip: [192, 0, 2, 2].into(),
            learn: Learn::Any,
            direction: Direction::SendOnly,
            codec: Some(Codec::Pcma),
            payload_types: vec![8, 0],
            telephone_event: Some(101),
            mode: if service { Mode::Echo } else { Mode::Relay },
            rtp_timeout: Some(Duration::from_secs(120)),
        }
    }

    fn side(worker: u16, config: Option<SessionConfig>) -> SavedSide {
        let rtp = ([10, 0, 0, 9], 20_000 + 2 * worker).into();
        SavedSide { lease: Lease { worker, rtp }, config }
    }

    fn media(service: Option<ServiceKind>) -> SavedMedia {
        let sides = vec![side(0, Some(config(service.is_some()))), side(1, None)];
        SavedMedia { sides, record: true, segments: 3, service }
    }

    /// A call between a trunk and a station; answered, or to a service and on its way.
    fn sample(answered: bool) -> CallRecord {
        let info = Info {
            id: "k1".into(),
            key: CallKey(300),
            from: "5550100".to_owned(),
            to: "1001".to_owned(),
            trunk: Some("in".to_owned()),
            route: "station:1001".to_owned(),
            started_at: UnixMillis(1_800_000_000_000),
            started_mono: Instant::default(),
            answered_at: answered.then_some(UnixMillis(1_800_000_005_000)),
            unprotected: true,
            emergency: true,
        };
        let leg =
            |leg, frozen: &'static [u8], call_id: &str| (leg, Bytes::from_static(frozen), call_id.to_owned());
        CallRecord {
            info,
            call: answered.then(|| Bytes::from_static(b"call")),
            legs: vec![leg(CALLER, b"caller", "one@peer"), leg(LegId(2), b"callee", "two@us")],
            media: media((!answered).then_some(ServiceKind::Tone)),
            counted: vec![Counted::Trunk("in".into()), Counted::Station("1001".into())],
            replaced: None,
        }
    }

    fn freeze(record: &CallRecord) -> Option<Bytes> {
        let CallRecord { info, call, legs, media, counted, replaced } = record;
        let legs = legs.iter().map(|(leg, frozen, call_id)| (*leg, frozen.clone(), &**call_id)).collect();
        let (call, media, counted) = (call.clone(), media.clone(), counted.clone());
        RecordView { info, call, legs, media, counted, replaced: replaced.as_ref() }.freeze()
    }

    fn holds(record: CallRecord) {
        let expected = sample(record.call.is_some());
        assert_eq!(format!("{record:?}"), format!("{expected:?}"));
    }

    /// The same, whose caller has been replaced.
    fn replaced() -> CallRecord {
        let (side, at) = (Side::Caller, UnixMillis(1_800_000_006_000));
        let taken = Taken { side, by: "trunk:pbx".to_owned(), from: "7777".to_owned(), at };
        let replaced = Replaced { from_trunk: Some("in".into()), taken: vec![taken] };
        CallRecord { replaced: Some(replaced), ..sample(true) }
    }

    #[test]
    fn the_record_of_a_call_in_which_somebody_was_replaced_is_restored_from_every_golden_checkpoint() {
        let holds = |record: CallRecord| assert_eq!(format!("{record:?}"), format!("{:?}", replaced()));
        let kind = "call_record_replaced";
        Golden { kind, freeze, thaw: |frozen| CallRecord::thaw(frozen), holds }.check(&replaced());
    }

    #[test]
    fn the_record_of_a_call_is_restored_from_every_golden_checkpoint() {
        for (kind, answered) in [("call_record", true), ("call_record_unanswered", false)] {
            Golden { kind, freeze, thaw: |frozen| CallRecord::thaw(frozen), holds }.check(&sample(answered));
        }
    }
}
