use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::flow::ListenerId;

const T0: UnixMillis = UnixMillis(1_000_000);

fn at(seconds: u64) -> UnixMillis {
    UnixMillis(T0.0 + seconds * 1_000)
}

fn flow(port: u16) -> Flow {
    Flow::to(ListenerId::default(), SocketAddr::from(([192, 0, 2, 1], port)))
}

fn update(call_id: &str, cseq: u32, contacts: ContactSet) -> Update {
    Update {
        call_id: call_id.to_owned(),
        cseq,
        contacts,
        default_expires: None,
        source: flow(5060),
        path: vec!["<sip:edge;lr>".to_owned()],
        user_agent: Some("phone/1".to_owned()),
        outbound: false,
        limits: Limits::default(),
    }
}

fn list(uris: &[&str]) -> ContactSet {
    ContactSet::List(uris.iter().map(|uri| ContactUpdate::new(*uri)).collect())
}

fn one(contact: ContactUpdate) -> ContactSet {
    ContactSet::List(vec![contact])
}

fn uris(bindings: &Bindings) -> Vec<&str> {
    bindings.list().iter().map(|b| b.contact.as_str()).collect()
}

#[test]
fn a_contact_is_bound_and_ends_in_time() {
    let mut bindings = Bindings::default();
    let current = bindings.register(T0, update("c", 1, list(&["sip:a@192.0.2.1"]))).unwrap();
    assert_eq!(current[0].expires_in(at(0)), 3_600);
    assert_eq!(current[0].expires_in(UnixMillis(T0.0 + 1)), 3_600, "rounded up");
    assert_eq!((current[0].source, current[0].path.len()), (flow(5060), 1));
    assert_eq!(bindings.next_expiry(), Some(at(3_600)));
    assert!(bindings.expire(UnixMillis(at(3_600).0 - 1)).is_empty());
    assert_eq!(bindings.expire(at(3_600)).len(), 1);
    assert_eq!(bindings.next_expiry(), None);
}

#[test]
fn intervals_are_bounded_by_the_limits() {
    let mut bindings = Bindings::default();
    let mut ask = |cseq, own: Option<u32>, header| {
        let contact = ContactUpdate { expires: own, ..ContactUpdate::new("sip:a@h") };
        let update = Update { default_expires: header, ..update("c", cseq, one(contact)) };
        bindings.register(T0, update).map(|list| list.first().map(|b| b.expires_in(T0)))
    };
    assert_eq!(ask(1, Some(90), Some(7)), Ok(Some(90)), "the contact's own interval counts first");
    assert_eq!(ask(2, None, Some(120)), Ok(Some(120)));
    assert_eq!(ask(3, Some(1_000_000), None), Ok(Some(86_400)));
    let brief = ask(4, Some(59), None).unwrap_err();
    assert_eq!((brief.status(), brief.min_expires()), (423, Some(60)));
    assert_eq!(ask(5, Some(0), Some(3_600)), Ok(None));
}

#[test]
fn a_star_removes_all_and_needs_expires_zero() {
    let mut bindings = Bindings::default();
    bindings.register(T0, update("c", 1, list(&["sip:a@h", "sip:b@h"]))).unwrap();
    let star = |cseq, default_expires| Update { default_expires, ..update("c", cseq, ContactSet::Star) };
    for expires in [None, Some(60)] {
        assert_eq!(bindings.register(T0, star(2, expires)).unwrap_err().status(), 400);
    }
    assert_eq!(bindings.register(T0, star(1, Some(0))), Err(RegisterError::OutOfOrder));
    assert_eq!(bindings.list().len(), 2);
    assert_eq!(bindings.register(T0, star(2, Some(0))), Ok(Vec::new()));
}

#[test]
fn a_query_changes_nothing() {
    let mut bindings = Bindings::default();
    bindings.register(T0, update("c", 5, list(&["sip:a@h"]))).unwrap();
    let before = bindings.clone();
    let current = bindings.register(T0, update("c", 1, ContactSet::Query)).unwrap();
    assert_eq!((current.as_slice(), bindings.clone()), (before.list(), before.clone()));
}

