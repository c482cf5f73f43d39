use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::{Instant, UnixMillis};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn stored(algorithm: Algorithm, ha1: &str) -> Secret {
    Secret::ha1_of_hex(algorithm, ha1).unwrap()
}

#[test]
fn a_stored_hash_has_the_length_of_its_algorithm_and_hexadecimal_digits() {
    let digits = "0123456789abcdefABCDEF0123456789";
    assert!(Secret::ha1_of_hex(Algorithm::Md5, digits).is_some());
    assert!(Secret::ha1_of_hex(Algorithm::Sha256, &digits.repeat(2)).is_some());
    for text in
        ["", "0", &digits[1..], &digits.replace('a', "g"), &digits.replace("01", "+1"), &digits.repeat(2)]
    {
        assert!(Secret::ha1_of_hex(Algorithm::Md5, text).is_none(), "{text}");
    }
}

fn signer() -> NonceSigner {
    NonceSigner::new([7; 32], UnixMillis(NOW.0 - 1_000))
}

fn fresh_id(unique: u64) -> u64 {
    match signer().check(&signer().challenge(NOW, unique, HERE), NOW, HOUR, HERE) {
        NonceCheck::Fresh { id } => id,
        other => panic!("{other:?}"),
    }
}

fn later(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 + seconds * 1_000)
}

/// RFC 7616 §3.9.1.
const RFC_7616: &str = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
    algorithm=ALG, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
    cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth,
    response="RESPONSE", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

#[test]
fn the_vectors_of_rfc_7616_verify() {
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let header = RFC_7616.replace("ALG", algorithm).replace("RESPONSE", response);
        let credentials = Credentials::parse(&header).unwrap();
        let secret = Secret::Password("Circle of Life".into());
        assert!(credentials.verify("GET", None, &secret));
        assert!(!credentials.verify("POST", None, &secret));
        assert!(!credentials.verify("GET", None, &Secret::Password("circle of life".into())));
        let mut wrong = credentials.clone();
        wrong.response.to_mut().pop();
        assert!(!wrong.verify("GET", None, &secret));
        let ha1 = credentials.algorithm.ha1("Mufasa", "http-auth@example.org", "Circle of Life");
        let (own, other) = match credentials.algorithm {
            Algorithm::Md5 => (stored(Algorithm::Md5, &ha1), Secret::Ha1Sha256(Box::new([7; 32]))),
            Algorithm::Sha256 => (stored(Algorithm::Sha256, &ha1.to_uppercase()), Secret::Ha1Md5([7; 16])),
        };
        assert!(credentials.verify("GET", None, &own));
        assert!(!credentials.verify("GET", None, &other));
    }
}

