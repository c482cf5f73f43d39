//! The command line of `tandem`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::{self, ClientError};
use crate::reload::Source;
use crate::settings::{LoadError, Settings};
use crate::wiring::{self, WiringError};

/// An actor-model SIP engine: B2BUA, registrar, trunk gateway and media server in one daemon.
#[derive(Clone, Debug, Parser)]
#[command(name = "tandem", version, about)]
pub struct Cli {
    /// The settings file; without it the built-in defaults and the environment apply.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `tandem` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the daemon (also without any command)
    Run,
    /// Place a real call between two built-in phones through an engine on loopback
    Demo(Demo),
    /// Check the settings; prints every error with its file, key and what is allowed
    Check,
    /// Explain where dialled digits would lead, without placing a call; or which calls of before would go elsewhere
    Route(Route),
    /// List the calls of a running daemon
    Calls(Client),
    /// Show one call of a running daemon, or end it
    Call(Call),
    /// List the stations of a running daemon and where they are registered
    Stations(Client),
    /// List the trunks of a running daemon and the health of their proxies
    Trunks(Client),
    /// List the registrations of a running daemon at providers and where they stand
    Registrations(Client),
    /// Draw the actors of a running daemon
    Tree(Client),
    /// Tell why a call went as it did
    Why(Why),
    /// Clear the toll alarms of a station or trunk of a running daemon, once its calls have been looked at
    ///
    /// With them a block ends. What the last hour held counts no more, so that the alarm comes again only with as many further calls; what
    /// is usual stays as it is. `stations` and `trunks` list who has alarms.
    ClearAlarm(ClearAlarm),
    /// Let a running daemon take no new calls and end with the last one that is up
    ///
    /// From then on a new call is refused with 503, and /readyz answers 503, so that whoever balances load sends calls
    /// elsewhere. Calls that are up or ring go on until they end, emergency calls are still taken, and phones register as
    /// before. With the last call the daemon ends, with status 0; with --limit at the latest then: it ends the calls that
    /// are left, and its status is 3. POST /api/v1/drain with {"on": false} has it take calls again.
    Drain(Drain),
    /// Have a running daemon read its settings and imported stations again, while calls are up
    ///
    /// Everything is checked first: settings with an error are refused with file, key and what is allowed, and nothing has
    /// changed. What changes is printed and comes into force at once, for new calls; calls that are up keep the settings
    /// they began with. Keys that only a restart can change stay as they are, and are named. SIGHUP does the same, and tells
    /// what came of it in the log.
    Reload(Reload),
    /// Put the stations of a JSON-lines file into the store of a running daemon, for its next reload or start
    ///
    /// A settings file is for hundreds of stations; the store holds a million. Each line is an object with the keys of
    /// `[[station]]`; one with a name that the store has replaces it. Nothing is stored unless every line is right. What
    /// is in the store takes effect with `tandem reload`, or when the daemon starts again.
    Import(Import),
}

/// How a running daemon is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Client {
    /// Where its HTTP is; without it http.address of the settings
    #[arg(long, env = "TANDEM_URL", value_name = "URL")]
    pub url: Option<String>,
    /// Its HTTP token; without it the first of http.tokens, or the one in data_dir
    #[arg(long, env = "TANDEM_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print the JSON of the API instead of what people read
    #[arg(long)]
    pub json: bool,
}

/// `tandem demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Demo {
    /// End after the call, with status 0 only if both phones heard each other
    #[arg(long)]
    pub exit: bool,
}

/// `tandem route`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Route {
    /// Who dials: the name or extension of a station, or the name of a trunk
    #[arg(long, value_name = "A", required_unless_present = "against_cdrs")]
    pub from: Option<String>,
    /// What is dialled
    #[arg(required_unless_present = "against_cdrs")]
    pub digits: Option<String>,
    /// Route the calls of these CDRs (cdr.jsonl) again, and print each that would go elsewhere than by --before
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "before", conflicts_with_all = ["from", "digits"])]
    pub against_cdrs: Vec<PathBuf>,
    /// The settings that are compared with
    #[arg(long, value_name = "FILE", requires = "against_cdrs")]
    pub before: Option<PathBuf>,
}