#[test]
fn it_is_all_or_nothing() {
    let mut bindings = Bindings::default();
    bindings.register(T0, update("c", 5, list(&["sip:a@h"]))).unwrap();
    let before = bindings.clone();
    let late = update("c", 5, list(&["sip:new@h", "sip:a@h"]));
    assert_eq!(bindings.register(T0, late).unwrap_err().status(), 500);
    let brief = [ContactUpdate::new("sip:x@h"), ContactUpdate::new("sip:y@h").expiring_in(1)];
    assert_eq!(
        bindings.register(T0, update("d", 1, ContactSet::List(brief.into()))).unwrap_err().status(),
        423
    );
    assert_eq!(bindings, before);
    bindings.register(T0, update("d", 1, list(&["sip:a@h"]))).unwrap();
    assert_eq!(bindings.list()[0].call_id, "d", "another Call-ID has its own order: a phone restarted");
}

#[test]
fn the_contact_refreshed_longest_ago_makes_room() {
    let mut bindings = Bindings::default();
    let limits = Limits { max_contacts: 2, ..Limits::default() };
    let mut register = |cseq, uris: &[&str]| {
        let result = bindings.register(T0, Update { limits, ..update("c", cseq, list(uris)) });
        result.map(|list| list.into_iter().map(|b| b.contact).collect::<Vec<_>>())
    };
    register(1, &["sip:a@h"]).unwrap();
    register(2, &["sip:b@h"]).unwrap();
    register(3, &["sip:a@h"]).unwrap();
    assert_eq!(register(4, &["sip:c@h"]).unwrap(), ["sip:a@h", "sip:c@h"]);
    let many = register(5, &["sip:d@h", "sip:e@h", "sip:f@h"]).unwrap_err();
    assert_eq!(many.status(), 403);
    assert_eq!(register(6, &["sip:d@h", "sip:D@H", "sip:d@h"]).unwrap(), ["sip:D@H", "sip:d@h"]);
    assert_eq!(uris(&bindings), ["sip:D@H", "sip:d@h"]);
}

#[test]
fn an_outbound_instance_keeps_its_binding_under_a_new_address() {
    let mut bindings = Bindings::default();
    let contact = |uri: &str, reg_id| ContactUpdate {
        instance: Some("<urn:uuid:1>".to_owned()),
        reg_id,
        ..ContactUpdate::new(uri)
    };
    bindings.register(T0, update("c", 1, one(contact("sip:a@192.0.2.1:1000", Some(1))))).unwrap();
    bindings.register(T0, update("d", 1, one(contact("sip:a@192.0.2.1:1000", Some(2))))).unwrap();
    assert_eq!(bindings.list().len(), 2, "two flows of one device");
    bindings.register(T0, update("e", 1, one(contact("sip:a@192.0.2.7:2000", Some(1))))).unwrap();
    assert_eq!(uris(&bindings), ["sip:a@192.0.2.1:1000", "sip:a@192.0.2.7:2000"]);
    bindings.register(T0, update("f", 1, one(contact("sip:a@192.0.2.7:2000", None)))).unwrap();
    assert_eq!(uris(&bindings), ["sip:a@192.0.2.1:1000", "sip:a@192.0.2.7:2000"]);
}

#[test]
fn a_broken_connection_takes_along_the_flows_of_devices_that_keep_them() {
    let mut bindings = Bindings::default();
    let connection = |generation| ConnectionId { shard: 0, generation };
    let mut register = |name: &str, generation, reg_id: Option<u32>, path: &[&str]| {
        let instance = reg_id.map(|_| "i".to_owned());
        let contact = ContactUpdate { instance, reg_id, ..ContactUpdate::new(format!("sip:{name}@h")) };
        let source = Flow { connection: Some(connection(generation)), ..flow(5060) };
        let path: Vec<String> = path.iter().map(|route| (*route).to_owned()).collect();
        bindings.register(T0, Update { source, path, ..update(name, 1, one(contact)) }).unwrap();
    };
    register("flow", 1, Some(1), &[]);
    register("other", 2, Some(2), &[]);
    register("none", 1, None, &[]);
    register("proxied", 1, Some(3), &["<sip:edge;lr;ob>"]);
    assert_eq!(bindings.flow_failed(connection(1)).len(), 1);
    assert_eq!(uris(&bindings), ["sip:other@h", "sip:none@h", "sip:proxied@h"]);
    let stored: Bindings = serde_json::from_str(&serde_json::to_string(&bindings).unwrap()).unwrap();
    assert_eq!(stored, bindings);
}