#[test]
fn the_vector_of_rfc_2617_is_what_a_client_sends() {
    let challenge = r#"Digest realm="testrealm@host.com", qop="auth,auth-int",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
    let header =
        answer(&[challenge], "GET", "/dir/index.html", "Mufasa", "Circle Of Life", "0a4f113b", 1).unwrap();
    assert!(header.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{header}");
    assert!(header.contains("nc=00000001") && header.contains("opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""));
}

#[test]
fn the_form_of_rfc_2069_verifies_and_counts_once() {
    // RFC 2069 §2.4 with the response of its errata.
    let header = r#"Digest username="Mufasa", realm="testrealm@host.com", uri="/dir/index.html",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", response="1949323746fe6a43ef61f9606e7febea""#;
    let credentials = Credentials::parse(header).unwrap();
    assert_eq!((credentials.qop, credentials.nonce_count()), (None, 1));
    assert!(credentials.verify("GET", None, &Secret::Password("CircleOfLife".into())));
}

#[test]
fn a_protected_body_must_be_known_and_unchanged() {
    let ha1 = Algorithm::Md5.ha1("u", "r", "p");
    let ha2 = Algorithm::Md5.hash(&[b"INVITE", b"sip:x", Algorithm::Md5.hash(&[b"body"]).as_bytes()]);
    let response =
        Algorithm::Md5.hash(&[ha1.as_bytes(), b"n", b"00000001", b"c", b"auth-int", ha2.as_bytes()]);
    let header = format!(
        "Digest username=u, realm=r, nonce=n, uri=\"sip:x\", qop=auth-int, nc=00000001, cnonce=c, response={}",
        response.as_str()
    );
    let credentials = Credentials::parse(&header).unwrap();
    let secret = Secret::Password("p".into());
    assert!(credentials.verify("INVITE", Some(b"body"), &secret));
    assert!(!credentials.verify("INVITE", Some(b"bodx"), &secret));
    assert!(!credentials.verify("INVITE", None, &secret));
}

#[test]
fn headers_are_read_in_any_order_and_quoting() {
    let header = r#"  digest  NC=0000000a,uri="sip:a,b;c=\"d\"" , cnonce="",response="X",x-new="y\\z",
        qop="auth", nonce=abc==,realm="r r",username="al\"ice" ,"#;
    let credentials = Credentials::parse(header).unwrap();
    assert_eq!(credentials.username, "al\"ice");
    assert_eq!(credentials.uri, "sip:a,b;c=\"d\"");
    assert_eq!(credentials.nonce, "abc==");
    assert_eq!(credentials.nonce_count(), 10);
}

#[test]
fn what_cannot_be_verified_is_refused_with_its_reason() {
    let parse = |text: &str| Credentials::parse(text).unwrap_err();
    assert_eq!(parse(""), DigestError::OtherScheme);
    assert_eq!(parse("Basic YWxpY2U6cHc="), DigestError::OtherScheme);
    assert_eq!(parse("Digest username=\"a"), DigestError::Malformed);
    assert_eq!(parse("Digest username=a, username=b"), DigestError::Duplicate("username".into()));
    assert_eq!(parse("Digest username=a, Digest username=b"), DigestError::Malformed);
    assert_eq!(parse("Digest realm=a"), DigestError::Missing("username"));
    assert_eq!(parse("Digest algorithm=MD5-sess"), DigestError::UnsupportedAlgorithm("MD5-sess".into()));
    assert_eq!(parse("Digest qop=x"), DigestError::UnsupportedQop("x".into()));
    assert_eq!(parse("Digest userhash=true"), DigestError::HashedUser);
    assert_eq!(parse("Digest qop=auth, nc=1"), DigestError::Missing("cnonce"));
    assert_eq!(parse("Digest qop=auth, cnonce=x, nc=+1"), DigestError::Malformed);
    assert_eq!(parse(&format!("Digest a={}", "x".repeat(9_000))), DigestError::Malformed);
}

#[test]
fn the_strongest_challenge_is_answered() {
    let md5 = www_authenticate("a \"realm\"", "n1", Algorithm::Md5, false);
    let sha = www_authenticate("a \"realm\"", "n2", Algorithm::Sha256, true);
    let best = Challenge::choose(&[&md5, &sha]).unwrap();
    assert_eq!((best.algorithm, best.nonce.as_str(), best.stale), (Algorithm::Sha256, "n2", true));
    assert_eq!(best.realm, "a \"realm\"");
    let joined = format!("Basic realm=x, {md5}, Digest realm=y, nonce=z, algorithm=SHA-512-256");
    assert_eq!(Challenge::choose(&[joined]).unwrap().nonce, "n1");
    assert_eq!(Challenge::choose(&["Basic realm=x"]), Err(DigestError::OtherScheme));
    assert_eq!(
        Challenge::choose(&["Digest realm=x, nonce=y, qop=\"auth-int\""]),
        Err(DigestError::UnsupportedQop("auth-int".into()))
    );
    assert_eq!(Challenge::choose::<&str>(&[]), Err(DigestError::OtherScheme));
}

#[test]
fn a_nonce_is_ours_for_its_time_only() {
    let nonce = signer().challenge(NOW, 99, HERE);
    assert_eq!(nonce.len(), 43);
    assert!(matches!(signer().check(&nonce, later(3_600), HOUR, HERE), NonceCheck::Fresh { .. }));
    assert_eq!(signer().check(&nonce, later(3_601), HOUR, HERE), NonceCheck::Expired);
    assert_eq!(NonceSigner::new([8; 32], NOW).check(&nonce, NOW, HOUR, HERE), NonceCheck::Foreign);
    assert_eq!(signer().check(&nonce, NOW, HOUR, THERE), NonceCheck::Foreign, "it was sent elsewhere");
    assert_eq!(signer().check("", NOW, HOUR, HERE), NonceCheck::Foreign);
    let restarted = NonceSigner::new([7; 32], later(1));
    assert_eq!(restarted.check(&nonce, later(2), HOUR, HERE), NonceCheck::Expired, "its window was lost");
    let mut forged = nonce.into_bytes();
    forged[3] ^= 1;
    assert_eq!(signer().check(std::str::from_utf8(&forged).unwrap(), NOW, HOUR, HERE), NonceCheck::Foreign);
    let future = signer().challenge(later(3_600), 1, HERE);
    assert_eq!(signer().check(&future, NOW, HOUR, HERE), NonceCheck::Expired);
}

/// A server with its tables, and a client of it.
struct Rig {
    signer: NonceSigner,
    windows: NonceWindows,
    throttle: Throttle,
}

impl Rig {
    fn new() -> Rig {
        Rig { signer: signer(), windows: NonceWindows::new(64, HOUR), throttle: Throttle::new([1; 16], 64) }
    }

    fn credentials(&self, nonce: &str, realm: &str, password: &str, nc: u32) -> Credentials<'static> {
        let challenge = www_authenticate(realm, nonce, Algorithm::Sha256, false);
        let header = answer(&[challenge], "REGISTER", "sip:tandem", "1001", password, "c", nc).unwrap();
        Credentials::parse(header.leak()).unwrap()
    }

    fn judge(
        &self,
        credentials: &Credentials<'_>,
        seconds: u64,
        source: IpAddr,
        secret: Option<&Secret>,
    ) -> Verdict {
        self.judge_at(credentials, seconds, source, secret, false)
    }

    fn judge_at(
        &self,
        credentials: &Credentials<'_>,
        seconds: u64,
        source: IpAddr,
        secret: Option<&Secret>,
        known_source: bool,
    ) -> Verdict {
        let server = Server {
            realm: "tandem",
            signer: &self.signer,
            windows: &self.windows,
            throttle: &self.throttle,
        };
        let now = Now { mono: Instant(seconds * 1_000_000), wall: later(seconds) };
        let request = Presented { credentials, method: "REGISTER", body: b"", source };
        authenticate(server, now, request, secret, || known_source)
    }
}

#[test]
fn the_server_s_rule_holds_row_by_row() {
    let rig = Rig::new();
    let secret = Secret::Password("pw".into());
    let judge = |credentials: &Credentials<'_>, seconds| rig.judge(credentials, seconds, HERE, Some(&secret));
    let nonce = rig.signer.challenge(NOW, 5, HERE);
    let good = rig.credentials(&nonce, "tandem", "pw", 1);
    assert_eq!(judge(&rig.credentials(&nonce, "tandem", "no", 1), 0), Verdict::Wrong);
    assert_eq!(judge(&rig.credentials(&nonce, "other", "pw", 1), 0), Verdict::Wrong);
    assert_eq!(rig.judge(&good, 0, HERE, None), Verdict::Wrong);
    let empty = rig.credentials(&nonce, "tandem", super::NOBODY, 1);
    assert_eq!(rig.judge(&empty, 2, HERE, None), Verdict::Wrong);
    assert_eq!(judge(&good, 4_000), Verdict::Stale);
    for password in ["pw", "no"] {
        let foreign = rig.credentials("foreign", "tandem", password, 1);
        assert_eq!(judge(&foreign, 0), Verdict::Stale, "a made-up nonce tells nothing of {password}");
        let elsewhere = rig.credentials(&nonce, "tandem", password, 1);
        assert_eq!(rig.judge(&elsewhere, 0, THERE, Some(&secret)), Verdict::Stale);
    }
    assert_eq!(judge(&good, 2), Verdict::Throttled, "four were wrong: not even the right ones are judged");
    assert_eq!(judge(&good, 3), Verdict::Accepted);
    assert_eq!(judge(&good, 3), Verdict::Stale, "a replay");
    assert_eq!(judge(&rig.credentials(&nonce, "tandem", "pw", 2), 3), Verdict::Accepted);
}

#[test]
fn guessing_is_slowed_and_a_made_up_nonce_slows_nobody() {
    let rig = Rig::new();
    let secret = Secret::Password("pw".into());
    for n in 0..50 {
        let guess = rig.credentials(&rig.signer.challenge(NOW, n, THERE), "tandem", "no", 1);
        assert_eq!(rig.judge(&guess, 0, HERE, Some(&secret)), Verdict::Stale);
    }
    let fresh = |n: u64| rig.signer.challenge(NOW, 1_000 + n, HERE);
    let verdicts: Vec<Verdict> = (0..20)
        .map(|n| rig.judge(&rig.credentials(&fresh(n), "tandem", "no", 1), 1, HERE, Some(&secret)))
        .collect();
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Wrong).count(), 4);
    assert!(verdicts[4..].iter().all(|v| *v == Verdict::Throttled), "{verdicts:?}");
    let right = rig.credentials(&fresh(99), "tandem", "pw", 1);
    assert_eq!(rig.judge(&right, 1, HERE, Some(&secret)), Verdict::Throttled);
    assert_eq!(rig.judge(&right, 2, HERE, Some(&secret)), Verdict::Accepted);
}

