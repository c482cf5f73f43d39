//! The registrar's rules for one address-of-record (RFC 3261 §10.3).
//!
//! [`Bindings`] is what is kept and stored of a station. It is driven by [`Bindings::update`] with what a REGISTER
//! says and by [`Bindings::expire`] when [`Bindings::next_expiry`] has come.

mod answer;
mod borrowed;
mod contact;
mod request;
#[cfg(test)]
mod request_tests;
mod target_set;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

use crate::flow::{ConnectionId, Flow};
use crate::time::UnixMillis;

pub use answer::grant;
pub use borrowed::BindingRef;
pub use contact::same_contact;
pub use request::{Asked, BadRegister, look, read};
pub use target_set::{Flows, target_set};

/// One contact of an address-of-record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The contact's URI as registered.
    pub contact: String,
    /// The Call-ID of the REGISTER that last set it.
    pub call_id: String,
    /// The CSeq number of that REGISTER.
    pub cseq: u32,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// Its preference in thousandths; 1000 is the most wanted.
    pub q: u16,
    /// The way back to the device.
    pub source: Flow,
    /// The `Path` values, nearest proxy first (RFC 3327).
    pub path: Vec<String>,
    /// `+sip.instance` (RFC 5626 §4.1).
    pub instance: Option<String>,
    /// `reg-id` (RFC 5626 §4.2).
    pub reg_id: Option<u32>,
    /// What the device calls itself.
    pub user_agent: Option<String>,
}

impl Binding {
    /// Seconds until it ends, rounded up: the `expires` parameter of the 200.
    pub fn expires_in(&self, now: UnixMillis) -> u32 {
        let seconds = self.expires_at.0.saturating_sub(now.0).div_ceil(1_000);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

/// What a registrar grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The shortest interval in seconds; less is answered 423.
    pub min_expires: u32,
    /// The longest interval in seconds; more is shortened.
    pub max_expires: u32,
    /// The interval in seconds of a contact that asks for none.
    pub default_expires: u32,
    /// How many bindings are kept; the one refreshed longest ago goes.
    pub max_contacts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_expires: 60, max_expires: 86_400, default_expires: 3_600, max_contacts: 10 }
    }
}

/// One `Contact` of a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactUpdate {
    /// The URI, without angle brackets and header parameters.
    pub uri: String,
    /// The `expires` parameter in seconds.
    pub expires: Option<u32>,
    /// The `q` parameter in thousandths, 1000 if it has none.
    pub q: u16,
    /// The `+sip.instance` parameter.
    pub instance: Option<String>,
    /// The `reg-id` parameter.
    pub reg_id: Option<u32>,
}

impl ContactUpdate {
    /// A contact without parameters.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), expires: None, q: 1_000, instance: None, reg_id: None }
    }

    /// With the `expires` parameter, in seconds.
    pub fn expiring_in(self, expires: u32) -> Self {
        Self { expires: Some(expires), ..self }
    }

    /// RFC 5626 §6: with an instance and a reg-id these two name the binding, whatever its URI is.
    fn names(&self, binding: &Binding) -> bool {
        let mine = self.instance.as_ref().zip(self.reg_id);
        let theirs = binding.instance.as_ref().zip(binding.reg_id);
        match mine.zip(theirs) {
            Some((mine, theirs)) => mine == theirs,
            None => same_contact(&self.uri, &binding.contact),
        }
    }
}

/// The contacts of a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContactSet {
    /// No `Contact`: what is registered?
    Query,
    /// `Contact: *`: everything goes. A `*` beside other contacts is malformed and never gets here.
    Star,
    /// One or more contacts.
    List(Vec<ContactUpdate>),
}

/// What a REGISTER asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Its Call-ID.
    pub call_id: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its contacts.
    pub contacts: ContactSet,
    /// Its `Expires` header in seconds.
    pub default_expires: Option<u32>,
    /// Where it came from.
    pub source: Flow,
    /// Its `Path` values.
    pub path: Vec<String>,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// Whether it is carried out by the rules of RFC 5626: the device keeps flows.
    pub outbound: bool,
    /// What may be granted.
    pub limits: Limits,
}

/// Why a REGISTER changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// `Contact: *` without `Expires: 0`.
    #[error("Contact * needs Expires: 0")]
    StarNeedsExpiresZero,
    /// An interval is shorter than the least we grant.
    #[error("interval too brief: at least {min_expires} s")]
    IntervalTooBrief {
        /// The value of `Min-Expires`, in seconds.
        min_expires: u32,
    },
    /// The REGISTER is older than one that was already carried out: same Call-ID, CSeq not higher.
    #[error("CSeq out of order")]
    OutOfOrder,
    /// The REGISTER alone has more contacts than an address-of-record may have.
    #[error("more than {max_contacts} contacts")]
    TooManyContacts {
        /// How many are allowed.
        max_contacts: usize,
    },
}

impl RegisterError {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::StarNeedsExpiresZero => 400,
            Self::IntervalTooBrief { .. } => 423,
            Self::OutOfOrder => 500,
            Self::TooManyContacts { .. } => 403,
        }
    }

    /// The value of `Min-Expires`, for 423.
    pub fn min_expires(&self) -> Option<u32> {
        match self {
            Self::IntervalTooBrief { min_expires } => Some(*min_expires),
            Self::StarNeedsExpiresZero | Self::OutOfOrder | Self::TooManyContacts { .. } => None,
        }
    }
}

/// The bindings of one address-of-record, the one refreshed longest ago first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bindings {
    list: Vec<Binding>,
}

impl Bindings {
    /// From stored bindings, the one refreshed longest ago first.
    pub fn from_list(list: Vec<Binding>) -> Self {
        Self { list }
    }

