use proptest::prelude::*;

use super::*;

fn to(name: &str) -> Target {
    Target::Station(name.into())
}

/// Patterns as (partition, pattern), each going to a station of the pattern's name.
fn spec(partitions: &[&str], css: &[(&str, &[&str])], patterns: &[(&str, &str)]) -> DialPlanSpec {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    DialPlanSpec {
        partitions: owned(partitions),
        search_spaces: css
            .iter()
            .map(|(name, list)| SearchSpace { name: (*name).to_owned(), partitions: owned(list) })
            .collect(),
        patterns: patterns.iter().map(|(p, text)| Pattern::new(*text, to(text)).in_partition(*p)).collect(),
    }
}

fn internal(patterns: &[&str]) -> DialPlan {
    let patterns: Vec<_> = patterns.iter().map(|p| (INTERNAL, *p)).collect();
    DialPlan::new(spec(&[], &[], &patterns)).unwrap()
}

fn winner(plan: &DialPlan, dialled: &str) -> Option<String> {
    let found = plan.lookup(None, dialled).map(|m| m.pattern.pattern.to_owned());
    assert_eq!(plan.route(None, dialled).matched.map(|p| p.pattern.to_owned()), found);
    found
}

#[test]
fn the_fewest_strings_win() {
    let plan = internal(&["!", "9!", "9X!", "XXXX", "1XXX", "1[0-4]XX", "100X", "1001", "9Z!"]);
    let won = |dialled| winner(&plan, dialled).unwrap();
    assert_eq!(won("1001"), "1001");
    assert_eq!(won("1002"), "100X");
    assert_eq!(won("1402"), "1[0-4]XX");
    assert_eq!(won("1502"), "1XXX");
    assert_eq!(won("5502"), "XXXX");
    assert_eq!(won("9502"), "XXXX", "any pattern without ! is narrower than one with it");
    assert_eq!(won("95021"), "9Z!");
    assert_eq!(won("90021"), "9X!");
    assert_eq!(won("90"), "9!");
    assert_eq!(won("9"), "!");
    assert_eq!(winner(&plan, ""), None);
    assert_eq!(winner(&plan, "9a"), None);
    assert_eq!(winner(&plan, &"1".repeat(65)), None);
    assert_eq!(winner(&plan, "٣"), None, "a digit of another script is none");
}

#[test]
fn a_final_hash_only_ends_dialling() {
    let plan = internal(&["100X", "#21", "9.!", "8.!#", "7!"]);
    assert_eq!(winner(&plan, "1001#").unwrap(), "100X");
    assert_eq!(winner(&plan, "#21#").unwrap(), "#21");
    assert_eq!(plan.lookup(None, "9555#").unwrap().number_out, "555");
    assert_eq!(plan.lookup(None, "8555#").unwrap().number_out, "555", "it is not sent on");
    assert_eq!(plan.lookup(None, "8555").unwrap().number_out, "555", "nor need it be dialled");
    for dialled in ["7411", "7411555", "74115550123", "7411#", "7411555#", "74115550123#"] {
        assert_eq!(plan.lookup(None, dialled).unwrap().number_out, dialled.trim_end_matches('#'));
    }
    let same = DialPlan::new(spec(&[], &[], &[(INTERNAL, "X!#"), (INTERNAL, "X!")])).unwrap_err();
    assert!(matches!(same[..], [DialPlanError::DuplicatePattern { .. }]), "{same:?}");
    assert_eq!(winner(&plan, "1001##"), None);
    let both = internal(&["12", "12#"]);
    assert_eq!(winner(&both, "12#").unwrap(), "12#");
    assert_eq!(winner(&both, "12").unwrap(), "12");
}

#[test]
fn the_number_is_stripped_and_prefixed() {
    let with = |pattern: &str, strip, prefix: &str, dialled: &str| {
        let pattern = Pattern { strip, prefix: prefix.to_owned(), ..Pattern::new(pattern, to("x")) };
        let plan = DialPlan::new(DialPlanSpec { patterns: vec![pattern], ..Default::default() }).unwrap();
        plan.lookup(None, dialled).unwrap().number_out
    };
    assert_eq!(with("9.X!", None, "", "9555123"), "555123");
    assert_eq!(with("9.X!", None, "+1", "9555123"), "+1555123");
    assert_eq!(with("9.X!", Some(0), "", "9555123"), "9555123");
    assert_eq!(with("9X!", None, "", "9555123"), "9555123");
    assert_eq!(with("5559.", None, "7", "5559"), "7");
    assert_eq!(with("XXXX", Some(4), "0", "1234"), "0");
}