#[test]
fn at_a_slowed_source_the_right_credentials_of_who_is_known_there_count_and_wrong_ones_tell_nothing() {
    let rig = Rig::new();
    let secret = Secret::Password("pw".into());
    for n in 0..20 {
        rig.throttle.failed(Attempt { source: HERE, user: &n.to_string() }, Instant(0));
    }
    let fresh =
        |n: u64, password| rig.credentials(&rig.signer.challenge(NOW, n, HERE), "tandem", password, 1);
    let judge = |n, password, known| rig.judge_at(&fresh(n, password), 0, HERE, Some(&secret), known);
    assert_eq!(judge(1, "pw", false), Verdict::Throttled);
    assert_eq!(judge(2, "no", true), Verdict::Throttled, "like anybody's");
    assert_eq!(judge(3, "pw", true), Verdict::Accepted);
    for n in 4..9 {
        assert_eq!(judge(n, "no", true), Verdict::Throttled);
    }
    assert_eq!(judge(9, "pw", true), Verdict::Throttled, "who is known may not guess either");
}

#[test]
fn a_user_that_does_not_exist_costs_as_many_hashes_as_one_that_does() {
    let rig = Rig::new();
    let md5 = stored(Algorithm::Md5, &Algorithm::Md5.ha1("1001", "tandem", "pw"));
    let sha = stored(Algorithm::Sha256, &Algorithm::Sha256.ha1("1001", "tandem", "pw"));
    let password = Secret::Password("pw".into());
    let cost = |secret: Option<&Secret>, n| {
        let source = IpAddr::V4([198, 51, 100, n].into());
        let nonce = rig.signer.challenge(NOW, n.into(), source);
        let guess = rig.credentials(&nonce, "tandem", "no", 1);
        HASHES.set(0);
        assert_eq!(rig.judge(&guess, 0, source, secret), Verdict::Wrong);
        HASHES.get()
    };
    for n in 0..4 {
        let guess = rig.credentials(&rig.signer.challenge(NOW, n, THERE), "tandem", "no", 1);
        rig.judge(&guess, 0, THERE, None);
    }
    let guess = rig.credentials(&rig.signer.challenge(NOW, 9, THERE), "tandem", "no", 1);
    HASHES.set(0);
    assert_eq!(rig.judge(&guess, 0, THERE, None), Verdict::Throttled);
    assert_eq!(HASHES.get(), 3, "nor does the time tell that nothing is judged any more");
    let costs = [cost(None, 1), cost(Some(&md5), 2), cost(Some(&sha), 3), cost(Some(&password), 4)];
    assert_eq!(costs, [3; 4]);
}

