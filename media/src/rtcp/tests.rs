use proptest::prelude::*;

use super::*;

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 7,
    fraction_lost: 12,
    cumulative_lost: -3,
    highest_sequence: 0x0001_fffe,
    jitter: 80,
    last_sr: 0x1234_5678,
    delay_since_last_sr: 65536,
};

#[test]
fn a_full_compound_is_read_back() {
    let info = SenderInfo { ntp: 0x0102_0304_0506_0708, rtp_timestamp: 9, packets: 10, octets: 1600 };
    let mut bytes = Vec::new();
    CompoundBuilder::sender_report(&mut bytes, 42, &info, &[BLOCK])
        .cname("leg@tandem")
        .app(3, *b"tdm1", &[1, 2, 3, 4, 5])
        .bye("over");
    let compound = Compound::parse(&bytes).unwrap();
    assert_eq!(compound.ssrc(), 42);
    let packets: Vec<_> = compound.packets().collect();
    let RtcpPacket::SenderReport { ssrc: 42, info: read, blocks } = packets[0] else { panic!("{packets:?}") };
    assert_eq!(read, info);
    assert_eq!(blocks.iter().collect::<Vec<_>>(), [BLOCK]);
    let RtcpPacket::SourceDescription(description) = packets[1] else { panic!("{packets:?}") };
    assert_eq!(description.cname(42), Some(&b"leg@tandem"[..]));
    assert_eq!(description.cname(43), None);
    assert_eq!(
        packets[2],
        RtcpPacket::App { subtype: 3, ssrc: 42, name: *b"tdm1", data: &[1, 2, 3, 4, 5, 0, 0, 0] }
    );
    let RtcpPacket::Bye(bye) = packets[3] else { panic!("{packets:?}") };
    assert_eq!(bye.sources().collect::<Vec<_>>(), [42]);
    assert_eq!(bye.reason(), b"over");
    assert_eq!(packets.len(), 4);
}

#[test]
fn an_empty_receiver_report_is_eight_bytes() {
    let mut bytes = Vec::new();
    CompoundBuilder::receiver_report(&mut bytes, 0x0102_0304, &[]);
    assert_eq!(bytes, [0x80, 201, 0, 1, 1, 2, 3, 4]);
}

#[test]
fn a_compound_must_begin_with_a_report() {
    let bye = [0x81, 203, 0, 1, 0, 0, 0, 1];
    assert_eq!(Compound::parse(&bye), Err(RtcpError::NotAReport(203)));
}

#[test]
fn lengths_versions_and_padding_are_checked() {
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    let compound = |more: &[u8]| Compound::parse(&[&report, more].concat()).map(|_| ());
    assert_eq!(Compound::parse(&[]), Err(RtcpError::Cut));
    assert_eq!(compound(&[0x80, 203]), Err(RtcpError::Cut));
    assert_eq!(compound(&[0x80, 203, 0, 1]), Err(RtcpError::Cut));
    assert_eq!(compound(&[0x40, 203, 0, 0]), Err(RtcpError::Version(1)));
    assert_eq!(compound(&[0x82, 203, 0, 1, 0, 0, 0, 1]), Err(RtcpError::Counts(203)));
    assert_eq!(compound(&[0x81, 203, 0, 2, 0, 0, 0, 1, 9, b'a', b'b', 0]), Err(RtcpError::Counts(203)));
    assert_eq!(compound(&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 9, b'a', b'b']), Err(RtcpError::Counts(202)));
    assert_eq!(Compound::parse(&[0x81, 201, 0, 1, 0, 0, 0, 1]), Err(RtcpError::Counts(201)));
    let padded = [0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4];
    assert!(Compound::parse(&padded).is_ok());
    assert_eq!(Compound::parse(&[&padded[..], &report].concat()), Err(RtcpError::Padding));
    for count in [0, 9] {
        let wrong = [0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, count];
        assert_eq!(Compound::parse(&wrong), Err(RtcpError::Padding));
    }
}

#[test]
fn an_unknown_type_is_passed_over_by_its_length() {
    let bytes = [0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 206, 0, 2, 1, 1, 1, 1, 2, 2, 2, 2, 0x80, 203, 0, 0];
    let packets: Vec<_> = Compound::parse(&bytes).unwrap().packets().collect();
    assert_eq!(
        packets[1],
        RtcpPacket::Unknown { packet_type: 206, count: 1, body: &[1, 1, 1, 1, 2, 2, 2, 2] }
    );
    assert!(matches!(packets[2], RtcpPacket::Bye(_)));
}

#[test]
fn the_round_trip_is_that_of_the_example_in_rfc_3550() {
    // RFC 3550 figure 2: A - DLSR - LSR = 0xb710:8000 - 0x0005:4000 - 0xb705:2000 = 6.125 s.
    let block = ReportBlock { last_sr: 0xb705_2000, delay_since_last_sr: 0x0005_4000, ..BLOCK };
    assert_eq!(block.round_trip(0xb710_8000), Some(0x0006_2000));
    assert_eq!(block.round_trip(0xb705_0000), None);
    assert_eq!(ReportBlock { last_sr: 0, ..block }.round_trip(0xb710_8000), None);
}

proptest! {
    #[test]
    fn parse_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Compound::parse(&bytes);
    }

    #[test]
    fn damage_to_a_valid_compound_never_panics(
        at in 0usize..100, value: u8, cut in 0usize..100, cname in "[a-z]{0,20}",
    ) {
        let mut bytes = Vec::new();
        CompoundBuilder::sender_report(&mut bytes, 42, &SenderInfo::default(), &[BLOCK]).cname(&cname).bye("x");
        prop_assert!(Compound::parse(&bytes).is_ok());
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(length - cut % length);
        if let Ok(compound) = Compound::parse(&bytes) {
            for packet in compound.packets() {
                match packet {
                    RtcpPacket::SourceDescription(d) => prop_assert!(d.items().count() < 60),
                    RtcpPacket::Bye(b) => prop_assert!(b.sources().count() < 32),
                    RtcpPacket::SenderReport { blocks, .. } | RtcpPacket::ReceiverReport { blocks, .. } =>
                        prop_assert!(blocks.iter().count() < 32),
                    RtcpPacket::App { .. } | RtcpPacket::Unknown { .. } => {}
                }
            }
        }
    }
}