/// `tandem call`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Call {
    /// The id of the call, as `calls` lists it
    pub id: String,
    /// End the call
    #[arg(long)]
    pub hangup: bool,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

/// `tandem clear-alarm`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ClearAlarm {
    /// Whose: station:NAME or trunk:NAME
    pub who: String,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

/// `tandem why`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Why {
    /// The id of the call, as logs, CDRs and `calls` show it
    pub id: String,
    /// Show the SIP messages too
    #[arg(long)]
    pub sip: bool,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

/// `tandem drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Drain {
    /// Keep the daemon running when no call is left
    #[arg(long)]
    pub stay: bool,
    /// End the calls that are left after this long, and the daemon with them
    #[arg(long, value_name = "SECONDS", conflicts_with = "stay")]
    pub limit: Option<u32>,
    /// Return once no call is left; prints the number as it falls
    #[arg(long)]
    pub wait: bool,
    /// Wait this long at most; if calls are left then, the status is 1, and the daemon goes on draining
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub timeout: Option<u32>,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

/// `tandem reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Reload {
    /// Tell what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print each call of the last HOURS that would go elsewhere, by the daemon's CDRs
    #[arg(long, value_name = "HOURS", requires = "dry_run", num_args = 0..=1, default_missing_value = "24")]
    pub against_cdrs: Option<u32>,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

/// `tandem import`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Import {
    /// One station a line, with the keys of a station in the settings
    pub file: PathBuf,
    /// Take the stations out of the store instead: of each line only the name is looked at
    #[arg(long)]
    pub remove: bool,
    /// The daemon
    #[command(flatten)]
    pub client: Client,
}