#[test]
fn names_with_marks_are_patterns_too() {
    let plan = internal(&["john\\.doe", "*43", "+1555", "max", "X-ray"]);
    assert_eq!(winner(&plan, "john.doe").unwrap(), "john\\.doe");
    assert_eq!(winner(&plan, "*43").unwrap(), "*43");
    assert_eq!(winner(&plan, "+1555").unwrap(), "+1555");
    assert_eq!(winner(&plan, "max").unwrap(), "max");
    assert_eq!(winner(&plan, "7-ray").unwrap(), "X-ray");
}

#[test]
fn of_equals_the_earlier_partition_wins() {
    let plan = DialPlan::new(spec(
        &["a", "b"],
        &[("ab", &["a", "b"]), ("ba", &["b", "a", "b"])],
        &[("a", "1XXX"), ("b", "[1-1]X[0-9]X"), ("b", "12XX"), ("a", "[12]000"), ("a", "[13]000")],
    ))
    .unwrap();
    let won = |css, dialled| {
        let found = plan.lookup(css, dialled)?;
        assert_eq!(plan.route(css, dialled).matched, Some(found.pattern));
        Some((found.pattern.partition, found.pattern.pattern))
    };
    assert_eq!(won(Some("ab"), "1999"), Some(("a", "1XXX")));
    assert_eq!(won(Some("ba"), "1999"), Some(("b", "[1-1]X[0-9]X")));
    assert_eq!(won(Some("ab"), "1299"), Some(("b", "12XX")), "narrower, though in the later partition");
    assert_eq!(won(Some("ab"), "1000"), Some(("a", "[12]000")), "the first configured");
    assert_eq!(won(None, "1999"), None, "no search space reaches internal only");
    assert_eq!(won(Some("nowhere"), "1999"), None);
}

#[test]
fn every_fault_is_reported() {
    let mut faulty = spec(
        &["a", "a"],
        &[("c", &["a", "gone"]), ("c", &[])],
        &[("gone", "1"), ("a", "9.1"), ("a", "91"), ("a", "[1"), ("b", "")],
    );
    faulty.patterns.push(Pattern { strip: Some(3), ..Pattern::new("12", to("x")) });
    let errors = DialPlan::new(faulty).unwrap_err();
    let own = |text: &str| text.to_owned();
    assert_eq!(
        errors,
        [
            DialPlanError::DuplicatePartition(own("a")),
            DialPlanError::UnknownPartitionInSearchSpace { search_space: own("c"), partition: own("gone") },
            DialPlanError::DuplicateSearchSpace(own("c")),
            DialPlanError::UnknownPartition { pattern: own("1"), partition: own("gone") },
            DialPlanError::DuplicatePattern { first: own("9.1"), second: own("91"), partition: own("a") },
            DialPlanError::BadPattern {
                pattern: own("[1"),
                partition: own("a"),
                fault: PatternFault::BadSet
            },
            DialPlanError::UnknownPartition { pattern: own(""), partition: own("b") },
            DialPlanError::StripsTooMuch {
                pattern: own("12"),
                partition: own("internal"),
                strip: 3,
                shortest: 2
            },
        ]
    );
}

#[test]
fn each_fault_of_a_pattern_has_its_name() {
    let fault = |text: &str| pattern::Compiled::parse(text).unwrap_err();
    assert_eq!(fault(""), PatternFault::Empty);
    assert_eq!(fault("."), PatternFault::Empty);
    assert_eq!(fault("1\\"), PatternFault::NothingEscaped);
    assert_eq!(fault("1 2"), PatternFault::BadCharacter(' '));
    assert_eq!(fault("\\é"), PatternFault::BadCharacter('é'));
    assert_eq!(fault("!!"), PatternFault::TwoRuns);
    assert_eq!(fault("1.2.3"), PatternFault::BadSeparator);
    assert_eq!(fault("!.1"), PatternFault::BadSeparator);
    assert_eq!(fault(&"X".repeat(65)), PatternFault::TooLong);
    for set in ["[]", "[3-1]", "[a]", "[1-]", "[-1]", "[*-#]", "[^]", "[^0-9]", "[^a]", "[1^2]"] {
        assert_eq!(fault(set), PatternFault::BadSet, "{set}");
    }
}

