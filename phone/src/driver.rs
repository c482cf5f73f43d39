//! A phone on real sockets: the only file of this crate that reads a clock or does I/O.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::media::{Heard, MediaConfig, MediaEnd};
use crate::{CallHandle, Command, Direction, Event, Phone, PhoneConfig};

/// The longest datagram that UDP carries.
const DATAGRAM: usize = 65_535;

/// Why a phone on sockets could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A socket could not be opened or failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The phone's task has ended.
    #[error("the phone has stopped")]
    Stopped,
    /// The event that was waited for did not come in time.
    #[error("no such event within {within:?}; meanwhile: {seen:?}")]
    TimedOut {
        /// How long was waited.
        within: Duration,
        /// What came instead.
        seen: Vec<Event>,
    },
    /// Too little audio came in time.
    #[error("too little audio within {within:?}: {heard:?}")]
    Silence {
        /// How long was waited.
        within: Duration,
        /// What was heard.
        heard: Heard,
    },
}

/// A SIP message that a phone sent or received, for a live ladder.
#[derive(Clone, Copy, Debug)]
pub struct Tapped<'a> {
    /// Sent by this phone, else received.
    pub sent: bool,
    /// When.
    pub at: Instant,
    /// The other address.
    pub peer: SocketAddr,
    /// The whole message.
    pub message: &'a [u8],
}

impl Tapped<'_> {
    /// The request line or status line.
    pub fn first_line(&self) -> String {
        let end = self.message.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        String::from_utf8_lossy(&self.message[..end.unwrap_or(self.message.len())]).into_owned()
    }
}

