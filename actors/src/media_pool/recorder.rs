//! Recordings: the packet loop copies packets into a batch, a writer turns batches into files.
//!
//! The loop never waits for a disk. Each [`HAND_OVER`] it gives its batch to a [`Sink`] through a bounded queue; batches come
//! back to be filled again, so that a running recording allocates nothing. The time of arrival travels with each packet, so it does not
//! matter to a file when its batch is written. A disk that stalls for longer than the queue is deep costs the recordings, counted, never the calls.

mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use tandem_media::codec::Codec;
use tandem_media::recording::Side;

use super::order::{MediaEvent, SessionId};
use super::session::Hub;
use crate::calls::CallKey;
use crate::ids::ShardId;
use crate::shard::LinkMessage;

pub use writer::{InlineSink, RecordingFile, ThreadSink, Writer, create_file};

/// How often a worker hands its batch over.
pub const HAND_OVER: Duration = Duration::from_millis(100);
/// A batch of this many bytes is handed over at once.
const FULL_BATCH: usize = 256 << 10;
/// Empty batches kept for use.
const SPARE: usize = 4;

/// Packets of one worker's recordings, in order of arrival.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) packets: Vec<Tapped>,
    pub(super) bytes: Vec<u8>,
    /// All recordings are to be written up to this time.
    pub(super) until: Duration,
}

/// One packet in a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Tapped {
    pub(super) recording: u64,
    pub(super) side: Side,
    pub(super) codec: Codec,
    pub(super) at: Duration,
    pub(super) end: usize,
}

/// What a [`Sink`] is to do, in this order.
#[derive(Debug)]
pub enum Job {
    /// Open a file.
    Begin {
        /// The recording's number.
        recording: u64,
        /// The file.
        path: PathBuf,
        /// Time 0 of the file.
        at: Duration,
    },
    /// Write packets.
    Write(Batch),
    /// Close a file.
    End {
        /// The recording's number.
        recording: u64,
        /// The end of the file.
        at: Duration,
    },
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// A batch was written and can be filled again.
    Spent(Batch),
    /// A file was closed and is whole.
    Ended(u64),
    /// A recording died; it needs no [`Job::End`].
    Failed(u64, String),
}

/// Where jobs go: a thread, or in a simulation a writer in the same place.
pub trait Sink {
    /// Takes a job without waiting.
    ///
    /// # Errors
    /// The job, if the queue is full or the writer has ended.
    fn submit(&mut self, job: Job) -> Result<(), Job>;
    /// What was done since, oldest first.
    fn outcome(&mut self) -> Option<Outcome>;
}

struct Known {
    call: CallKey,
    shard: ShardId,
    ending: bool,
}

/// The recordings of one worker.
#[derive(Default)]
pub(crate) struct Recorder {
    sink: Option<Box<dyn Sink>>,
    known: BTreeMap<u64, Known>,
    running: BTreeMap<CallKey, u64>,
    last: u64,
    batch: Batch,
    spare: Vec<Batch>,
    /// Beginnings and ends that found the queue full.
    waiting: VecDeque<Job>,
    /// Calls whose recording has begun, ended or died.
    changed: Vec<CallKey>,
}

impl Recorder {
    /// Begins a recording; one of the same call that still runs ends.
    pub(crate) fn begin(&mut self, hub: &Hub, call: CallKey, shard: ShardId, path: PathBuf, at: Duration) {
        self.end(hub, call, at);
        self.last += 1;
        self.known.insert(self.last, Known { call, shard, ending: false });
        self.running.insert(call, self.last);
        self.changed.push(call);
        hub.shared.metrics.recordings_active.increment(1.0);
        if self.sink.is_none() {
            match hub.seams.sink() {
                Ok(sink) => self.sink = Some(sink),
                Err(why) => return self.fail(hub, self.last, &format!("no thread to write it: {why}")),
            }
        }
        self.waiting.push_back(Job::Begin { recording: self.last, path, at });
        self.send_waiting();
    }

    /// The recording of a call, if it runs.
    pub(crate) fn of(&self, call: CallKey) -> Option<u64> {
        self.running.get(&call).copied()
    }

