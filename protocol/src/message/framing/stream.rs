//! The messages of a byte stream: RFC 3261 §18.3, with the keep-alive of RFC 5626 §3.5.1 between them.

use bytes::{Buf, Bytes, BytesMut};

use super::headers;

/// How much room there is for the next piece of the stream.
const PIECE: usize = 4096;
/// A buffer that has grown beyond this is given back when its message has gone.
const KEPT: usize = 16_384;

/// What the stream holds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message, whole: header section and as many bytes as its Content-Length says.
    Message(Bytes),
    /// A double CRLF between messages, to be answered by a single one.
    Ping,
}

/// Why a stream cannot be read any further: where its next message begins is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message, or its header section alone, is larger than is taken.
    #[error("the message is too large")]
    TooLarge(Bytes),
    /// The header section has no Content-Length.
    #[error("Content-Length is missing")]
    NoLength(Bytes),
    /// Content-Length is no number, or there are two that differ.
    #[error("Content-Length is unusable")]
    BadLength(Bytes),
    /// What came does not begin like SIP: perhaps TLS or HTTP.
    #[error("not SIP")]
    NotSip,
}

impl FrameError {
    /// The header section, as far as it came, and the status that a request with it gets; `None` if nothing shall be answered.
    pub fn answer(&self) -> Option<(&Bytes, u16)> {
        match self {
            FrameError::TooLarge(head) => Some((head, 513)),
            FrameError::NoLength(head) | FrameError::BadLength(head) => Some((head, 400)),
            FrameError::NotSip => None,
        }
    }
}

/// Finds messages in a stream, however it is cut into pieces. It holds one message at most, and looks at each byte once.
#[derive(Clone, Debug)]
pub struct Framer {
    buffer: BytesMut,
    max_bytes: usize,
    /// The first byte of a header section that has not been looked at.
    scanned: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// Length of the message, once its header section is there.
    length: Option<usize>,
    /// True after one CRLF between messages: another makes a ping.
    half_ping: bool,
}

impl Framer {
    /// A framer of messages of at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Framer {
        Framer { buffer: BytesMut::new(), max_bytes, scanned: 0, line: 0, length: None, half_ping: false }
    }

    /// Where the next piece of the stream is to be appended. There is room for one; more than that shall not be appended before
    /// [`Framer::poll_frame`] has been asked until it gives nothing.
    pub fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(PIECE);
        &mut self.buffer
    }

    /// True while a message has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next message or ping, if it is there whole.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing more can be read after one.
    pub fn poll_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.line == 0 && self.scanned == 0 && self.skip_line_ends() {
            return Ok(Some(Frame::Ping));
        }
        if self.buffer.is_empty() {
            if self.buffer.capacity() > KEPT {
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        }
        if self.buffer.as_ref() == b"\r" {
            return Ok(None);
        }
        let length = match self.length {
            Some(length) => length,
            None => match self.head_end()? {
                Some(head) => self.measure(head)?,
                None => return Ok(None),
            },
        };
        self.length = Some(length);
        if self.buffer.len() < length {
            return Ok(None);
        }
        let message = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        (self.scanned, self.line, self.length) = (0, 0, None);
        Ok(Some(Frame::Message(message)))
    }

    /// Takes line ends before a message; true at the second CRLF.
    fn skip_line_ends(&mut self) -> bool {
        loop {
            let line_end = match self.buffer.as_ref() {
                [b'\r', b'\n', ..] => 2,
                [b'\n', ..] => 1,
                // One half of a line end: the other comes.
                [b'\r'] | [] => return false,
                [_, ..] => {
                    self.half_ping = false;
                    return false;
                }
            };
            self.buffer.advance(line_end);
            self.half_ping = !self.half_ping;
            if !self.half_ping {
                return true;
            }
        }
    }

    /// The length of the header section with its empty line, if it is there.
    fn head_end(&mut self) -> Result<Option<usize>, FrameError> {
        while let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
            let end = self.scanned + at;
            let line = &self.buffer[self.line..end];
            if self.line == 0 && !is_start_line(line) {
                return Err(FrameError::NotSip);
            }
            if matches!(line, b"" | b"\r") {
                return if end < self.max_bytes { Ok(Some(end + 1)) } else { Err(self.too_large()) };
            }
            self.scanned = end + 1;
            self.line = end + 1;
        }
        self.scanned = self.buffer.len();
        if self.line == 0 && !may_begin(&self.buffer) {
            return Err(FrameError::NotSip);
        }
        if self.buffer.len() >= self.max_bytes { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> FrameError {
        let head = &self.buffer[..self.buffer.len().min(self.max_bytes)];
        FrameError::TooLarge(Bytes::copy_from_slice(head))
    }

    /// The length of the message whose header section has `head` bytes.
    fn measure(&self, head: usize) -> Result<usize, FrameError> {
        let section = &self.buffer[..head];
        let copy = || Bytes::copy_from_slice(section);
        let mut length: Option<Option<usize>> = None;
        headers(section, b"content-length", b'l', |value| {
            let one = number(value);
            length = Some(one.filter(|_| length.is_none() || length == Some(one)));
            None::<()>
        });
        match length {
            None => Err(FrameError::NoLength(copy())),
            Some(None) => Err(FrameError::BadLength(copy())),
            Some(Some(body)) => match head.checked_add(body) {
                Some(whole) if whole <= self.max_bytes => Ok(whole),
                Some(_) | None => Err(FrameError::TooLarge(copy())),
            },
        }
    }
}

