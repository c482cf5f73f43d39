//! The scripted softphone, driven from tests that wait.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use tandem_media::tone::TonePreset;
use tandem_phone::driver::{SoftPhone, SoftPhoneConfig};
use tandem_phone::media::{Heard, MediaConfig};
use tandem_phone::{AutoAnswer, CallHandle, Command, Event, PhoneConfig};
use tokio::runtime::Runtime;

use super::{Engine, SOON};

/// Answers at once.
pub(crate) const QUICK: AutoAnswer =
    AutoAnswer::After { ring: Duration::ZERO, answer: Duration::from_millis(20) };

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// A phone with a voice of its own: that of its number.
pub(crate) struct TestPhone {
    phone: SoftPhone,
    pub(crate) name: String,
}

/// The voice of a station.
pub(crate) fn voice(name: &str) -> TonePreset {
    let seed = name.bytes().fold(0_u64, |sum, byte| sum * 10 + u64::from(byte % 10));
    TonePreset::Speech { seed }
}

impl TestPhone {
    /// A phone of station `name` that knows the voice of `hears`.
    pub(crate) fn new(engine: &Engine, name: &str, hears: &str, auto: AutoAnswer) -> TestPhone {
        TestPhone::with(engine.sip, engine.peer(), name, Some(voice(hears)), auto)
    }

    /// A phone at any address of any server.
    pub(crate) fn with(
        server: SocketAddr,
        at: Ipv4Addr,
        name: &str,
        expects: Option<TonePreset>,
        auto: AutoAnswer,
    ) -> TestPhone {
        let any: SocketAddr = (at, 0).into();
        let seed = name.bytes().fold(u64::from(u32::from(at)), |sum, byte| sum * 31 + u64::from(byte));
        let phone = PhoneConfig {
            user: name.to_owned(),
            auth_user: None,
            password: Some(format!("secret-{name}")),
            domain: server.ip().to_string(),
            display: None,
            local: any,
            transport: tandem_phone::Transport::Udp,
            media: any,
            server,
            seed,
            expires: 600,
            auto,
            t1: Duration::from_millis(500),
            codecs: vec![0, 8],
            manners: tandem_phone::Manners::default(),
        };
        let media = MediaConfig { seed, says: voice(name), expects };
        let _inside = runtime().enter();
        let phone = SoftPhone::start(SoftPhoneConfig { phone, media }, None).expect("a phone");
        TestPhone { phone, name: name.to_owned() }
    }

    /// Registers.
    #[track_caller]
    pub(crate) fn registered(mut self) -> TestPhone {
        self.command(Command::Register);
        self.wait(|event| matches!(event, Event::Registered { .. }));
        self
    }

    /// Gives it a command.
    #[track_caller]
    pub(crate) fn command(&self, command: Command) {
        runtime().block_on(self.phone.command(command)).expect("a phone that runs");
    }

    /// Dials.
    #[track_caller]
    pub(crate) fn dial(&self, number: &str) -> CallHandle {
        runtime().block_on(self.phone.dial(number)).expect("a phone that runs")
    }

    /// Waits for an event; those before it are dropped.
    #[track_caller]
    pub(crate) fn wait(&mut self, pick: impl Fn(&Event) -> bool) -> Event {
        self.wait_for(SOON, pick)
    }

    /// [`TestPhone::wait`] with a limit of the caller's.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, limit: Duration, pick: impl Fn(&Event) -> bool) -> Event {
        let found = runtime().block_on(self.phone.wait_for(limit, pick));
        found.unwrap_or_else(|error| panic!("phone {}: {error}", self.name))
    }

    /// Waits until the call is answered; gives it and where its audio goes.
    #[track_caller]
    pub(crate) fn answered(&mut self) -> (CallHandle, SocketAddr) {
        match self.wait(|event| matches!(event, Event::Answered { .. })) {
            Event::Answered { call, remote_media, .. } => (call, remote_media),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the call is over; gives whether this phone ended it, and the status.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> (bool, Option<u16>) {
        match self.wait(|event| matches!(event, Event::Ended { .. } | Event::Failed { .. })) {
            Event::Ended { by_us, status, .. } => (by_us, status),
            Event::Failed { status, .. } => (false, Some(status)),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until so many packets were heard in this call.
    #[track_caller]
    pub(crate) fn listen(&self, packets: u64) -> Heard {
        let heard = runtime().block_on(self.phone.listen(packets, 2 * SOON));
        heard.unwrap_or_else(|error| panic!("phone {}: {error}", self.name))
    }

    /// What was heard in this call, or in the last.
    #[track_caller]
    pub(crate) fn heard(&self) -> Heard {
        runtime().block_on(self.phone.heard()).expect("a phone that runs")
    }

    /// Its SIP address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.phone.local()
    }

    /// Its RTP address.
    pub(crate) fn media(&self) -> SocketAddr {
        self.phone.media()
    }
}

/// Two registered phones, the second of which answers at once.
#[track_caller]
pub(crate) fn pair(engine: &Engine, caller: &str, callee: &str) -> (TestPhone, TestPhone) {
    let a = TestPhone::new(engine, caller, callee, AutoAnswer::Manual).registered();
    let b = TestPhone::new(engine, callee, caller, QUICK).registered();
    (a, b)
}

/// Calls from the first phone to the second, up to the answer.
#[track_caller]
pub(crate) fn connect(a: &mut TestPhone, b: &mut TestPhone) -> (CallHandle, CallHandle) {
    let call = a.dial(&b.name);
    a.answered();
    let (other, _) = b.answered();
    (call, other)
}

/// Whether what was heard is the expected voice, whole.
#[track_caller]
pub(crate) fn assert_heard(heard: &Heard) {
    assert_eq!(heard.recognised, Some(1.0), "{heard:?}");
    assert!(heard.lost * 50 <= heard.packets && heard.level_dbm0 > -35.0, "{heard:?}");
}