    /// A call whose recording has begun or ended since this was last asked.
    pub(crate) fn changed(&mut self) -> Option<CallKey> {
        self.changed.pop()
    }

    /// Takes a packet. Copies it, and allocates nothing once the batches have grown to their size.
    pub(crate) fn tap(&mut self, recording: u64, side: Side, codec: Codec, at: Duration, packet: &[u8]) {
        self.batch.bytes.extend_from_slice(packet);
        self.batch.packets.push(Tapped { recording, side, codec, at, end: self.batch.bytes.len() });
    }

    /// The batch is to be handed over before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.batch.bytes.len() >= FULL_BATCH
    }

    /// Ends the recording of a call, if there is one.
    pub(crate) fn end(&mut self, hub: &Hub, call: CallKey, at: Duration) {
        let Some(recording) = self.running.remove(&call) else { return };
        self.changed.push(call);
        if let Some(known) = self.known.get_mut(&recording) {
            known.ending = true;
            hub.shared.metrics.recordings_active.decrement(1.0);
        }
        // What came before the end must be written before it.
        self.hand_over(hub, at);
        self.waiting.push_back(Job::End { recording, at });
        self.send_waiting();
    }

    /// True while there is anything to write or to hear of.
    pub(crate) fn is_busy(&self) -> bool {
        !self.known.is_empty() || !self.waiting.is_empty()
    }

    /// Hands the batch to the writer and hears what became of earlier ones.
    pub(crate) fn upkeep(&mut self, hub: &Hub, at: Duration) {
        if self.is_busy() {
            self.hand_over(hub, at);
            self.hear(hub);
        }
    }

    fn send_waiting(&mut self) -> bool {
        let Some(sink) = &mut self.sink else { return false };
        while let Some(job) = self.waiting.pop_front() {
            if let Err(job) = sink.submit(job) {
                self.waiting.push_front(job);
                return false;
            }
        }
        true
    }

    fn hand_over(&mut self, hub: &Hub, at: Duration) {
        let mut batch = std::mem::replace(&mut self.batch, self.spare.pop().unwrap_or_default());
        batch.until = at;
        let room = self.send_waiting();
        let refused = match &mut self.sink {
            Some(sink) if room => sink.submit(Job::Write(batch)).err(),
            _ => Some(Job::Write(batch)),
        };
        if let Some(Job::Write(batch)) = refused {
            let late: BTreeSet<u64> = batch.packets.iter().map(|packet| packet.recording).collect();
            for recording in late {
                self.fail(hub, recording, "the disk is too slow");
                self.waiting.push_back(Job::End { recording, at });
            }
            self.reuse(batch);
        }
    }

    fn hear(&mut self, hub: &Hub) {
        while let Some(outcome) = self.sink.as_mut().and_then(|sink| sink.outcome()) {
            match outcome {
                Outcome::Spent(batch) => self.reuse(batch),
                Outcome::Ended(recording) => {
                    self.known.remove(&recording);
                }
                Outcome::Failed(recording, why) => self.fail(hub, recording, &why),
            }
        }
    }

    fn reuse(&mut self, mut batch: Batch) {
        if self.spare.len() < SPARE {
            batch.packets.clear();
            batch.bytes.clear();
            self.spare.push(batch);
        }
    }

    /// Tells and counts a recording's death, once.
    fn fail(&mut self, hub: &Hub, recording: u64, why: &str) {
        let Some(known) = self.known.remove(&recording) else { return };
        hub.shared.metrics.recordings_failed.increment(1);
        if !known.ending {
            hub.shared.metrics.recordings_active.decrement(1.0);
            self.running.remove(&known.call);
            self.changed.push(known.call);
        }
        let event = MediaEvent::RecordingFailed { call: known.call, why: why.to_owned() };
        hub.seams.link(known.shard, LinkMessage::Media(event));
    }
}

/// Which channel of the file a session's own audio belongs on.
pub(crate) fn side_of(session: SessionId) -> Side {
    if session.side == 0 { Side::A } else { Side::B }
}