/// Called for each SIP message in the order they pass; keep-alives are left out. It must return at once.
pub type Tap = Box<dyn FnMut(&Tapped<'_>) + Send>;

/// How a [`SoftPhone`] is set up.
#[derive(Clone, Debug)]
pub struct SoftPhoneConfig {
    /// The SIP half. A port 0 in `local` or `media` is replaced by the port that the system gives; the
    /// addresses themselves must be reachable ones, as they go into Contact and SDP.
    pub phone: PhoneConfig,
    /// The audio half.
    pub media: MediaConfig,
}

enum Order {
    Command(Command, oneshot::Sender<Option<CallHandle>>),
    /// Answered as soon as so many packets were heard.
    Heard(u64, oneshot::Sender<Heard>),
}

/// The handle of a phone that runs on two UDP sockets. The phone stops when the handle is dropped.
///
/// The audio belongs to the call that has media first, until that one ends; other calls are without.
#[derive(Debug)]
pub struct SoftPhone {
    orders: mpsc::Sender<Order>,
    events: mpsc::UnboundedReceiver<Event>,
    task: Option<JoinHandle<io::Result<()>>>,
    local: SocketAddr,
    media: SocketAddr,
}

impl SoftPhone {
    /// Opens the sockets and runs the phone as a task of the current runtime, of whichever flavour.
    ///
    /// # Errors
    ///
    /// [`DriverError::Socket`] if an address cannot be bound.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O enabled.
    pub fn start(config: SoftPhoneConfig, tap: Option<Tap>) -> Result<SoftPhone, DriverError> {
        let (mut phone, run) = SoftPhone::bind(config, tap)?;
        phone.task = Some(tokio::spawn(run));
        Ok(phone)
    }

    /// Opens the sockets and leaves it to the caller to run the future, which ends when the handle is dropped.
    ///
    /// # Errors
    ///
    /// [`DriverError::Socket`] if an address cannot be bound.
    ///
    /// # Panics
    ///
    /// As [`SoftPhone::start`].
    pub fn bind(
        mut config: SoftPhoneConfig,
        tap: Option<Tap>,
    ) -> Result<(SoftPhone, impl Future<Output = io::Result<()>> + Send + use<>), DriverError> {
        let (sip, local) = open(config.phone.local)?;
        let (rtp, media) = open(config.phone.media)?;
        config.phone.local = local;
        config.phone.media = media;
        let (orders, inbox) = mpsc::channel(64);
        // Unbounded: events come at the pace of a script's own calls, and one that is lost would hang a test.
        let (outbox, events) = mpsc::unbounded_channel();
        let runner = Runner {
            phone: Phone::new(config.phone),
            media: MediaEnd::new(config.media),
            in_media: None,
            listeners: Vec::new(),
            sip,
            rtp,
            inbox,
            outbox,
            tap,
            epoch: Instant::now(),
        };
        Ok((SoftPhone { orders, events, task: None, local, media }, runner.run()))
    }

    /// The SIP address that was bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The RTP address that was bound.
    pub fn media(&self) -> SocketAddr {
        self.media
    }

    /// Gives the phone a command; the handle is that of a dialled call.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopped`] if the phone does not run any more.
    pub async fn command(&self, command: Command) -> Result<Option<CallHandle>, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Command(command, reply)).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)
    }

    /// Calls a number.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopped`] if the phone does not run any more.
    pub async fn dial(&self, number: &str) -> Result<CallHandle, DriverError> {
        let handle = self.command(Command::Dial { number: number.to_owned() }).await?;
        handle.ok_or(DriverError::Stopped)
    }

    /// The next event; `None` when the phone has stopped. Cancel safe.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the first event that `pick` accepts; those before it are dropped.
    ///
    /// # Errors
    ///
    /// [`DriverError::TimedOut`] with what came instead, or [`DriverError::Stopped`].
    pub async fn wait_for(
        &mut self,
        within: Duration,
        pick: impl Fn(&Event) -> bool,
    ) -> Result<Event, DriverError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut seen = Vec::new();
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) if pick(&event) => return Ok(event),
                Ok(Some(event)) => seen.push(event),
                Ok(None) => return Err(DriverError::Stopped),
                Err(_) => return Err(DriverError::TimedOut { within, seen }),
            }
        }
    }

    /// What was heard in the present call, or in the last one.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopped`] if the phone does not run any more.
    pub async fn heard(&self) -> Result<Heard, DriverError> {
        self.ask(0).await
    }

    /// Waits until so many packets were heard in the present call.
    ///
    /// # Errors
    ///
    /// [`DriverError::Silence`] with what was heard if it takes too long, or [`DriverError::Stopped`].
    pub async fn listen(&self, packets: u64, within: Duration) -> Result<Heard, DriverError> {
        match tokio::time::timeout(within, self.ask(packets)).await {
            Ok(heard) => heard,
            Err(_) => Err(DriverError::Silence { within, heard: self.heard().await? }),
        }
    }

    async fn ask(&self, packets: u64) -> Result<Heard, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Heard(packets, reply)).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)
    }

    /// Stops the phone without a word to its peers, and closes its sockets.
    ///
    /// # Errors
    ///
    /// [`DriverError::Socket`] if a socket had failed, [`DriverError::Stopped`] if the task had panicked.
    pub async fn stop(self) -> Result<(), DriverError> {
        drop(self.orders);
        match self.task {
            Some(task) => Ok(task.await.map_err(|_| DriverError::Stopped)??),
            None => Ok(()),
        }
    }
}

fn open(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = StdSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?;
    Ok((UdpSocket::from_std(socket)?, bound))
}

/// What wakes a phone.
enum Wake {
    Order(Option<Order>),
    Sip(io::Result<(usize, SocketAddr)>),
    Rtp(io::Result<(usize, SocketAddr)>),
    Timer,
}

struct Runner {
    phone: Phone,
    media: MediaEnd,
    /// The call that the audio belongs to.
    in_media: Option<CallHandle>,
    listeners: Vec<(u64, oneshot::Sender<Heard>)>,
    sip: UdpSocket,
    rtp: UdpSocket,
    inbox: mpsc::Receiver<Order>,
    outbox: mpsc::UnboundedSender<Event>,
    tap: Option<Tap>,
    epoch: Instant,
}