/// `1*DIGIT`. What does not fit is as good as the largest.
fn number(value: &[u8]) -> Option<usize> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    Some(text.parse().unwrap_or(usize::MAX))
}

/// Whether a whole first line is one of SIP: it begins or ends with a version.
fn is_start_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let version = |text: Option<&[u8]>| text.is_some_and(|text| text.eq_ignore_ascii_case(b"SIP/"));
    version(line.get(..4))
        || memchr::memrchr(b' ', line).is_some_and(|space| version(line.get(space + 1..space + 5)))
}

/// Whether the beginning of a first line can still become one of SIP: a token (a method or a version) and text.
fn may_begin(start: &[u8]) -> bool {
    let word = start.iter().position(|b| *b == b' ').map_or(start, |space| &start[..space]);
    word.len() <= 64 && word.iter().all(|b| b.is_ascii_graphic() || *b == b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 2000;

    fn options(body: &str) -> String {
        format!("OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Feeds the stream in pieces of `size` bytes.
    fn read(stream: &[u8], size: usize) -> (Vec<Frame>, Option<FrameError>, Framer) {
        let mut framer = Framer::new(MAX);
        let mut frames = Vec::new();
        for piece in stream.chunks(size) {
            framer.room().extend_from_slice(piece);
            loop {
                match framer.poll_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error), framer),
                }
            }
        }
        (frames, None, framer)
    }

    fn message(text: &str) -> Frame {
        Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn pipelined_messages_are_found_however_the_stream_is_cut() {
        let (a, b) = (options("body\r\n\r\nINVITE x SIP/2.0\r\n"), options(""));
        let stream = format!("{a}\r\n{b}\r\n\r\n{a}");
        for size in 1..=stream.len() {
            let (frames, error, framer) = read(stream.as_bytes(), size);
            assert_eq!(error, None);
            assert_eq!(frames, [message(&a), message(&b), Frame::Ping, message(&a)], "pieces of {size}");
            assert!(!framer.is_partial());
        }
    }

    #[test]
    fn a_partial_message_is_held_until_it_is_whole() {
        let whole = options("12345");
        let (frames, _, framer) = read(&whole.as_bytes()[..whole.len() - 1], 7);
        assert_eq!(frames, []);
        assert!(framer.is_partial());
    }

    #[test]
    fn a_double_line_end_is_a_ping_and_a_single_one_is_nothing() {
        assert_eq!(read(b"\r\n\r\n", 1).0, [Frame::Ping]);
        assert_eq!(read(b"\r\n\r\n\r\n\r\n", 3).0, [Frame::Ping, Frame::Ping]);
        let (frames, error, framer) = read(b"\r\n", 2);
        assert_eq!((frames, error, framer.is_partial()), (vec![], None, false));
        let a = options("");
        let between = format!("\r\n{a}\r\n{a}");
        assert_eq!(
            read(between.as_bytes(), 5).0,
            [message(&a), message(&a)],
            "a message parts two line ends"
        );
    }

    #[test]
    fn without_a_usable_length_the_stream_is_lost() {
        let head = "OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n";
        let lost = |more: &str| read(format!("{head}{more}\r\n").as_bytes(), 9).1;
        assert!(matches!(lost(""), Some(FrameError::NoLength(_))));
        for bad in ["-1", "1x", "", "+5", "1 1"] {
            let error = lost(&format!("Content-Length: {bad}\r\n"));
            assert!(matches!(error, Some(FrameError::BadLength(_))), "{bad}: {error:?}");
        }
        let error = lost("Content-Length: 0\r\nl: 5\r\n");
        assert!(matches!(&error, Some(FrameError::BadLength(_))));
        assert_eq!(error.unwrap().answer().map(|(_, status)| status), Some(400));
        assert_eq!(lost("l: 0\r\nContent-Length : 0\r\n"), None);
    }

    #[test]
    fn what_is_too_large_is_known_before_it_has_come() {
        for length in ["1990", "99999999999999999999999"] {
            let head =
                format!("INVITE sip:a SIP/2.0\r\nContent-Length: {length}\r\nSubject: 1234567\r\n\r\n");
            let (_, error, _) = read(head.as_bytes(), 10);
            assert_eq!(error.unwrap().answer().map(|(_, status)| status), Some(513), "{length}");
        }
        let endless = format!("INVITE sip:a SIP/2.0\r\n{}", "X: y\r\n".repeat(MAX));
        let (_, error, framer) = read(endless.as_bytes(), 100);
        assert!(matches!(error, Some(FrameError::TooLarge(_))));
        assert!(framer.buffer.len() < MAX + 100);
    }

    #[test]
    fn what_is_not_sip_is_known_early() {
        for other in ["GET / HTTP/1.1\r\n", "\u{16}\u{3}\u{1}", "hello\r\n", &"x".repeat(65)] {
            assert_eq!(read(other.as_bytes(), 5).1, Some(FrameError::NotSip), "{other:?}");
        }
        assert_eq!(read(b"SIP/2.0 200 OK\r\n", 5).1, None);
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut framer = Framer::new(65_535);
        framer.room().extend_from_slice(options(&"x".repeat(60_000)).as_bytes());
        assert!(matches!(framer.poll_frame(), Ok(Some(Frame::Message(_)))));
        assert_eq!(framer.poll_frame(), Ok(None));
        assert!(framer.buffer.capacity() <= KEPT);
    }
}