    /// All bindings, the one refreshed longest ago first. Some may have expired: see [`expire`](Self::expire).
    pub fn list(&self) -> &[Binding] {
        &self.list
    }

    /// As [`list`](Self::list), for one that keeps them.
    pub fn into_list(self) -> Vec<Binding> {
        self.list
    }

    /// The bindings that have not expired, the most wanted (highest q) first; equal ones in the order of refresh.
    pub fn by_preference(&self, now: UnixMillis) -> Vec<&Binding> {
        let mut current: Vec<&Binding> = self.list.iter().filter(|b| b.expires_at > now).collect();
        current.sort_by_key(|b| std::cmp::Reverse(b.q));
        current
    }

    /// Carries out an authenticated REGISTER; what is registered then, for the 200, is the [`list`](Self::list).
    ///
    /// Bindings that have expired by `now` are removed first; compare with [`list`](Self::list) before and after
    /// to tell what changed.
    ///
    /// # Errors
    /// [`RegisterError`]: then nothing has changed but what expired. It is all or nothing (RFC 3261 §10.3 step 7).
    pub fn update(&mut self, now: UnixMillis, update: &Update) -> Result<(), RegisterError> {
        self.expire(now);
        match &update.contacts {
            ContactSet::Query => Ok(()),
            ContactSet::Star => self.remove_all(update),
            ContactSet::List(contacts) => self.apply(now, update, contacts),
        }
    }

    /// The same, and returns what is registered then.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn register(
        &mut self,
        now: UnixMillis,
        update: impl Borrow<Update>,
    ) -> Result<Vec<Binding>, RegisterError> {
        self.update(now, update.borrow())?;
        Ok(self.list.clone())
    }

    fn remove_all(&mut self, update: &Update) -> Result<(), RegisterError> {
        if update.default_expires != Some(0) {
            return Err(RegisterError::StarNeedsExpiresZero);
        }
        self.list.iter().try_for_each(|binding| in_order(binding, update))?;
        self.list.clear();
        Ok(())
    }

    /// Nothing is changed before all is known to hold, so that a refused update leaves no trace.
    fn apply(
        &mut self,
        now: UnixMillis,
        update: &Update,
        contacts: &[ContactUpdate],
    ) -> Result<(), RegisterError> {
        let max_contacts = update.limits.max_contacts.max(1);
        let mut bound: Vec<Binding> = Vec::new();
        for contact in contacts {
            let seconds = granted(contact, update)?;
            let mut old = self.list.iter().filter(|binding| contact.names(binding));
            old.try_for_each(|binding| in_order(binding, update))?;
            // A contact that stands twice in one request counts as it stands last.
            bound.retain(|binding| !contact.names(binding));
            if seconds > 0 {
                bound.push(bind(now, update, contact, seconds));
            }
        }
        let stays = |binding: &Binding| !contacts.iter().any(|contact| contact.names(binding));
        let is_own = |b: &&Binding| b.call_id == update.call_id && b.cseq == update.cseq;
        let staying = self.list.iter().filter(|binding| stays(binding));
        if staying.filter(is_own).count() + bound.len() > max_contacts {
            return Err(RegisterError::TooManyContacts { max_contacts });
        }
        self.list.retain(stays);
        self.list.append(&mut bound);
        let surplus = self.list.len().saturating_sub(max_contacts);
        self.list.drain(..surplus);
        Ok(())
    }

    /// Removes the bindings that have expired by `now` and returns them.
    pub fn expire(&mut self, now: UnixMillis) -> Vec<Binding> {
        self.list.extract_if(.., |binding| binding.expires_at <= now).collect()
    }

    /// Removes the flows of devices that keep them, because their connection broke (RFC 5626 §5.3), and returns them.
    ///
    /// A device that keeps none may still be found at its contact, and one behind an edge proxy (`Path`) by another connection to
    /// that: their bindings stay.
    pub fn flow_failed(&mut self, connection: ConnectionId) -> Vec<Binding> {
        let failed = |binding: &mut Binding| {
            binding.is_outbound() && binding.path.is_empty() && binding.source.connection == Some(connection)
        };
        self.list.extract_if(.., failed).collect()
    }

    /// When the next binding expires.
    pub fn next_expiry(&self) -> Option<UnixMillis> {
        self.list.iter().map(|binding| binding.expires_at).min()
    }
}

/// RFC 3261 §10.3 step 7: with the same Call-ID only a higher CSeq changes a binding.
fn in_order(binding: &Binding, update: &Update) -> Result<(), RegisterError> {
    if binding.call_id == update.call_id && update.cseq <= binding.cseq {
        return Err(RegisterError::OutOfOrder);
    }
    Ok(())
}

/// The seconds granted to a contact; 0 removes it.
fn granted(contact: &ContactUpdate, update: &Update) -> Result<u32, RegisterError> {
    let limits = &update.limits;
    match contact.expires.or(update.default_expires) {
        None => Ok(limits.default_expires.min(limits.max_expires)),
        Some(0) => Ok(0),
        Some(asked) if asked < limits.min_expires => {
            Err(RegisterError::IntervalTooBrief { min_expires: limits.min_expires })
        }
        Some(asked) => Ok(asked.min(limits.max_expires)),
    }
}

fn bind(now: UnixMillis, update: &Update, contact: &ContactUpdate, seconds: u32) -> Binding {
    Binding {
        contact: contact.uri.clone(),
        call_id: update.call_id.clone(),
        cseq: update.cseq,
        expires_at: UnixMillis(now.0.saturating_add(u64::from(seconds) * 1_000)),
        q: contact.q.min(1_000),
        source: update.source,
        path: update.path.clone(),
        instance: contact.instance.clone(),
        reg_id: contact.reg_id,
        user_agent: update.user_agent.clone(),
    }
}
