//! Who a certificate is for: the SIP domains in it (RFC 5922 §7.1), and addresses.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::ServerName;
use tandem_protocol::message::Uri;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Facts;

/// The identities of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    /// SIP domains, in lower case.
    pub domains: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl PeerNames {
    /// Those of a certificate in DER; `None` if it cannot be read.
    ///
    /// Domains are those of its SIP URIs without a user, and only without any such its DNS names (RFC 5922 §7.1). What its subject
    /// says does not count.
    pub fn of(certificate: &[u8]) -> Option<PeerNames> {
        PeerNames::read(&Certificate::from_der(certificate).ok()?)
    }

    fn read(certificate: &Certificate) -> Option<PeerNames> {
        let found = certificate.tbs_certificate.get::<SubjectAltName>().ok()?;
        let Some((_, SubjectAltName(all))) = found else { return Some(PeerNames::default()) };
        let (mut uris, mut hosts, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for name in &all {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => uris.extend(sip_domain(uri.as_str())),
                GeneralName::DnsName(name) => hosts.push(canonical(name.as_str())),
                GeneralName::IpAddress(bytes) => addresses.extend(address(bytes.as_bytes())),
                GeneralName::OtherName(_)
                | GeneralName::Rfc822Name(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::RegisteredId(_) => {}
            }
        }
        Some(PeerNames { domains: if uris.is_empty() { hosts } else { uris }, addresses })
    }

    /// True if a domain or address is among them: as a whole, for `*` stands for nothing (RFC 5922 §7.2).
    pub fn include(&self, name: &str) -> bool {
        match name.trim_matches(['[', ']']).parse() {
            Ok(ip) => self.addresses.contains(&ip),
            Err(_) => {
                let name = canonical(name);
                self.domains.contains(&name)
            }
        }
    }

    /// Each as text.
    pub fn to_strings(&self) -> Vec<String> {
        self.domains.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }
}

impl fmt::Display for PeerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.to_strings();
        f.write_str(if all.is_empty() { "nobody" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The domain of a SIP URI that names one and no user. A certificate says `sip` whatever the scheme it is used for.
fn sip_domain(uri: &str) -> Option<String> {
    let uri = Uri::parse(uri).ok()?;
    (uri.scheme.eq_ignore_ascii_case("sip") && uri.user.is_none()).then(|| canonical(uri.host))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// What our own certificate says.
pub(super) fn facts(certificate: &[u8]) -> Option<Facts> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate.validity;
    Some(Facts {
        not_before_s: validity.not_before.to_unix_duration().as_secs(),
        not_after_s: validity.not_after.to_unix_duration().as_secs(),
        names: PeerNames::read(&certificate)?,
    })
}

/// Whom a server must prove to be: for each group one of its names. There are several groups if several trunks lead to the address, for
/// the connection is used by all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected(Vec<Vec<String>>);

impl Expected {
    /// One of each group; without any the address itself.
    pub fn new(mut groups: Vec<Vec<String>>, address: IpAddr) -> Expected {
        groups.retain(|group| !group.is_empty());
        groups.sort();
        groups.dedup();
        if groups.is_empty() {
            groups.push(vec![address.to_string()]);
        }
        Expected(groups)
    }

    /// The name that the server is asked for (SNI, RFC 6066 §3): the first that can be.
    pub(super) fn server_name(&self, address: IpAddr) -> ServerName<'static> {
        let names = self.0.iter().flatten().filter_map(|name| ServerName::try_from(name.clone()).ok());
        let mut domains = names.filter(|name| matches!(name, ServerName::DnsName(_)));
        domains.next().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }

    /// True if a certificate is for all of them.
    pub fn is_met_by(&self, names: &PeerNames) -> bool {
        self.0.iter().all(|group| group.iter().any(|name| names.include(name)))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.0.iter().map(|group| group.join(" or ")).collect();
        f.write_str(&groups.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> PeerNames {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "subject.example");
        params.subject_alt_names = names;
        let own = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerNames::of(own.der()).unwrap()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    #[test]
    fn a_sip_uri_without_a_user_names_the_domain_and_then_dns_names_do_not() {
        let both =
            certificate(vec![dns("host.example"), uri("sip:Example.COM"), uri("sip:bob@other.example")]);
        assert!(both.include("example.com") && both.include("EXAMPLE.com."));
        for other in ["host.example", "other.example", "subject.example", "sub.example.com"] {
            assert!(!both.include(other), "{other}");
        }
        let host =
            certificate(vec![dns("host.example"), uri("sip:bob@other.example"), uri("https://x.example")]);
        assert_eq!(host.domains, ["host.example"]);
    }

    #[test]
    fn a_wildcard_is_nobody_and_a_subject_is_no_name() {
        let wild = certificate(vec![dns("*.example.com")]);
        assert!(!wild.include("a.example.com") && !wild.include("example.com"));
        assert_eq!(certificate(Vec::new()), PeerNames::default());
    }

    #[test]
    fn an_address_is_proved_by_an_address_alone() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let own = certificate(vec![SanType::IpAddress(ip), SanType::IpAddress(v6)]);
        assert!(own.include("192.0.2.1") && own.include("[2001:db8::1]") && !own.include("192.0.2.2"));
        assert!(!certificate(vec![dns("192.0.2.1")]).include("192.0.2.1"));
    }

    #[test]
    fn a_server_for_two_trunks_must_be_both() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        let one = |name: &str| vec![name.to_owned()];
        let expected = Expected::new(vec![one("a.example"), one("b.example"), one("a.example")], ip);
        assert!(!expected.is_met_by(&certificate(vec![dns("a.example")])));
        assert!(expected.is_met_by(&certificate(vec![dns("b.example"), dns("a.example")])));
        assert_eq!(expected.to_string(), "a.example and b.example");
        let name = |expected: &Expected| expected.server_name(ip).to_str().into_owned();
        assert_eq!(name(&expected), "a.example");
        let alone = Expected::new(vec![Vec::new()], ip);
        assert_eq!(name(&alone), "192.0.2.1");
        assert!(alone.is_met_by(&certificate(vec![SanType::IpAddress(ip)])));
    }
}
