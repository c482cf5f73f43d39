//! The commands that ask a running daemon, and `route`, which needs none.

mod against_cdrs;
mod api;
mod drain;
mod import;
mod reload;
mod route;
mod show;
mod table;
mod why;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::cli::{self, Command};
use crate::settings::token::{self, TokenError};
use crate::settings::{LoadError, Settings};
use crate::wiring::WiringError;

pub use against_cdrs::against_cdrs;
pub use api::Api;
pub use route::route;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The settings, which name the daemon and its token, cannot be used.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// There is no token.
    #[error("no token for the daemon: {0} (--token or TANDEM_TOKEN gives one)")]
    Token(#[from] TokenError),
    /// The settings do not say where the daemon is.
    #[error("http.address has port 0, so that only the daemon's log tells its port: use --url")]
    NoPort,
    /// Nobody answers there.
    #[error("no answer from {url}: {why}; is the daemon running?")]
    Unreachable {
        /// Where.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The daemon refuses.
    #[error("{detail} (HTTP {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the daemon says.
        detail: String,
    },
    /// What answers does not speak as a daemon of this version does.
    #[error("{url} does not answer as tandem does: {why}")]
    NotTandem {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The file to send cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// Its path.
        file: String,
        /// Why.
        why: io::Error,
    },
    /// The settings fit no engine.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// Calls are left when the wait for their end is over.
    #[error("not every call has ended within {seconds} s, {calls} left; the daemon goes on draining")]
    CallsLeft {
        /// How many.
        calls: u64,
        /// How long was waited.
        seconds: u32,
    },
    /// Somebody else lets the daemon take calls again.
    #[error("the daemon takes new calls again: somebody has ended the draining")]
    TakesCalls,
    /// The command asks for nothing of a daemon.
    #[error("`tandem {0}` asks no daemon")]
    NoQuestion(&'static str),
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

/// Runs one of `calls`, `call`, `stations`, `trunks`, `registrations`, `tree`, `why`, `clear-alarm`, `drain`, `reload` and `import`, and writes its answer to `out`.
///
/// # Errors
/// See [`ClientError`].
pub fn run(command: &Command, config: Option<&Path>, out: &mut dyn Write) -> Result<(), ClientError> {
    let (Command::Calls(client)
    | Command::Stations(client)
    | Command::Trunks(client)
    | Command::Registrations(client)
    | Command::Tree(client)
    | Command::Drain(cli::Drain { client, .. })
    | Command::Reload(cli::Reload { client, .. })
    | Command::Import(cli::Import { client, .. })
    | Command::Call(cli::Call { client, .. })
    | Command::ClearAlarm(cli::ClearAlarm { client, .. })
    | Command::Why(cli::Why { client, .. })) = command
    else {
        return Err(ClientError::NoQuestion(command.name()));
    };
    let api = connect(client, config)?;
    let answer = match command {
        Command::Calls(_) => api.get("/api/v1/calls")?,
        Command::Stations(_) => api.get("/api/v1/stations")?,
        Command::Trunks(_) => api.get("/api/v1/trunks")?,
        Command::Tree(_) => api.get("/api/v1/tree")?,
        Command::Registrations(_) => api.get("/api/v1/registration_groups")?,
        Command::Drain(asked) => drain::drain(&api, asked, out)?,
        Command::Reload(asked) => reload::reload(&api, asked)?,
        Command::Import(asked) => import::import(&api, asked)?,
        Command::Call(call) if call.hangup => {
            api.delete(&format!("/api/v1/calls/{}", api::segment(&call.id)))?
        }
        Command::Call(call) => api.get(&format!("/api/v1/calls/{}", api::segment(&call.id)))?,
        Command::ClearAlarm(alarm) => {
            api.delete(&format!("/api/v1/toll-alarms/{}", api::segment(&alarm.who)))?
        }
        Command::Why(why) => {
            api.get(&format!("/api/v1/calls/{}/why?sip={}", api::segment(&why.id), why.sip))?
        }
        Command::Run | Command::Demo(_) | Command::Check | Command::Route(_) => {
            return Err(ClientError::NoQuestion(command.name()));
        }
    };
    if client.json {
        writeln!(out, "{answer:#}")?;
    } else {
        out.write_all(readable(command, &answer).as_bytes())?;
        if matches!(command, Command::Trunks(_)) {
            let groups = api.get("/api/v1/registration_groups")?;
            if groups.as_array().is_some_and(|groups| !groups.is_empty()) {
                write!(out, "\n{}", show::registrations(&groups))?;
            }
        }
    }
    Ok(out.flush()?)
}

fn readable(command: &Command, answer: &Value) -> String {
    match command {
        Command::Calls(_) => show::calls(answer),
        Command::Call(call) if call.hangup => format!("call {} is being ended\n", call.id),
        Command::Call(_) => show::call(answer),
        Command::Stations(_) => show::stations(answer),
        Command::Trunks(_) => show::trunks(answer),
        Command::Tree(_) => show::tree(answer),
        Command::Registrations(_) => show::registrations(answer),
        Command::ClearAlarm(_) => show::cleared(answer),
        Command::Drain(_) => drain::left(answer),
        Command::Reload(_) => reload::done(answer),
        Command::Import(_) => import::done(answer),
        Command::Why(_) => why::why(answer),
        Command::Run | Command::Demo(_) | Command::Check | Command::Route(_) => String::new(),
    }
}

/// Where the daemon is and how to speak to it. The settings are only read for what the command line does not say.
fn connect(client: &cli::Client, config: Option<&Path>) -> Result<Api, ClientError> {
    if let (Some(url), Some(token)) = (&client.url, &client.token) {
        return Ok(Api::new(url, token));
    }
    let settings = Settings::load(config)?.settings;
    let url = match &client.url {
        Some(url) => url.clone(),
        None => format!("http://{}", reachable(settings.http.address.0).ok_or(ClientError::NoPort)?),
    };
    let token = match (&client.token, settings.http.tokens.first()) {
        (Some(token), _) => token.clone(),
        (None, Some(token)) => token.reveal().to_owned(),
        (None, None) => token::load(&settings.node.data_dir)?.reveal().to_owned(),
    };
    Ok(Api::new(&url, &token))
}

/// Where one who listens on `address` is found from this machine; `None`: the port is not known.
fn reachable(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (address.port() != 0).then(|| SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_on_every_address_is_found_on_loopback() {
        let found = |address: &str| reachable(address.parse().unwrap()).map(|found| found.to_string());
        assert_eq!(found("0.0.0.0:8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(found("[::]:8080").as_deref(), Some("[::1]:8080"));
        assert_eq!(found("10.0.0.1:80").as_deref(), Some("10.0.0.1:80"));
        assert_eq!(found("127.0.0.1:0"), None);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_named() {
        // Bound and closed again: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{free}");
        let client = cli::Client { url: Some(url.clone()), token: Some("t".into()), json: false };
        let error = run(&Command::Calls(client), None, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no answer from {url}: ")), "{error}");
        assert!(error.ends_with("is the daemon running?"), "{error}");
    }
}
