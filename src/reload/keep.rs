//! What a running process cannot change: its threads, directories, and the sockets of media. A reload leaves these as they are and
//! says so.

use serde::Serialize;

use crate::settings::{KeyChange, Listen, Settings, changed_keys};

/// Keys of `[node]` that are settled at the start.
const NODE: &[&str] = &["name", "data_dir", "sip_trace_mb", "shards"];
/// Keys of `[http]`.
const HTTP: &[&str] = &["address"];
/// Keys of `[media]`.
const MEDIA: &[&str] = &["addresses", "external_address", "ports", "workers"];
/// Keys of `[[listen]]`.
const LISTEN: &[&str] = &[
    "certificate",
    "private_key",
    "client_ca",
    "require_client_certificate",
    "server_ca",
    "handshake_timeout_ms",
    "max_handshakes",
    "max_connections",
    "max_connections_per_source",
];

/// The settings that can come into force now: those that are wanted, but with what runs where only a restart can change it. The changes
/// that wait for one.
pub(super) fn keep(running: &Settings, wanted: Settings) -> (Settings, Vec<KeyChange>) {
    let (mut next, mut pending) = (wanted, Vec::new());
    note("node", NODE, &running.node, &next.node, &mut pending);
    note("http", HTTP, &running.http, &next.http, &mut pending);
    note("media", MEDIA, &running.media, &next.media, &mut pending);
    next.listen = keep_listeners(&running.listen, &next.listen, &mut pending);
    next.node.name.clone_from(&running.node.name);
    next.node.data_dir.clone_from(&running.node.data_dir);
    next.node.sip_trace_mb = running.node.sip_trace_mb;
    next.node.shards = running.node.shards;
    next.http.address = running.http.address;
    next.media.addresses.clone_from(&running.media.addresses);
    next.media.external_address = running.media.external_address;
    next.media.ports = running.media.ports;
    next.media.workers = running.media.workers;
    (next, pending)
}

/// Whether both are the same sockets.
pub(super) fn same_place(one: &Listen, other: &Listen) -> bool {
    one.name == other.name && one.transport == other.transport && one.address == other.address
}

/// The listeners that are wanted. Those that stay stand in the order they have, so that what is behind them stays as it is; one at
/// another address is another listener by the same name.
fn keep_listeners(running: &[Listen], wanted: &[Listen], pending: &mut Vec<KeyChange>) -> Vec<Listen> {
    let named = |name: &str| wanted.iter().find(|new| new.name == name);
    let staying = running.iter().filter_map(|old| Some((old, named(&old.name)?)));
    let staying = staying
        .map(|(old, new)| if same_place(old, new) { keep_listen(old, new, pending) } else { new.clone() });
    let mut next: Vec<Listen> = staying.collect();
    next.extend(wanted.iter().filter(|new| !running.iter().any(|old| old.name == new.name)).cloned());
    next
}

/// A listener that stays, with what can change of it as it is wanted.
fn keep_listen(running: &Listen, new: &Listen, pending: &mut Vec<KeyChange>) -> Listen {
    note(&format!("listen {}", running.name), LISTEN, running, new, pending);
    Listen {
        transport: running.transport,
        address: running.address,
        certificate: running.certificate.clone(),
        private_key: running.private_key.clone(),
        client_ca: running.client_ca.clone(),
        require_client_certificate: running.require_client_certificate,
        server_ca: running.server_ca.clone(),
        handshake_timeout_ms: running.handshake_timeout_ms,
        max_handshakes: running.max_handshakes,
        max_connections: running.max_connections,
        max_connections_per_source: running.max_connections_per_source,
        ..new.clone()
    }
}

fn note<T: Serialize>(section: &str, keys: &[&str], running: &T, wanted: &T, pending: &mut Vec<KeyChange>) {
    let settled = changed_keys(running, wanted).into_iter().filter(|c| keys.contains(&c.key.as_str()));
    pending.extend(settled.map(|change| KeyChange { key: format!("{section}.{}", change.key), ..change }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::load_from(Some(("test", text)), []).unwrap().settings
    }

    #[test]
    fn sockets_threads_and_directories_stay_and_the_rest_goes_on() {
        let running = settings(
            "[node]\nrealm = \"a\"\n[[listen]]\nname = \"one\"\naddress = \"127.0.0.1:5060\"\n\
             [[listen]]\nname = \"two\"\naddress = \"127.0.0.1:5062\"\n\
             [[listen]]\nname = \"four\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:5068\"\n",
        );
        let wanted = settings(
            "[node]\nrealm = \"b\"\nshards = 3\n[media]\nrtp_timeout_s = 5\nports = [30000, 30999]\n\
             [[listen]]\nname = \"three\"\naddress = \"127.0.0.1:5064\"\n\
             [[listen]]\nname = \"four\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:5068\"\nt1_ms = 200\nmax_connections = 7\n\
             [[listen]]\nname = \"two\"\naddress = \"127.0.0.1:5066\"\nt1_ms = 300\n",
        );
        let (next, pending) = keep(&running, wanted);
        let told: Vec<String> =
            pending.iter().map(|p| format!("{}: {} -> {}", p.key, p.from, p.to)).collect();
        assert_eq!(
            told,
            [
                "node.shards: 0 -> 3",
                "media.ports: [20000,39999] -> [30000,30999]",
                "listen four.max_connections: 10000 -> 7",
            ]
        );
        assert_eq!(next.node.shards, running.node.shards);
        assert_eq!((next.node.realm.as_deref(), next.media.rtp_timeout_s), (Some("b"), 5));
        let listeners: Vec<(&str, u16, u32)> =
            next.listen.iter().map(|l| (l.name.as_str(), l.address.0.port(), l.t1_ms)).collect();
        assert_eq!(listeners, [("two", 5066, 300), ("four", 5068, 200), ("three", 5064, 500)]);
        assert_eq!(next.listen[1].max_connections, 10_000);
    }

    #[test]
    fn every_key_that_is_said_to_stay_exists_and_does() {
        let running = settings("");
        let names = |value: serde_json::Value| -> Vec<String> {
            value.as_object().map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
        };
        let json = |value: &dyn erased::Json| names(value.json());
        for (keys, there) in [
            (NODE, json(&running.node)),
            (HTTP, json(&running.http)),
            (MEDIA, json(&running.media)),
            (LISTEN, json(&running.listen[0])),
        ] {
            assert!(keys.iter().all(|key| there.iter().any(|known| known == key)), "{keys:?}");
        }
    }

    /// `Serialize` cannot be made into an object.
    mod erased {
        pub(super) trait Json {
            fn json(&self) -> serde_json::Value;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> serde_json::Value {
                serde_json::to_value(self).unwrap()
            }
        }
    }
}