#[test]
fn the_most_wanted_contact_comes_first() {
    let mut bindings = Bindings::default();
    let contact = |uri: &str, q| ContactUpdate { q, ..ContactUpdate::new(uri) };
    let contacts = vec![contact("sip:low@h", 100), contact("sip:top@h", 5_000), contact("sip:mid@h", 500)];
    bindings.register(T0, update("c", 1, ContactSet::List(contacts))).unwrap();
    let order: Vec<&str> = bindings.by_preference(T0).iter().map(|b| b.contact.as_str()).collect();
    assert_eq!(order, ["sip:top@h", "sip:mid@h", "sip:low@h"]);
    assert!(bindings.by_preference(at(3_600)).is_empty());
}

#[test]
fn a_call_rings_groups_of_equal_q_and_one_flow_of_each_device() {
    let mut bindings = Bindings::default();
    let contact = |uri: &str, q, device: Option<(&str, u32)>| ContactUpdate {
        q,
        instance: device.map(|(instance, _)| format!("<urn:uuid:{instance}>")),
        reg_id: device.map(|(_, reg_id)| reg_id),
        ..ContactUpdate::new(uri)
    };
    let all = [
        contact("sip:low@h", 100, None),
        contact("sip:desk1@h", 900, Some(("desk", 1))),
        contact("sip:soft@h", 900, None),
        contact("sip:desk2@h", 900, Some(("desk", 2))),
        contact("sip:other@h", 900, Some(("other", 1))),
    ];
    for (cseq, contact) in (1..).zip(all) {
        bindings.register(at(u64::from(cseq)), update("c", cseq, one(contact))).unwrap();
    }
    let rung = |now| -> Vec<Vec<Vec<String>>> {
        let uris = |flows: Flows<'_>| flows.iter().map(|b| b.contact.replace("@h", "")).collect();
        bindings.target_set(now).into_iter().map(|group| group.into_iter().map(uris).collect()).collect()
    };
    assert_eq!(
        rung(at(10)),
        [vec![vec!["sip:soft"], vec!["sip:desk2", "sip:desk1"], vec!["sip:other"]], vec![vec!["sip:low"]]],
        "the flow refreshed last is used first"
    );
    assert_eq!(rung(at(3_604)), [[["sip:other"]]], "only what has not expired");
    assert!(rung(at(4_000)).is_empty());
}

#[test]
fn contacts_compare_as_the_rfc_says() {
    // The pairs of RFC 3261 §19.1.4 that a contact can be.
    let same = [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        ("sip:a@h?x=1&y=2", "sip:a@h?y=2&x=1"),
        ("SIP:a@h", "sip:a@h"),
    ];
    let different = [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:a@h;rinstance=1", "sip:a@h;rinstance=2"),
        ("sip:a@h", "sips:a@h"),
        ("sip:h", "sip:a@h"),
    ];
    for (a, b) in same {
        assert!(same_contact(a, b) && same_contact(b, a), "{a} {b}");
    }
    for (a, b) in different {
        assert!(!same_contact(a, b) && !same_contact(b, a), "{a} {b}");
    }
}

proptest! {
    #[test]
    fn comparing_never_panics_and_has_no_order(a in "[ -~]{0,30}", b in "[ -~]{0,30}") {
        prop_assert!(same_contact(&a, &a));
        prop_assert_eq!(same_contact(&a, &b), same_contact(&b, &a));
    }

    #[test]
    fn the_limits_hold_after_any_updates(
        steps in proptest::collection::vec((0..5_u32, 0..6_u8, proptest::option::of(0..200_u32), 0..100_u64), 1..40),
    ) {
        let mut bindings = Bindings::default();
        let mut now = T0;
        for (cseq, name, expires, wait) in steps {
            now = UnixMillis(now.0 + wait * 1_000);
            let before = bindings.clone();
            let contact = ContactUpdate { expires, ..ContactUpdate::new(format!("sip:{name}@h")) };
            let limits = Limits { max_contacts: 3, ..Limits::default() };
            let result = bindings.register(now, Update { limits, ..update("c", cseq, one(contact)) });
            prop_assert!(bindings.list().len() <= 3);
            prop_assert!(bindings.list().iter().all(|b| b.expires_at > now));
            if result.is_err() {
                let mut kept = before;
                kept.expire(now);
                prop_assert_eq!(&bindings, &kept);
            }
        }
    }
}
