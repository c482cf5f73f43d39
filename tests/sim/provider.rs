//! The provider with whom the engine registers: it accepts every REGISTER.

use bytes::Bytes;

/// The answer to a datagram of the engine, if it is a REGISTER.
pub(crate) fn answer(request: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(request).ok()?;
    if !text.starts_with("REGISTER ") {
        return None;
    }
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in text.lines().skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        match name {
            "Via" | "From" | "Call-ID" | "CSeq" => answer.push_str(line),
            "To" => {
                answer.push_str(line);
                answer.push_str(";tag=provider");
            }
            "Contact" => {
                answer.push_str(line);
                answer.push_str(";expires=60");
            }
            _ => continue,
        }
        answer.push_str("\r\n");
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    Some(Bytes::from(answer))
}
