//! `tandem demo`: an engine on loopback, two built-in phones, and a real call between them.
// The demonstration is a program beside the engine, with a clock of its own.
#![allow(clippy::disallowed_methods)]

mod cast;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_phone::driver::{DriverError, SoftPhone};
use tandem_phone::media::Heard;
use tandem_phone::{CallHandle, Command, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::daemon::{self, Running, StartError};
use crate::ladder::{Ladder, LadderMessage};
use crate::settings::{LoadError, Settings};
use cast::{ALICE, BOB, ENGINE, Part};
use report::Verdict;

/// The settings of the demonstration; its directory is made at each start.
const SETTINGS: &str = include_str!("demo/settings.toml");
/// How much each phone hears before the caller hangs up: four seconds at 50 packets a second.
const PACKETS: u64 = 205;
/// What happens on loopback has happened after this, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the demonstration ended without a call that both phones heard.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Neither `TMPDIR` nor `/tmp` takes a directory.
    #[error("no directory for the demonstration: {0}")]
    Directory(io::Error),
    /// A variable `TANDEM__...` changes what the demonstration is built on.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// The engine did not start.
    #[error("the engine does not start: {0}")]
    Engine(#[from] StartError),
    /// The engine listens nowhere.
    #[error("the engine has no SIP address")]
    NoListener,
    /// A phone did not do its part.
    #[error("{who}: {source}")]
    Phone {
        /// Which phone.
        who: &'static str,
        /// What it met.
        source: DriverError,
    },
    /// The call was not answered.
    #[error("the call was not answered: {0:?}")]
    NotAnswered(Event),
    /// One did not hear the other.
    #[error("{0}")]
    NotHeard(String),
    /// Nothing can be written to the terminal, or no signal be waited for.
    #[error("cannot show it: {0}")]
    Output(#[from] io::Error),
}

/// Plays the demonstration and writes it to `out` as it happens. With `exit` it ends after the call, otherwise the
/// engine and both phones stay until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// [`DemoError`], [`DemoError::NotHeard`] among them if the call had no good sound.
pub fn run(exit: bool, out: &mut dyn Write) -> Result<(), DemoError> {
    let dir = tempfile::Builder::new().prefix("tandem-demo-").tempdir().map_err(DemoError::Directory)?.keep();
    let variables = [("TANDEM__NODE__DATA_DIR".into(), dir.clone().into_os_string())];
    let settings = Settings::load_from(Some(("the demonstration", SETTINGS)), variables)?.settings;
    actix::System::new().block_on(play(settings, dir, exit, out))
}

async fn play(settings: Settings, dir: PathBuf, exit: bool, out: &mut dyn Write) -> Result<(), DemoError> {
    let running = daemon::start(&settings, false).await?;
    let played = stage(&running, dir, exit, out).await;
    running.stop();
    played
}

async fn stage(running: &Running, dir: PathBuf, exit: bool, out: &mut dyn Write) -> Result<(), DemoError> {
    let server = *running.sip_addresses.first().ok_or(DemoError::NoListener)?;
    writeln!(out, "An engine at {server} (SIP over UDP), its files in {}.", dir.display())?;
    writeln!(out, "alice (1001) calls bob (1002); both speak. All of it is SIP and RTP on loopback.\n")?;
    let (taps, mut messages) = mpsc::unbounded_channel();
    let mut alice = Part::new(&ALICE, server, taps.clone())?;
    let mut bob = Part::new(&BOB, server, taps)?;
    let mut stage = Stage::new(out)?;

    let verdict = stage.draw_while(&mut messages, call(&mut alice, &mut bob)).await??;
    report::heard(stage.out, &verdict)?;
    let cdr = report::cdr(&dir, PATIENCE).await;
    report::places(stage.out, &dir, cdr.as_deref(), running.http_address)?;
    if exit {
        return verdict.judge();
    }
    report::invitation(stage.out, server)?;
    stage.draw_while(&mut messages, until_stopped(&mut alice, &mut bob)).await??;
    writeln!(stage.out, "\nEnding. The files stay in {}.", dir.display())?;
    Ok(())
}

/// Both register, one calls, both listen, the caller hangs up.
async fn call(alice: &mut Part, bob: &mut Part) -> Result<Verdict, DemoError> {
    alice.register().await?;
    bob.register().await?;
    let call = alice.phone.dial(BOB.number).await.map_err(ALICE.failed())?;
    let answered = alice.wait(|event| is_answer(event, call)).await?;
    if !matches!(answered, Event::Answered { .. }) {
        return Err(DemoError::NotAnswered(answered));
    }
    let (by_alice, by_bob) = tokio::join!(listen(&alice.phone), listen(&bob.phone));
    alice.phone.command(Command::Hangup(call)).await.map_err(ALICE.failed())?;
    alice.wait(|event| matches!(event, Event::Ended { .. })).await?;
    bob.wait(|event| matches!(event, Event::Ended { .. })).await?;
    Ok(Verdict { alice: by_alice.map_err(ALICE.failed())?, bob: by_bob.map_err(BOB.failed())? })
}

fn is_answer(event: &Event, this: CallHandle) -> bool {
    match event {
        Event::Answered { call, .. } | Event::Failed { call, .. } | Event::Ended { call, .. } => {
            *call == this
        }
        _ => false,
    }
}

/// What was heard; too little within the time is an answer too, and the call is hung up all the same.
async fn listen(phone: &SoftPhone) -> Result<Heard, DriverError> {
    match phone.listen(PACKETS, PATIENCE).await {
        Err(DriverError::Silence { heard, .. }) => Ok(heard),
        other => other,
    }
}

/// Lets both phones answer whoever calls, until the process is told to end.
async fn until_stopped(alice: &mut Part, bob: &mut Part) -> Result<(), DemoError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            event = alice.phone.event() => if event.is_none() { return Err(ALICE.failed()(DriverError::Stopped)) },
            event = bob.phone.event() => if event.is_none() { return Err(BOB.failed()(DriverError::Stopped)) },
        }
    }
}

