//! The account of a run: every call as its phones saw it.

use tandem_phone::CallHandle;

/// How a call ended for one phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// [`Event::Failed`]
    Failed(u16),
    /// [`Event::Ended`]
    Ended { by_us: bool, status: Option<u16> },
}

/// A callee's phone in a call.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) phone: usize,
    pub(crate) handle: CallHandle,
    pub(crate) answered: Option<u64>,
    pub(crate) hung_up: Option<u64>,
    pub(crate) ends: Vec<(u64, End)>,
}

/// One call, as its phones saw it.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    /// Its number in the run.
    pub(crate) number: usize,
    pub(crate) at: u64,
    pub(crate) caller: usize,
    pub(crate) handle: CallHandle,
    pub(crate) from: String,
    /// It goes on until the session timers have come round.
    pub(crate) long: bool,
    /// As dialled.
    pub(crate) to: String,
    /// The Call-IDs of both sides.
    pub(crate) call_ids: Vec<String>,
    pub(crate) rang: bool,
    pub(crate) answered: Option<u64>,
    pub(crate) hung_up: Option<u64>,
    pub(crate) ends: Vec<(u64, End)>,
    pub(crate) legs: Vec<Leg>,
    /// One of its phones fell silent, and when; true if it took no part in the signalling either.
    pub(crate) faded: Option<(u64, usize, bool)>,
    /// Which of its phones ceased to refresh the session, and when.
    pub(crate) neglected: Vec<(u64, usize)>,
    /// It was not over when the engine was killed; when that was last.
    pub(crate) killed: Option<u64>,
    /// When the engine was first killed in it.
    pub(crate) first_killed: Option<u64>,
    /// What its phones complained of.
    pub(crate) complaints: Vec<(u64, usize, String)>,
}

impl Dial {
    /// Its ends, the caller's first.
    pub(crate) fn ears(&self) -> impl Iterator<Item = (usize, CallHandle)> {
        std::iter::once((self.caller, self.handle)).chain(self.legs.iter().map(|leg| (leg.phone, leg.handle)))
    }

    /// True if the caller hears himself.
    pub(crate) fn is_echo(&self) -> bool {
        self.to == "*43"
    }

    /// When the last phone had done with it.
    pub(crate) fn over_at(&self) -> Option<u64> {
        let caller = self.ends.first()?.0;
        self.legs.iter().try_fold(caller, |last, leg| Some(last.max(leg.ends.first()?.0)))
    }
}
