//! Session descriptions: what is printed is read as the same.

use tandem_protocol::sdp::SessionDescription;
use tandem_protocol::sdp::negotiate::media_view;

pub(super) fn run(data: &[u8]) {
    let Ok(mut session) = SessionDescription::parse(data) else { return };
    // What was not understood is not printed.
    session.skipped_lines = 0;
    let printed = session.to_string();
    let again =
        SessionDescription::parse(printed.as_bytes()).unwrap_or_else(|why| panic!("{why}: {printed}"));
    assert_eq!(again.to_string(), printed);
    assert_eq!(ordered(&session), ordered(&again), "{printed}");
    let _ = media_view(&session);
    for media in &session.media {
        let _ = (session.direction(media), session.is_held_by_address(media));
        let _ = (session.effective_rtp_addr(media), session.rtcp_addr(media), media.rtcp(), media.ptime());
        for payload_type in media.payload_types() {
            let _ = (media.rtpmap(payload_type), media.fmtp(payload_type));
        }
        let _ = (media.telephone_event(8000), media.is_plain_rtp(), media.is_secure_rtp());
    }
}

/// Without the lines that are only handed on: printing puts them into the order of the grammar.
fn ordered(session: &SessionDescription) -> SessionDescription {
    let mut session = session.clone();
    session.other.clear();
    session.media.iter_mut().for_each(|media| media.other.clear());
    session
}