/// A message that passed a phone, for the ladder.
struct Drawn {
    at: Instant,
    from: &'static str,
    to: &'static str,
    text: String,
}

/// The ladder on the terminal.
struct Stage<'a> {
    out: &'a mut dyn Write,
    ladder: Ladder,
    begin: Instant,
}

impl<'a> Stage<'a> {
    fn new(out: &'a mut dyn Write) -> io::Result<Stage<'a>> {
        let columns = [ALICE.title, ENGINE, BOB.title].map(str::to_owned).to_vec();
        let ladder = Ladder::new(columns);
        writeln!(out, "{}", ladder.header())?;
        Ok(Stage { out, ladder, begin: Instant::now() })
    }

    /// Draws each message as it passes, while `scene` plays.
    async fn draw_while<T>(
        &mut self,
        messages: &mut mpsc::UnboundedReceiver<Drawn>,
        scene: impl Future<Output = T>,
    ) -> io::Result<T> {
        tokio::pin!(scene);
        loop {
            tokio::select! {
                // The ladder first: what a scene ends with has passed before.
                biased;
                Some(message) = messages.recv() => self.draw(message)?,
                done = &mut scene => {
                    while let Ok(message) = messages.try_recv() {
                        self.draw(message)?;
                    }
                    return Ok(done);
                }
            }
        }
    }

    fn draw(&mut self, message: Drawn) -> io::Result<()> {
        let at = message.at.saturating_duration_since(self.begin).as_millis();
        let message = LadderMessage {
            at_ms: u64::try_from(at).unwrap_or(u64::MAX),
            from: message.from.to_owned(),
            to: message.to.to_owned(),
            text: message.text,
        };
        writeln!(self.out, "{}", self.ladder.line(&message))?;
        self.out.flush()
    }
}
