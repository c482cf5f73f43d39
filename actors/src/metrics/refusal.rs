//! Why requests are refused: the `reason` of `tandem_invites_refused_total` and `tandem_requests_refused_total`.

/// Why a request was refused; an INVITE, before it became a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not understood.
    Malformed,
    /// No or wrong credentials.
    Unauthorized,
    /// No route for what was dialled.
    NotFound,
    /// No common media, or a body that is none.
    Media,
    /// No media port left.
    NoPort,
    /// A limit is reached.
    Limit,
    /// An extension, scheme or event is required that is not there.
    Unsupported,
    /// It has come by us before.
    Loop,
    /// The engine is draining.
    Draining,
    /// The media workers have not said yet what ports they have, or a dialog is still being restored: it is not answered and
    /// comes again.
    Starting,
    /// A method that is not allowed here.
    NotAllowed,
    /// It belongs to a dialog or transaction that does not exist.
    NoDialog,
    /// Its session interval is too small (RFC 4028).
    SessionInterval,
    /// It is for a `sips` URI, and no way by TLS leads to whom it asks for (RFC 5630).
    Insecure,
    /// More comes than can be done.
    Overload,
}

impl Refusal {
    pub(super) const ALL: [Refusal; 15] = [
        Refusal::Malformed,
        Refusal::Unauthorized,
        Refusal::NotFound,
        Refusal::Media,
        Refusal::NoPort,
        Refusal::Limit,
        Refusal::Unsupported,
        Refusal::Loop,
        Refusal::Draining,
        Refusal::Starting,
        Refusal::NotAllowed,
        Refusal::NoDialog,
        Refusal::SessionInterval,
        Refusal::Insecure,
        Refusal::Overload,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Unauthorized => "unauthorized",
            Refusal::NotFound => "not_found",
            Refusal::Media => "media",
            Refusal::NoPort => "no_port",
            Refusal::Limit => "limit",
            Refusal::Unsupported => "unsupported",
            Refusal::Loop => "loop",
            Refusal::Draining => "draining",
            Refusal::Starting => "starting",
            Refusal::NotAllowed => "not_allowed",
            Refusal::NoDialog => "no_dialog",
            Refusal::SessionInterval => "session_interval",
            Refusal::Insecure => "insecure",
            Refusal::Overload => "overload",
        }
    }
}
