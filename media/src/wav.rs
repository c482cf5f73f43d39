//! Reading and writing WAV files of 16-bit samples.

use std::io::{Read, Seek, Write};

use thiserror::Error;

/// Why a WAV file could not be read or written.
#[derive(Debug, Error)]
pub enum WavError {
    /// The reader or writer failed, or it is not a WAV file.
    #[error(transparent)]
    Wav(#[from] hound::Error),
    /// A WAV file, but not of 16-bit integer samples.
    #[error("the samples are {bits}-bit {format:?}, not 16-bit integers")]
    Format {
        /// Bits of a sample.
        bits: u16,
        /// Integer or float.
        format: hound::SampleFormat,
    },
}

/// The samples of a WAV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wav {
    /// Samples a second in each channel.
    pub rate: u32,
    /// The channels, of equal length. In a recording of a call: 0 is leg A, 1 is leg B.
    pub channels: Vec<Vec<i16>>,
}

/// The header of our files: 16-bit integers.
pub(crate) fn spec(channels: u16, rate: u32) -> hound::WavSpec {
    hound::WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    }
}

/// Reads a whole file. One that is cut off in the middle of its data ends at the cut.
///
/// # Errors
///
/// [`WavError`] if it is no WAV file, has other than 16-bit integer samples, or the reader fails.
pub fn read_wav(reader: impl Read) -> Result<Wav, WavError> {
    let mut reader = hound::WavReader::new(reader)?;
    let spec = reader.spec();
    if spec.bits_per_sample != 16 || spec.sample_format != hound::SampleFormat::Int {
        return Err(WavError::Format { bits: spec.bits_per_sample, format: spec.sample_format });
    }
    let count = usize::from(spec.channels);
    let mut channels = vec![Vec::new(); count];
    for (index, sample) in reader.samples::<i16>().enumerate() {
        match sample {
            Ok(sample) => channels[index % count].push(sample),
            Err(hound::Error::IoError(error)) if is_cut(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // A cut may fall between the channels.
    let shortest = channels.iter().map(Vec::len).min().unwrap_or(0);
    channels.iter_mut().for_each(|channel| channel.truncate(shortest));
    Ok(Wav { rate: spec.sample_rate, channels })
}

/// Hound reports the end of data as an error of its own making.
fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::Other) && error.raw_os_error().is_none()
}

/// Writes a mono file.
///
/// # Errors
///
/// [`WavError::Wav`] if the writer fails.
pub fn write_mono(writer: impl Write + Seek, rate: u32, samples: &[i16]) -> Result<(), WavError> {
    let mut wav = hound::WavWriter::new(writer, spec(1, rate))?;
    for &sample in samples {
        wav.write_sample(sample)?;
    }
    Ok(wav.finalize()?)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn samples_come_back() {
        let mut file = Cursor::new(Vec::new());
        write_mono(&mut file, 8000, &[0, 1, -1, i16::MAX, i16::MIN]).unwrap();
        let wav = read_wav(&file.get_ref()[..]).unwrap();
        assert_eq!(wav, Wav { rate: 8000, channels: vec![vec![0, 1, -1, i16::MAX, i16::MIN]] });
    }

    #[test]
    fn a_file_that_is_cut_off_ends_at_the_cut() {
        let mut file = Cursor::new(Vec::new());
        let mut wav = hound::WavWriter::new(&mut file, spec(2, 8000)).unwrap();
        (0..8i16).for_each(|sample| wav.write_sample(sample).unwrap());
        wav.finalize().unwrap();
        let bytes = file.into_inner();
        let wav = read_wav(&bytes[..bytes.len() - 5]).unwrap();
        assert_eq!(wav.channels, [[0, 2], [1, 3]]);
    }

    #[test]
    fn other_formats_are_refused() {
        let mut file = Cursor::new(Vec::new());
        let spec = hound::WavSpec { bits_per_sample: 8, ..spec(1, 8000) };
        let mut wav = hound::WavWriter::new(&mut file, spec).unwrap();
        wav.write_sample(1i8).unwrap();
        wav.finalize().unwrap();
        assert!(matches!(read_wav(&file.get_ref()[..]), Err(WavError::Format { bits: 8, .. })));
        assert!(matches!(read_wav(&b"RIFX"[..]), Err(WavError::Wav(_))));
    }
}
