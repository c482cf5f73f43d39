//! One call over real sockets, on threads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::order::{Lease, MediaEvent, MediaOrder};
use super::super::threads::{Link, spawn_workers};
use super::fixture::{Figures, rtp, shared};
use super::rig::{SHARD, config, session};
use crate::env::Tell;
use crate::runtime::Clock;
use crate::shard::LinkMessage;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A range of free ports: from one that the kernel chose on.
fn free_ports() -> (u16, u16) {
    let probe = UdpSocket::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port();
    let first = probe.min(65_000) & !1;
    (first, first + 199)
}

async fn event(events: &mut UnboundedReceiver<MediaEvent>) -> MediaEvent {
    tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

async fn heard(phone: &tokio::net::UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 500];
    let (length, from) = tokio::time::timeout(PATIENCE, phone.recv_from(&mut buffer)).await.unwrap().unwrap();
    (buffer[..length].to_vec(), from)
}

#[test]
fn two_phones_on_loopback_hear_each_other_through_a_worker_thread() {
    System::new().block_on(async {
        let figures = Arc::new(Figures::default());
        let shared = shared(&figures, LOOPBACK, free_ports());
        let (tell, mut events) = unbounded_channel();
        let link: Link = Arc::new(move |_, message| {
            if let LinkMessage::Media(event) = message {
                // The test may have ended.
                let _ = tell.send(event);
            }
        });
        let workers = spawn_workers(&shared, Clock::default(), &link, Vec::new()).unwrap();
        let worker = &workers[0];
        worker.tell(MediaOrder::Grow { shard: SHARD, address: LOOPBACK, pairs: 2 });
        let MediaEvent::Granted { pairs, .. } = event(&mut events).await else { panic!("no ports") };
        let phones = [
            tokio::net::UdpSocket::bind((LOOPBACK, 0)).await.unwrap(),
            tokio::net::UdpSocket::bind((LOOPBACK, 0)).await.unwrap(),
        ];
        let open = |side: u8, lease: Lease| {
            let remote = phones[usize::from(side)].local_addr().unwrap().to_string();
            let config = Box::new(config(&remote));
            let peer = Some(session(1 - side));
            worker.tell(MediaOrder::Open { session: session(side), lease, config, shard: SHARD, peer });
        };
        open(0, pairs[0]);
        open(1, pairs[1]);
        // Orders are taken in order: once this is answered, both are open, and nothing that was early is taken for stray.
        worker.tell(MediaOrder::Grow { shard: SHARD, address: LOOPBACK, pairs: 1 });
        assert!(matches!(event(&mut events).await, MediaEvent::Granted { .. }));
        for n in 0..20 {
            phones[0].send_to(&rtp(n, 9), pairs[0].rtp).await.unwrap();
            assert_eq!(heard(&phones[1]).await, (rtp(n, 9), pairs[1].rtp));
            phones[1].send_to(&rtp(n, 8), pairs[1].rtp).await.unwrap();
            assert_eq!(heard(&phones[0]).await, (rtp(n, 8), pairs[0].rtp));
        }
        worker.tell(MediaOrder::Close { session: session(0) });
        let MediaEvent::Closed { report, .. } = event(&mut events).await else { panic!("not closed") };
        assert_eq!((report.rx, report.tx, report.lost), (20, 20, 0));
        assert!(matches!(event(&mut events).await, MediaEvent::Returned(back) if back == [pairs[0]]));
    });
}
