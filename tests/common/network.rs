//! A network of a test's own: cables from the engine's host to others, which lose packets, are cut off or pulled out.
//!
//! A host is a network namespace without a name. Only threads, sockets and open files hold it, so that nothing is left of it, nor of its
//! cables and filters, when the test ends, whichever way. Only root may have one.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Command, Stdio, id};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::{Engine, Ua};

/// The engine's address, whichever cable leads to it (RFC 5737).
pub(crate) const ENGINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A cable's name at its far end.
const FAR: &str = "far";

/// The engine's host.
pub(crate) struct Network {
    cables: Cell<u8>,
}

/// A way from the engine's host to one other host, whose only one it is.
pub(crate) struct Cable {
    /// Its name at the engine's end.
    name: String,
    host: File,
    /// The address of the other host.
    pub(crate) address: Ipv4Addr,
}

impl Network {
    /// Has `test` run on a host of its own; where that cannot be had, says so and leaves it out.
    #[track_caller]
    pub(crate) fn run(test: impl FnOnce(&Network) + Send) {
        let alone = || match Network::new() {
            Ok(network) => test(&network),
            Err(why) => eprintln!("no network namespace: {why}; what cables do to calls cannot be tested"),
        };
        // Its thread ends with it, and no other test is ever on it.
        thread::scope(|scope| joined(scope.spawn(alone).join()));
    }

    fn new() -> Result<Network, String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|why| format!("not root? {why}"))?;
        ip("link set lo up")?;
        ip(&format!("addr add {ENGINE}/32 dev lo"))?;
        let network = Network { cables: Cell::new(0) };
        // Whether this kernel has what the rest needs.
        network.lay()?.lose(1)?;
        Ok(network)
    }

    /// A cable to a new host.
    #[track_caller]
    pub(crate) fn cable(&self) -> Cable {
        self.lay().expect("a cable")
    }

    fn lay(&self) -> Result<Cable, String> {
        let number = self.cables.get() + 1;
        self.cables.set(number);
        let cable = Cable {
            name: format!("cable{number}"),
            host: thread::scope(|scope| joined(scope.spawn(new_host).join()))?,
            address: Ipv4Addr::new(198, 51, 100, number),
        };
        let Cable { name, host, address } = &cable;
        let at = format!("/proc/{}/fd/{}", id(), host.as_raw_fd());
        ip(&format!("link add {name} type veth peer name {FAR} netns {at}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("route add {address}/32 dev {name} src {ENGINE}"))?;
        cable.there(|| {
            ip("link set lo up")?;
            // What is sent while the cable is out is lost, as anywhere beyond the next switch.
            ip("route add default dev lo")?;
            // The way back belongs to the address, and so returns with the cable.
            ip(&format!("addr add {address} peer {ENGINE}/32 dev {FAR}"))?;
            ip(&format!("link set {FAR} up"))
        })?;
        Ok(cable)
    }
}

impl Cable {
    /// Does something on the host at its far end. Sockets and processes that are made there stay there.
    pub(crate) fn there<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let act = || {
            setns(&self.host, CloneFlags::CLONE_NEWNET).expect("its namespace");
            act()
        };
        thread::scope(|scope| joined(scope.spawn(act).join()))
    }

    /// A user agent there, on a given port.
    pub(crate) fn ua(&self, engine: &Engine, user: &str, port: u16) -> Ua {
        self.there(|| Ua::on(engine, user, self.at(port)))
    }

    /// A port of its far end.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// From now on it loses so many of a hundred packets, each way.
    #[track_caller]
    pub(crate) fn loses(&self, percent: u32) {
        self.lose(percent).expect("a filter");
    }

    /// How many packets it has lost since it was told to.
    #[track_caller]
    pub(crate) fn lost(&self) -> u64 {
        let lost = || {
            let rules = nft("list", &["table", "inet", &self.name], "").expect("a filter");
            let count = rules.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
            count.and_then(|count| count.parse::<u64>().ok()).expect("a count")
        };
        lost() + self.there(lost)
    }

    /// From now on nothing crosses it, and nobody is told.
    #[track_caller]
    pub(crate) fn cut(&self) {
        self.loses(100);
    }

    /// Everything crosses it again.
    #[track_caller]
    pub(crate) fn mend(&self) {
        self.loses(0);
    }

    /// Pulls it out: both ends see that.
    #[track_caller]
    pub(crate) fn pull(&self) {
        self.there(|| ip(&format!("link set {FAR} down"))).expect("pulled");
    }

    /// Plugs it in again.
    #[track_caller]
    pub(crate) fn plug(&self) {
        self.there(|| ip(&format!("link set {FAR} up"))).expect("plugged in");
    }

    /// What arrives is lost, not what is sent: of that its sender would hear.
    fn lose(&self, percent: u32) -> Result<(), String> {
        let name = &self.name;
        let filter = |interface| nft("-f", &["-"], &filter(name, interface, percent)).map(drop);
        filter(name)?;
        self.there(|| filter(FAR))
    }
}

/// What nft is told: with these packets gone, whatever was lost before.
fn filter(table: &str, interface: &str, percent: u32) -> String {
    let fresh = format!("add table inet {table}\ndelete table inet {table}\n");
    let some = match percent {
        0 => return fresh,
        // All of them cannot be said by chance.
        100.. => String::new(),
        1..100 => format!("numgen random mod 100 < {percent}"),
    };
    format!(
        "{fresh}table inet {table} {{\nchain arrives {{\ntype filter hook input priority 0\n\
         iifname \"{interface}\" {some} counter drop\n}}\n}}\n"
    )
}

fn new_host() -> Result<File, String> {
    let host = unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from);
    host.and_then(|()| File::open("/proc/thread-self/ns/net")).map_err(|why| why.to_string())
}

fn ip(arguments: &str) -> Result<(), String> {
    let mut ip = Command::new("ip");
    ip.args(arguments.split(' ')).stdin(Stdio::null());
    done("ip, of the Debian package iproute2", &mut ip, "").map(drop)
}

fn nft(what: &str, arguments: &[&str], rules: &str) -> Result<String, String> {
    let mut nft = Command::new("nft");
    nft.arg(what).args(arguments).stdin(Stdio::piped());
    done("nft, of the Debian package nftables", &mut nft, rules)
}

/// What a command printed, if it went well.
fn done(what: &str, command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{what}: {why}"));
    if let Some(mut pipe) = child.stdin.take() {
        // It may have ended already, and says why.
        pipe.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().expect("an end");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(format!("{command:?}: {}", said(&output.stderr))),
    }
}

fn joined<T>(ended: Result<T, Box<dyn Any + Send>>) -> T {
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}