#[test]
fn a_full_table_refuses_new_nonces_until_old_ones_expire() {
    let windows = NonceWindows::new(1, HOUR);
    let ids: Vec<u64> = (1..=9).map(|n| fresh_id(n << 40 | n)).collect();
    for id in &ids[..8] {
        assert_eq!(windows.accept(*id, 1, NOW), Accept::Ok);
    }
    assert_eq!(windows.accept(ids[8], 1, NOW), Accept::TableFull);
    assert_eq!(windows.accept(ids[0], 2, NOW), Accept::Ok, "a known nonce goes on");
    let much_later = later(3_700);
    let new = NonceSigner::new([7; 32], NOW);
    let NonceCheck::Fresh { id } = new.check(&new.challenge(much_later, 3, HERE), much_later, HOUR, HERE)
    else {
        panic!("fresh")
    };
    assert_eq!(windows.accept(id, 5, much_later), Accept::Ok);
    assert_eq!(windows.accept(id, 5, much_later), Accept::Replay);
    assert_eq!(windows.accept(id, 4, much_later), Accept::Ok, "counts may overtake each other");
    assert_eq!(windows.accept(id, 0, much_later), Accept::Replay);
}

#[test]
fn among_threads_each_count_is_accepted_once() {
    let windows = NonceWindows::new(256, HOUR);
    let ids: Vec<u64> = (1..=32).map(fresh_id).collect();
    const COUNTS: u32 = 24;
    let accepted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut accepted = 0;
                    for nc in 1..=COUNTS {
                        for id in &ids {
                            match windows.accept(*id, nc, NOW) {
                                Accept::Ok => accepted += 1,
                                Accept::Replay => {}
                                Accept::TableFull => panic!("there is room"),
                            }
                        }
                    }
                    accepted
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(accepted, ids.len() * COUNTS as usize);
}

