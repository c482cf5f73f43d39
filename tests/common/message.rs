//! SIP messages as plain text.

/// A message that was received.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) text: String,
}

impl std::fmt::Debug for Msg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.text)
    }
}

impl Msg {
    /// The request line or status line.
    pub(crate) fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status of a response; `None` for a request.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first_line().strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// The method of a request; of a response the one it answers.
    pub(crate) fn method(&self) -> &str {
        match self.status() {
            Some(_) => self.header("CSeq").split_whitespace().nth(1).unwrap_or_default(),
            None => self.first_line().split(' ').next().unwrap_or_default(),
        }
    }

    /// Whether it is a request of this method.
    pub(crate) fn is(&self, method: &str) -> bool {
        self.status().is_none() && self.method() == method
    }

    /// Whether it is a response of this status to this method.
    pub(crate) fn answers(&self, method: &str, status: u16) -> bool {
        self.status() == Some(status) && self.method() == method
    }

    /// The Request-URI.
    pub(crate) fn uri(&self) -> &str {
        self.first_line().split(' ').nth(1).unwrap_or_default()
    }

    /// Every value of a header, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        head.lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The first value of a header.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers(name).first().copied();
        found.unwrap_or_else(|| panic!("no {name} in\n{self:?}"))
    }

    /// The URI of the first Contact.
    #[track_caller]
    pub(crate) fn contact(&self) -> String {
        let value = self.header("Contact");
        let inner = value.split_once('<').map_or(value, |(_, rest)| rest);
        inner.split('>').next().unwrap_or_default().to_owned()
    }

    /// The number of CSeq.
    #[track_caller]
    pub(crate) fn cseq(&self) -> u32 {
        self.header("CSeq").split(' ').next().and_then(|n| n.parse().ok()).expect("a CSeq number")
    }

    /// The tag of To, if it has one.
    pub(crate) fn to_tag(&self) -> Option<String> {
        tag(self.header("To"))
    }

    /// The values of Record-Route, in order.
    pub(crate) fn record_routes(&self) -> Vec<String> {
        let values = self.headers("Record-Route").into_iter().flat_map(|value| value.split(','));
        values.map(|value| value.trim().to_owned()).collect()
    }

    /// The body.
    pub(crate) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The value of the first SDP line that begins like this.
    pub(crate) fn sdp_line(&self, start: &str) -> Option<&str> {
        self.body().lines().find_map(|line| line.strip_prefix(start)).map(str::trim)
    }

    /// Where its SDP wants audio.
    #[track_caller]
    pub(crate) fn media(&self) -> std::net::SocketAddr {
        let ip =
            self.sdp_line("c=IN IP4 ").or_else(|| self.sdp_line("c=IN IP6 ")).and_then(|ip| ip.parse().ok());
        let port = self.sdp_line("m=audio ").and_then(|m| m.split(' ').next()?.parse().ok());
        let (Some(ip), Some(port)) = (ip, port) else { panic!("no audio address in\n{self:?}") };
        std::net::SocketAddr::new(ip, port)
    }
}

/// The tag of a From or To.
pub(crate) fn tag(value: &str) -> Option<String> {
    let after = value.split('>').nth(1).unwrap_or(value);
    after.split(';').find_map(|param| param.trim().strip_prefix("tag=")).map(str::to_owned)
}