impl Runner {
    async fn run(mut self) -> io::Result<()> {
        let (mut sip_buffer, mut rtp_buffer) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
        loop {
            self.flush().await?;
            let due = [self.phone.poll_timeout(), self.media.poll_timeout()].into_iter().flatten().min();
            // Without a deadline the branch below is off; the value is never used then.
            let at = tokio::time::Instant::from_std(self.epoch + due.unwrap_or_default());
            let wake = tokio::select! {
                order = self.inbox.recv() => Wake::Order(order),
                got = self.sip.recv_from(&mut sip_buffer) => Wake::Sip(got),
                got = self.rtp.recv_from(&mut rtp_buffer) => Wake::Rtp(got),
                () = tokio::time::sleep_until(at), if due.is_some() => Wake::Timer,
            };
            let now = self.epoch.elapsed();
            match wake {
                Wake::Order(None) => return Ok(()),
                Wake::Order(Some(order)) => self.obey(now, order),
                Wake::Sip(got) => {
                    let (length, from) = got?;
                    self.hear_sip(now, from, &sip_buffer[..length]);
                }
                Wake::Rtp(got) => {
                    let (length, from) = got?;
                    self.media.receive(now, from, &rtp_buffer[..length]);
                }
                Wake::Timer => {}
            }
            self.phone.handle_timeout(now);
            self.media.handle_timeout(now);
            self.report();
        }
    }

    fn obey(&mut self, now: Duration, order: Order) {
        match order {
            Order::Command(command, reply) => {
                // An asker that has gone away does not need the answer.
                let _ = reply.send(self.phone.command(now, command));
            }
            Order::Heard(packets, reply) => self.listeners.push((packets, reply)),
        }
    }

    /// Answers those who waited for as much as has been heard now.
    fn report(&mut self) {
        self.listeners.retain(|(_, reply)| !reply.is_closed());
        let packets = self.media.packets_heard();
        for (_, reply) in self.listeners.extract_if(.., |(enough, _)| *enough <= packets) {
            let _ = reply.send(self.media.heard());
        }
    }

    fn hear_sip(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        if datagram.iter().any(|byte| !matches!(byte, b'\r' | b'\n' | 0)) {
            self.tap(false, from, datagram);
        }
        self.phone.receive(now, from, datagram);
    }

    fn tap(&mut self, sent: bool, peer: SocketAddr, message: &[u8]) {
        if let Some(tap) = &mut self.tap {
            tap(&Tapped { sent, at: Instant::now(), peer, message });
        }
    }

    /// Empties every queue: events first, as they start and stop the audio.
    async fn flush(&mut self) -> io::Result<()> {
        let now = self.epoch.elapsed();
        while let Some(event) = self.phone.poll_event() {
            self.follow(now, &event);
            // A script that does not listen any more only misses events.
            let _ = self.outbox.send(event);
        }
        self.media.handle_timeout(now);
        while let Some((to, message)) = self.phone.poll_transmit() {
            self.tap(true, to, &message);
            ignore_unreachable(self.sip.send_to(&message, to).await)?;
        }
        while let Some((to, packet)) = self.media.poll_transmit() {
            ignore_unreachable(self.rtp.send_to(&packet, to).await)?;
        }
        Ok(())
    }

    /// Lets the audio follow the call.
    fn follow(&mut self, now: Duration, event: &Event) {
        match event {
            Event::EarlyMedia { call, remote_media, codec }
            | Event::Answered { call, remote_media, codec } => {
                if self.in_media == Some(*call) {
                    self.media.change(now, *remote_media, *codec, Direction::SendRecv);
                } else if self.in_media.is_none() {
                    self.in_media = Some(*call);
                    self.media.start(now, *remote_media, *codec);
                }
            }
            Event::MediaChanged { call, remote_media, codec, direction } if self.in_media == Some(*call) => {
                self.media.change(now, *remote_media, *codec, *direction);
            }
            Event::Ended { call, .. } | Event::Failed { call, .. } if self.in_media == Some(*call) => {
                self.in_media = None;
                self.media.stop();
            }
            Event::MediaChanged { .. }
            | Event::Ended { .. }
            | Event::Failed { .. }
            | Event::Registered { .. }
            | Event::RegistrationFailed { .. }
            | Event::Unregistered
            | Event::Incoming { .. }
            | Event::Ringing { .. }
            | Event::ReInviteFailed { .. }
            | Event::OptionsAnswered { .. }
            | Event::Timeout { .. }
            | Event::Protocol { .. } => {}
        }
    }
}

/// A peer that cannot be reached is a matter of retransmission, as a lost datagram is.
fn ignore_unreachable(sent: io::Result<usize>) -> io::Result<()> {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied,
    };
    match sent {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | PermissionDenied
            ) =>
        {
            Ok(())
        }
        // A wrong address in the peer's Contact or SDP.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(error),
    }
}
