//! Who plays: two phones of crate `tandem-phone`.

use std::net::SocketAddr;
use std::time::Duration;

use tandem_media::tone::TonePreset;
use tandem_phone::driver::{DriverError, SoftPhone, SoftPhoneConfig, Tap};
use tandem_phone::media::MediaConfig;
use tandem_phone::{AutoAnswer, Command, Event, PhoneConfig};
use tokio::sync::mpsc::UnboundedSender;

use super::{DemoError, Drawn, PATIENCE};

/// The engine's column of the ladder.
pub(super) const ENGINE: &str = "tandem";

/// One of the two.
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) number: &'static str,
    password: &'static str,
    voice: TonePreset,
    hears: TonePreset,
}

const ALICES_VOICE: TonePreset = TonePreset::Speech { seed: 11 };
const BOBS_VOICE: TonePreset = TonePreset::Speech { seed: 2 };

/// The caller.
pub(super) const ALICE: Role = Role {
    name: "alice",
    title: "alice (1001)",
    number: "1001",
    password: "demo-alice",
    voice: ALICES_VOICE,
    hears: BOBS_VOICE,
};

/// The callee.
pub(super) const BOB: Role = Role {
    name: "bob",
    title: "bob (1002)",
    number: "1002",
    password: "demo-bob",
    voice: BOBS_VOICE,
    hears: ALICES_VOICE,
};

impl Role {
    /// Says of an error which phone met it.
    pub(super) fn failed(&self) -> impl Fn(DriverError) -> DemoError + use<> {
        let who = self.name;
        move |source| DemoError::Phone { who, source }
    }
}

/// A role with its phone.
pub(super) struct Part {
    role: &'static Role,
    pub(super) phone: SoftPhone,
}

impl Part {
    /// Starts the phone; each SIP message it sends or receives goes to `taps`.
    pub(super) fn new(
        role: &'static Role,
        server: SocketAddr,
        taps: UnboundedSender<Drawn>,
    ) -> Result<Part, DemoError> {
        let any = SocketAddr::new(server.ip(), 0);
        let mut random = [0; 8];
        // Without randomness its tags would be those of the last demonstration, which harms nobody.
        let seed = getrandom::fill(&mut random).map_or(1, |()| u64::from_le_bytes(random));
        let phone = PhoneConfig {
            user: role.number.to_owned(),
            auth_user: None,
            password: Some(role.password.to_owned()),
            domain: server.ip().to_string(),
            display: Some(role.name.to_owned()),
            local: any,
            transport: tandem_phone::Transport::Udp,
            media: any,
            server,
            seed,
            expires: 600,
            auto: AutoAnswer::After { ring: Duration::from_millis(50), answer: Duration::from_millis(800) },
            t1: Duration::from_millis(500),
            codecs: vec![0, 8],
            manners: tandem_phone::Manners::default(),
        };
        let media = MediaConfig { seed, says: role.voice, expects: Some(role.hears) };
        let tap: Tap = Box::new(move |tapped| {
            let (from, to) = if tapped.sent { (role.title, ENGINE) } else { (ENGINE, role.title) };
            let text = String::from_utf8_lossy(tapped.message).into_owned();
            // Whoever draws the ladder has gone when the demonstration ends.
            let _ = taps.send(Drawn { at: tapped.at, from, to, text });
        });
        let phone = SoftPhone::start(SoftPhoneConfig { phone, media }, Some(tap)).map_err(role.failed())?;
        Ok(Part { role, phone })
    }

    /// Registers with digest.
    pub(super) async fn register(&mut self) -> Result<(), DemoError> {
        self.phone.command(Command::Register).await.map_err(self.role.failed())?;
        self.wait(|event| matches!(event, Event::Registered { .. })).await.map(drop)
    }

    /// Waits for an event.
    pub(super) async fn wait(&mut self, pick: impl Fn(&Event) -> bool) -> Result<Event, DemoError> {
        self.phone.wait_for(PATIENCE, pick).await.map_err(self.role.failed())
    }
}
