//! The actors of Tandem: mailboxes, placement, timers, supervision, sockets.
