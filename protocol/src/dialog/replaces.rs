//! Whether somebody else may take a peer's place in a dialog (RFC 3891 §3), and what the other side's peer is then offered.

use bytes::Bytes;

use super::{Dialog, LegEvent, Output, Phase};
use crate::message::Replaces;
use crate::sdp::negotiate::succeeding_offer;

/// How a dialog that is to be replaced stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaceable {
    /// Both sides have agreed.
    Confirmed,
    /// Our INVITE has been answered provisionally.
    Early,
}

/// Why a dialog is not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Irreplaceable {
    /// It is another one that was named: 481.
    #[error("no such dialog")]
    Other,
    /// It is early and was begun by the peer: 481.
    #[error("an early dialog that the peer began")]
    NotOurs,
    /// It has ended: 603.
    #[error("the dialog has ended")]
    Ended,
    /// It is confirmed, and was to be replaced only while it was early: 486.
    #[error("the dialog is confirmed")]
    NotEarly,
}

impl Irreplaceable {
    /// The status that says so (§3).
    pub fn status(self) -> u16 {
        match self {
            Irreplaceable::Other | Irreplaceable::NotOurs => 481,
            Irreplaceable::Ended => 603,
            Irreplaceable::NotEarly => 486,
        }
    }
}

impl Dialog {
    /// Whether this is the dialog that was named, and may be replaced.
    ///
    /// # Errors
    /// [`Irreplaceable`].
    pub fn replaceable(&self, named: &Replaces) -> Result<Replaceable, Irreplaceable> {
        if named.call_id != self.call_id || named.to_tag != self.local_tag {
            return Err(Irreplaceable::Other);
        }
        if let Phase::Calling(calling) = &self.phase {
            return match (self.forks.is_proceeding(&named.from_tag), calling.is_given_up()) {
                (false, _) => Err(Irreplaceable::Other),
                (true, true) => Err(Irreplaceable::Ended),
                (true, false) => Ok(Replaceable::Early),
            };
        }
        // §3: "0" also stands for the missing tag of an old peer.
        let theirs = self.remote_tag.as_deref().unwrap_or("0");
        if named.from_tag != theirs {
            return Err(Irreplaceable::Other);
        }
        match &self.phase {
            Phase::Incoming(_) | Phase::AnswerHeld(..) | Phase::Calling(_) => Err(Irreplaceable::NotOurs),
            Phase::Closing | Phase::Ended => Err(Irreplaceable::Ended),
            Phase::Confirmed if self.hanging_up.is_some() => Err(Irreplaceable::Ended),
            Phase::Confirmed if named.early_only => Err(Irreplaceable::NotEarly),
            Phase::Confirmed => Ok(Replaceable::Confirmed),
        }
    }

    /// The tag of the peer, once there is one.
    pub fn remote_tag(&self) -> Option<&str> {
        self.remote_tag.as_deref()
    }

    /// Offers the peer the session of somebody who takes the place of whoever is at the other side.
    pub(super) fn succeed(&mut self, offer: &Bytes, out: &mut Vec<Output>) {
        match succeeding_offer(offer, self.in_force.told()) {
            Ok(fitted) => {
                let offer = fitted.as_ref().unwrap_or(offer);
                self.in_force.we_offer(offer);
                self.reoffer(Some(offer), out);
            }
            Err(why) => out.push(Output::Up(LegEvent::ReofferRefused { status: why.status() })),
        }
    }
}