impl Command {
    /// The name it is called by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Demo(_) => "demo",
            Self::Check => "check",
            Self::Route(_) => "route",
            Self::Calls(_) => "calls",
            Self::Call(_) => "call",
            Self::Stations(_) => "stations",
            Self::Trunks(_) => "trunks",
            Self::Registrations(_) => "registrations",
            Self::Tree(_) => "tree",
            Self::Why(_) => "why",
            Self::ClearAlarm(_) => "clear-alarm",
            Self::Drain(_) => "drain",
            Self::Reload(_) => "reload",
            Self::Import(_) => "import",
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// The daemon does not start.
    #[error(transparent)]
    Start(#[from] crate::daemon::StartError),
    /// The demonstration failed.
    #[error(transparent)]
    Demo(#[from] crate::demo::DemoError),
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// A running daemon did not answer as asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The settings fit no engine.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The log cannot be written as the environment asks.
    #[error(transparent)]
    Telemetry(#[from] crate::telemetry::TelemetryError),
}

impl CommandError {
    /// The status the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_)
            | Self::Start(_)
            | Self::Demo(_)
            | Self::Output(_)
            | Self::Client(_)
            | Self::Wiring(_)
            | Self::Telemetry(_) => 1,
        }
    }
}

/// Runs the command and writes its answer to `out` and its complaints to `err`.
pub fn run(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let command = cli.command.as_ref().unwrap_or(&Command::Run);
    let done = match command {
        Command::Check => check(cli.config.as_deref(), out).map(|()| ExitCode::SUCCESS),
        Command::Run => run_daemon(cli.config.as_deref()).map(ExitCode::from),
        Command::Route(asked) => route(cli.config.as_deref(), asked, out),
        Command::Calls(_)
        | Command::Call(_)
        | Command::Stations(_)
        | Command::Trunks(_)
        | Command::Registrations(_)
        | Command::Tree(_)
        | Command::Why(_)
        | Command::ClearAlarm(_)
        | Command::Drain(_)
        | Command::Reload(_)
        | Command::Import(_) => client::run(command, cli.config.as_deref(), out)
            .map(|()| ExitCode::SUCCESS)
            .map_err(CommandError::from),
        Command::Demo(demo) => {
            crate::demo::run(demo.exit, out).map(|()| ExitCode::SUCCESS).map_err(CommandError::from)
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell it to if this fails too.
            let _ = writeln!(err, "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_daemon(config: Option<&Path>) -> Result<u8, CommandError> {
    let loaded = Settings::load(config)?;
    let _log = crate::telemetry::init()?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for fault in &loaded.faults {
        tracing::error!("{fault}");
    }
    let source = Source::File(config.map(Path::to_owned));
    Ok(crate::daemon::run(&loaded.settings, source)?)
}

/// Status 1: the call would be refused, or some call would go elsewhere.
fn route(config: Option<&Path>, asked: &Route, out: &mut dyn Write) -> Result<ExitCode, CommandError> {
    let (settings, left_out) = with_imported(Settings::load(config)?.settings);
    for why in left_out {
        writeln!(out, "warning: {why}")?;
    }
    let (from, digits) = match (&asked.before, &asked.from, &asked.digits) {
        (Some(before), ..) => {
            let before = with_imported(Settings::load(Some(before))?.settings).0;
            let differ = client::against_cdrs((&before, &settings), &asked.against_cdrs, out)?;
            return Ok(if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        // clap asks for both, or for CDRs.
        (None, from, digits) => (from.as_deref().unwrap_or_default(), digits.as_deref().unwrap_or_default()),
    };
    let plan = wiring::dial_plan(&settings)?;
    let routed = client::route(&settings, &plan, from, digits, out)?;
    Ok(if routed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(config: Option<&Path>, out: &mut dyn Write) -> Result<(), CommandError> {
    let loaded = Settings::load(config)?;
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if !loaded.faults.is_empty() {
        return Err(LoadError::Invalid(loaded.faults).into());
    }
    let own = loaded.settings.station.len();
    let (all, left_out) = with_imported(loaded.settings);
    for why in left_out {
        writeln!(out, "warning: {why}; left out")?;
    }
    let imported = match all.station.len() - own {
        0 => String::new(),
        1 => " (1 of the stations is imported)".to_owned(),
        count => format!(" ({count} of the stations are imported)"),
    };
    writeln!(out, "ok: {all}{imported}")?;
    Ok(())
}

/// The settings with the stations of the store in their data directory, and what keeps some of those out.
fn with_imported(settings: Settings) -> (Settings, Vec<String>) {
    let kept = match crate::store::stations(&settings.node.data_dir) {
        Ok(kept) => kept,
        Err(why) => return (settings, vec![format!("the imported stations are not looked at: {why}")]),
    };
    if kept.is_empty() {
        return (settings, Vec::new());
    }
    settings.with_stations(kept.iter().map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_is_understood() {
        for (line, name) in [
            ("tandem run", "run"),
            ("tandem demo --exit", "demo"),
            ("tandem check --config a.toml", "check"),
            ("tandem route --from 1001 9555123", "route"),
            ("tandem route --against-cdrs a.jsonl b.jsonl --before old.toml", "route"),
            ("tandem reload --dry-run --against-cdrs 48", "reload"),
            ("tandem calls --url http://127.0.0.1:8080 --token abc", "calls"),
            ("tandem call 7 --hangup", "call"),
            ("tandem stations", "stations"),
            ("tandem trunks", "trunks"),
            ("tandem tree", "tree"),
            ("tandem why 7 --sip", "why"),
            ("tandem registrations", "registrations"),
            ("tandem drain", "drain"),
            ("tandem drain --wait --timeout 60", "drain"),
            ("tandem drain --limit 600", "drain"),
            ("tandem drain --stay", "drain"),
            ("tandem reload --dry-run", "reload"),
            ("tandem import stations.jsonl", "import"),
            ("tandem import --remove stations.jsonl", "import"),
        ] {
            assert_eq!(parse(line).command.unwrap().name(), name);
        }
        assert_eq!(parse("tandem").command, None);
    }

    #[test]
    fn a_limit_to_waiting_makes_no_sense_without_waiting() {
        assert!(Cli::try_parse_from(["tandem", "drain", "--timeout", "60"]).is_err());
        assert!(Cli::try_parse_from(["tandem", "drain", "--stay", "--limit", "60"]).is_err());
    }

    #[test]
    fn the_settings_file_may_be_named_before_or_after_the_command() {
        for line in ["tandem --config a.toml check", "tandem check --config a.toml"] {
            assert_eq!(parse(line).config, Some(PathBuf::from("a.toml")), "{line}");
        }
    }
}