#[test]
fn targets_are_read_as_they_are_written() {
    for text in
        ["station:alice", "user:u", "trunk:t", "route_group:g", "route_list:l", "service:echo", "reject:486"]
    {
        let target: Target = text.parse().unwrap();
        assert_eq!(target.to_string(), text);
        assert_eq!(serde_json::to_string(&target).unwrap(), format!("{text:?}"));
    }
    for text in ["alice", "station:", "phone:x", "reject:", "reject:399", "reject:700", "reject:x"] {
        assert_eq!(text.parse::<Target>(), Err(BadTarget(text.to_owned())));
    }
}

#[test]
fn the_explanation_names_every_pattern_looked_at() {
    let mut plan =
        spec(&["pstn"], &[("all", &["internal", "pstn"])], &[("internal", "1001"), ("internal", "1XXX")]);
    plan.patterns.push(Pattern {
        emergency: true,
        ..Pattern::new("1.XXX", Target::Trunk("out".into())).in_partition("pstn")
    });
    plan.patterns.push(Pattern::new("!", Target::Reject(404)).in_partition("pstn"));
    let plan = DialPlan::new(plan).unwrap();
    assert_eq!(
        plan.route(Some("all"), "1002").explain(),
        "dialled 1002 in calling search space \"all\"\n  \
         internal / (1 exact) (1 string each): does not match\n  \
         internal / 1XXX (1000 strings): matches: chosen\n  \
         pstn / 1.XXX (1000 strings): matches, but an equal one comes earlier\n  \
         pstn / ! (1.1e64 strings): matches, but another matches fewer strings\n\
         goes to station:1XXX as 1002\n"
    );
    let nothing = plan.route(None, "2");
    assert_eq!((nothing.matched, nothing.number_out.as_str()), (None, "2"));
    assert!(nothing.explain().ends_with("no pattern matches: 404\n"));
    assert!(plan.route(Some("x"), "2").explain().contains("does not exist"));
}

#[test]
fn the_explanation_shows_how_the_number_is_made() {
    let made = |pattern: &str, strip, prefix: &str, dialled: &str| {
        let pattern = Pattern { strip, prefix: prefix.to_owned(), ..Pattern::new(pattern, to("x")) };
        let plan = DialPlan::new(DialPlanSpec { patterns: vec![pattern], ..Default::default() }).unwrap();
        let text = plan.route(None, dialled).explain();
        text.lines().skip(2).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        made("9.X!#", None, "+1", "9555#"),
        [
            "the final # ends dialling: 9555",
            "without the first 1 (before the dot): 555",
            "with the prefix +1: +1555",
            "goes to station:x as +1555"
        ]
    );
    assert_eq!(
        made("XXXX", Some(2), "", "1234"),
        ["without the first 2 (as strip says): 34", "goes to station:x as 34"]
    );
    assert_eq!(made("XXXX", None, "", "1234"), ["goes to station:x as 1234"]);
}

/// The loops of patterns (pattern, prefix, target) when trunk `self` leads to ourselves, in search space `in`.
fn loops(patterns: &[(&str, &str, &str)]) -> Vec<Loop> {
    let mut plan = spec(&["inside"], &[("in", &["inside"])], &[]);
    plan.patterns = patterns
        .iter()
        .map(|(pattern, prefix, target)| Pattern {
            prefix: (*prefix).to_owned(),
            ..Pattern::new(*pattern, target.parse().unwrap()).in_partition("inside")
        })
        .collect();
    let back = |target: &Target| match target {
        Target::Trunk(name) if &**name == "self" => {
            vec![Return { trunk: name.to_string(), css: Some("in".to_owned()) }]
        }
        _ => Vec::new(),
    };
    DialPlan::new(plan).unwrap().loops(&back)
}

#[test]
fn a_number_that_goes_round_is_found_with_proof() {
    let found = loops(&[("1XXX", "", "trunk:self")]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].dialled, "1000");
    assert_eq!(found[0].hops, [("self".to_owned(), "1000".to_owned())]);
    let two = loops(&[("8.XXX", "9", "trunk:self"), ("9.XXX", "8", "trunk:self")]);
    assert_eq!(two.iter().map(|l| (l.pattern, l.hops.len())).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    assert_eq!(loops(&[("9!", "9", "trunk:self")]).len(), 1, "growing without end");
    assert_eq!(loops(&[("5.[1-3]!", "5", "trunk:self"), ("51!", "", "station:x")]).len(), 1, "52 goes round");
}

#[test]
fn a_number_that_comes_back_and_ends_is_no_loop() {
    assert_eq!(loops(&[("9.XXX", "", "trunk:self"), ("XXX", "", "station:x")]), []);
    assert_eq!(loops(&[("9.!", "", "trunk:self")]), [], "each time it is shorter");
    assert_eq!(loops(&[("1XXX", "", "trunk:other")]), []);
    let shadowed = [
        ("5.[1-3]", "5", "trunk:self"),
        ("51", "", "station:x"),
        ("52", "", "station:y"),
        ("53", "", "reject:404"),
    ];
    assert_eq!(loops(&shadowed), []);
}

