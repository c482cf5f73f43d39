//! The handshake, and in the words of an operator why one fails.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, CommonState, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Tls;
use super::names::{Expected, PeerNames};
use crate::metrics::Handshake;

impl Tls {
    /// The server's side of a connection that a peer has opened, and who the peer has proved to be.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<PeerNames>)> {
        let stream = TlsAcceptor::from(self.server()).accept(stream).await?;
        let names = proved(stream.get_ref().1);
        Ok((stream.into(), names))
    }

    /// The client's side of a connection that we have opened, to a server that must be `expected`.
    pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        remote: IpAddr,
        expected: Expected,
    ) -> io::Result<TlsStream<S>> {
        let name = expected.server_name(remote);
        let config = self.client(expected).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(stream.into())
    }
}

/// Who the peer is by the certificate that was believed; `None`: it has shown none.
fn proved(state: &CommonState) -> Option<PeerNames> {
    PeerNames::of(state.peer_certificates().and_then(<[CertificateDer<'_>]>::first)?)
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What a handshake has come to that ended with this error.
pub(crate) fn failed_because(error: &io::Error) -> Handshake {
    use CertificateError as Certificate;
    match cause(error) {
        None => Handshake::Closed,
        Some(Error::NoCertificatesPresented) => Handshake::NoCertificate,
        Some(Error::InvalidCertificate(why)) => match why {
            Certificate::UnknownIssuer => Handshake::UnknownAuthority,
            Certificate::Expired | Certificate::ExpiredContext { .. } => Handshake::Expired,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => Handshake::WrongName,
            _ => Handshake::BadCertificate,
        },
        Some(Error::AlertReceived(_)) => Handshake::RefusedByPeer,
        Some(Error::PeerIncompatible(_)) => Handshake::NothingInCommon,
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => Handshake::NotTls,
        Some(_) => Handshake::Other,
    }
}

/// Why the peer wants no more of a connection, if it has said so. With TLS 1.3 a server judges our certificate only after the handshake.
pub(crate) fn refusal_of_peer(error: &io::Error) -> Option<AlertDescription> {
    match cause(error) {
        Some(Error::AlertReceived(why)) => Some(*why),
        Some(_) | None => None,
    }
}
