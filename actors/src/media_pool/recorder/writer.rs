//! Turns batches of packets into files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tandem_media::recording::{RecordingError, StereoRecording};
use tandem_media::rtp::RtpPacket;

use super::{Batch, Job, Outcome, Sink};
use crate::shell::words;

/// Jobs that may wait for the thread: some seconds of a disk that stands still.
const DEPTH: usize = 64;
/// A file's buffer holds two seconds, so that it is written only by its flush each second.
const FILE_BUFFER: usize = 64 << 10;
/// How long the end of a worker waits for its files.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a recording is written to.
pub trait RecordingFile: Write + Seek + Send {}
impl<T: Write + Seek + Send> RecordingFile for T {}

type Recording = StereoRecording<BufWriter<Box<dyn RecordingFile>>>;

/// Opens a recording's file and makes its directory. What is there by that name is kept under another: the process before may have ended
/// without remembering that it had begun the file.
///
/// # Errors
/// The directory or the file cannot be made.
pub fn create_file(path: &Path) -> io::Result<Box<dyn RecordingFile>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    if path.exists() {
        let aside = (1..).map(|n| path.with_extension(format!("{n}.wav"))).find(|aside| !aside.exists());
        fs::rename(path, aside.unwrap_or_else(|| path.with_extension("old.wav")))?;
    }
    Ok(Box::new(File::create_new(path)?))
}

/// The open files.
pub struct Writer<O> {
    open: O,
    files: BTreeMap<u64, Recording>,
}

impl<O: FnMut(&Path) -> io::Result<Box<dyn RecordingFile>>> Writer<O> {
    /// A writer that opens files by `open`.
    pub fn new(open: O) -> Writer<O> {
        Writer { open, files: BTreeMap::new() }
    }

    /// Does a job and tells what became of it.
    pub fn work(&mut self, job: Job, tell: &mut impl FnMut(Outcome)) {
        match job {
            Job::Begin { recording, path, at } => {
                let opened = (self.open)(&path).map_err(|why| format!("{}: {why}", path.display()));
                let begun = opened.and_then(|file| {
                    let buffered = BufWriter::with_capacity(FILE_BUFFER, file);
                    guarded(|| StereoRecording::new(buffered, at))
                });
                match begun {
                    Ok(file) => {
                        self.files.insert(recording, file);
                    }
                    Err(why) => tell(Outcome::Failed(recording, why)),
                }
            }
            Job::Write(batch) => self.write(batch, tell),
            Job::End { recording, at } => {
                let Some(mut file) = self.files.remove(&recording) else { return };
                let ended = guarded(|| {
                    file.advance(at)?;
                    file.finish()
                });
                tell(ended.map_or_else(|why| Outcome::Failed(recording, why), |_| Outcome::Ended(recording)));
            }
        }
    }

    fn write(&mut self, batch: Batch, tell: &mut impl FnMut(Outcome)) {
        let mut start = 0;
        for tapped in &batch.packets {
            let bytes = batch.bytes.get(start..tapped.end).unwrap_or_default();
            start = tapped.end;
            let Ok(packet) = RtpPacket::parse(bytes) else { continue };
            self.feed(tapped.recording, tell, |file| {
                file.push(tapped.side, tapped.at, &packet, tapped.codec)
            });
        }
        let all: Vec<u64> = self.files.keys().copied().collect();
        for recording in all {
            self.feed(recording, tell, |file| file.advance(batch.until));
        }
        tell(Outcome::Spent(batch));
    }

    fn feed(
        &mut self,
        recording: u64,
        tell: &mut impl FnMut(Outcome),
        input: impl FnOnce(&mut Recording) -> Result<(), RecordingError>,
    ) {
        let Some(file) = self.files.get_mut(&recording) else { return };
        if let Err(why) = guarded(|| input(file)) {
            self.files.remove(&recording);
            tell(Outcome::Failed(recording, why));
        }
    }
}

/// A recording's fault is its own: neither its panic nor its error reaches another.
fn guarded<T>(input: impl FnOnce() -> Result<T, RecordingError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(input)) {
        Ok(result) => result.map_err(|why| why.to_string()),
        Err(payload) => Err(words(payload.as_ref())),
    }
}

/// Writes at once, where it is asked to: for one thread and virtual time.
pub struct InlineSink<O> {
    writer: Writer<O>,
    outcomes: VecDeque<Outcome>,
}

impl<O: FnMut(&Path) -> io::Result<Box<dyn RecordingFile>>> InlineSink<O> {
    /// A sink that opens files by `open`.
    pub fn new(open: O) -> InlineSink<O> {
        InlineSink { writer: Writer::new(open), outcomes: VecDeque::new() }
    }
}

impl<O: FnMut(&Path) -> io::Result<Box<dyn RecordingFile>>> Sink for InlineSink<O> {
    fn submit(&mut self, job: Job) -> Result<(), Job> {
        let outcomes = &mut self.outcomes;
        self.writer.work(job, &mut |outcome| outcomes.push_back(outcome));
        Ok(())
    }

    fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }
}

/// A thread that writes.
#[derive(Debug)]
pub struct ThreadSink {
    jobs: Option<SyncSender<Job>>,
    outcomes: Receiver<Outcome>,
}

impl ThreadSink {
    /// Starts the thread, which opens files by `open`. It ends when the sink is dropped, after the last job; the drop waits at most 2 s for that.
    ///
    /// # Errors
    /// The operating system refuses the thread.
    pub fn start(
        name: &str,
        open: impl FnMut(&Path) -> io::Result<Box<dyn RecordingFile>> + Send + 'static,
    ) -> io::Result<ThreadSink> {
        let (jobs, inlet) = sync_channel(DEPTH);
        let (outlet, outcomes) = channel();
        let run = move || {
            let mut writer = Writer::new(open);
            // The worker may be gone already; its files are still written.
            let mut tell = |outcome| drop(outlet.send(outcome));
            while let Ok(job) = inlet.recv() {
                // What a recording does is guarded on its own; this is the last resort, which keeps the thread.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| writer.work(job, &mut tell))) {
                    tracing::error!(panic = words(panic.as_ref()), "the writer of recordings panicked");
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(ThreadSink { jobs: Some(jobs), outcomes })
    }
}

impl Sink for ThreadSink {
    fn submit(&mut self, job: Job) -> Result<(), Job> {
        let Some(jobs) = &self.jobs else { return Err(job) };
        jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

impl Drop for ThreadSink {
    fn drop(&mut self) {
        self.jobs = None;
        // Each outcome shows that the disk still moves.
        while !matches!(
            self.outcomes.recv_timeout(LAST_WRITE),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        ) {}
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
