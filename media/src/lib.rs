//! The packet and audio arithmetic of Tandem: RTP, RTCP, codecs, tones, recording.