/// A pattern over the alphabet of the oracle, with no `#`.
fn small_pattern() -> impl Strategy<Value = String> {
    let single = prop_oneof![
        3 => Just("0".to_owned()),
        3 => Just("1".to_owned()),
        2 => Just("X".to_owned()),
        2 => Just("Z".to_owned()),
        1 => Just("[0-4]".to_owned()),
        1 => Just("[12]".to_owned()),
        1 => Just("[1*]".to_owned()),
        1 => Just("[^1]".to_owned()),
        1 => Just("[^2-5]".to_owned()),
        1 => Just("N".to_owned()),
        1 => Just("*".to_owned()),
    ];
    let run = prop_oneof![2 => Just(""), 1 => Just("!")];
    (proptest::collection::vec(single.clone(), 0..4), run, proptest::collection::vec(single, 0..2))
        .prop_map(|(head, run, tail)| format!("{}{run}{}", head.concat(), tail.concat()))
        .prop_filter("empty", |text| !text.is_empty())
}

/// Whether a pattern matches, by trying every way: written apart from the code under test.
fn oracle_matches(pattern: &str, number: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return number.is_empty() };
    let (element, rest) = match first {
        '[' => pattern.split_at(pattern.find(']').unwrap() + 1),
        _ => pattern.split_at(1),
    };
    let Some(c) = number.chars().next() else { return false };
    let tail = &number[c.len_utf8()..];
    match element {
        "X" => c.is_ascii_digit() && oracle_matches(rest, tail),
        "Z" => ('1'..='9').contains(&c) && oracle_matches(rest, tail),
        "N" => ('2'..='9').contains(&c) && oracle_matches(rest, tail),
        "[^1]" => "023456789".contains(c) && oracle_matches(rest, tail),
        "[^2-5]" => "016789".contains(c) && oracle_matches(rest, tail),
        "[0-4]" => ('0'..='4').contains(&c) && oracle_matches(rest, tail),
        "[12]" => "12".contains(c) && oracle_matches(rest, tail),
        "[1*]" => "1*".contains(c) && oracle_matches(rest, tail),
        "!" => c.is_ascii_digit() && (oracle_matches(rest, tail) || oracle_matches(pattern, tail)),
        literal => literal.starts_with(c) && oracle_matches(rest, tail),
    }
}

/// Every string over the digits and `*` of at most `length` characters.
fn strings(length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last.iter().flat_map(|s| "0123456789*".chars().map(move |c| format!("{s}{c}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_best_match_is_that_of_counting_strings(
        patterns in proptest::collection::vec((0..2_usize, small_pattern()), 1..5),
        dialled in "[01258*]{1,5}",
    ) {
        let names = ["a", "b"];
        let texts: Vec<(&str, &str)> = patterns.iter().map(|(p, t)| (names[*p], t.as_str())).collect();
        let Ok(plan) = DialPlan::new(spec(&names, &[("ab", &names)], &texts)) else { return Ok(()) };
        // Patterns with at most three single elements beside `!`, or four without, are ordered by their strings of
        // at most four characters as by those of 64.
        let universe = strings(4);
        let count = |t: &str| universe.iter().filter(|s| oracle_matches(t, s)).count();
        let expected = texts
            .iter()
            .enumerate()
            .filter(|(_, (_, t))| oracle_matches(t, &dialled))
            .min_by_key(|(i, (p, t))| (t.contains('!'), count(t), names.iter().position(|n| n == p), *i))
            .map(|(_, (p, t))| (*p, *t));
        prop_assume!(texts.iter().all(|(_, t)| count(t) > 0));
        let found = plan.lookup(Some("ab"), &dialled);
        let found = found.map(|m| (m.pattern.partition, m.pattern.pattern));
        prop_assert_eq!(found, expected);
        let explained = plan.route(Some("ab"), &dialled);
        prop_assert_eq!(explained.matched.map(|p| (p.partition, p.pattern)), expected);
    }

    #[test]
    fn no_text_makes_pattern_or_number_panic(pattern in "\\PC{0,12}", dialled in "\\PC{0,12}") {
        let one = DialPlanSpec { patterns: vec![Pattern::new(pattern, to("x"))], ..Default::default() };
        if let Ok(plan) = DialPlan::new(one) {
            let _ = plan.route(None, &dialled).explain();
        }
    }
}