proptest! {
    #[test]
    fn no_header_makes_the_readers_panic(text in "[ -~]{0,80}") {
        let _ = Credentials::parse(&text);
        let _ = Credentials::parse(&format!("Digest {text}"));
        let _ = Challenge::choose(&[&text]);
    }

    #[test]
    fn every_answer_to_our_challenge_verifies(
        user in "\\PC{1,12}", password in "\\PC{0,12}", realm in "\\PC{1,12}", uri in "sip:[!-~]{1,20}",
        nc in 1_u32.., md5 in any::<bool>(), unique in any::<u64>(),
    ) {
        let algorithm = if md5 { Algorithm::Md5 } else { Algorithm::Sha256 };
        let challenge = www_authenticate(&realm, &signer().challenge(NOW, unique, HERE), algorithm, false);
        let header = answer(&[challenge], "INVITE", &uri, &user, &password, "cn", nc).unwrap();
        let credentials = Credentials::parse(&header).unwrap();
        prop_assert_eq!(credentials.nonce_count(), nc);
        prop_assert_eq!(&credentials.username, &user);
        prop_assert!(credentials.verify("INVITE", None, &Secret::Password(password.into())));
    }

    #[test]
    fn a_window_accepts_what_a_set_would(counts in proptest::collection::vec(1_u32..80, 1..120)) {
        let windows = NonceWindows::new(8, HOUR);
        let id = fresh_id(1);
        let mut seen = std::collections::BTreeSet::new();
        for nc in counts {
            let highest = seen.last().copied().unwrap_or(0);
            let expected = !seen.contains(&nc) && nc + 32 > highest;
            let accept = windows.accept(id, nc, NOW);
            prop_assert_eq!(accept == Accept::Ok, expected, "nc {} after {:?}", nc, seen);
            if expected {
                seen.insert(nc);
            }
        }
    }
}

#[test]
fn a_clock_that_is_set_back_behind_the_start_locks_nobody_out() {
    let ahead = NonceSigner::new([7; 32], later(3_600));
    for seconds in [0, 10, 3_599] {
        let nonce = ahead.challenge(later(seconds), 5, HERE);
        let check = ahead.check(&nonce, later(seconds + 5), HOUR, HERE);
        assert!(matches!(check, NonceCheck::Fresh { .. }), "{seconds}: {check:?}");
    }
}

#[test]
fn right_credentials_that_find_the_table_full_are_asked_again_and_not_refused() {
    let rig = Rig { windows: NonceWindows::new(1, HOUR), ..Rig::new() };
    let secret = Secret::Password("pw".into());
    let verdict = |unique: u64| {
        let nonce = rig.signer.challenge(NOW, unique << 40 | unique, HERE);
        rig.judge(&rig.credentials(&nonce, "tandem", "pw", 1), 0, HERE, Some(&secret))
    };
    assert!((1..=8).all(|unique| verdict(unique) == Verdict::Accepted));
    assert_eq!(verdict(9), Verdict::Stale);
}
