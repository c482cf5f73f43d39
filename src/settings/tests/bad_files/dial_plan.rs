//! The dial plan.

use super::{Case, check_all};

#[test]
fn faults_of_the_dial_plan() {
    let pattern = "[[dial_plan.pattern]]\n";
    let cases: &[Case] = &[
        ("pattern = \"9..X\"\ntarget = \"reject:404\"", "2: dial_plan.pattern[0].pattern", "at most one dot"),
        ("pattern = \"9\"\ntarget = \"gateway:x\"", "3: dial_plan.pattern[0].target", "\"trunk:NAME\""),
        ("pattern = \"9\"\ntarget = \"trunk:x\"", "3: dial_plan.pattern[0].target", "the name of a trunk"),
        (
            "pattern = \"9\"\ntarget = \"station:x\"",
            "3: dial_plan.pattern[0].target",
            "the name of a station",
        ),
        ("pattern = \"9\"\ntarget = \"user:x\"", "3: dial_plan.pattern[0].target", "the name of a user"),
        ("pattern = \"9\"\ntarget = \"route_list:x\"", "3: dial_plan.pattern[0].target", "a route list"),
        ("pattern = \"9\"\ntarget = \"route_group:x\"", "3: dial_plan.pattern[0].target", "a route group"),
        (
            "pattern = \"9\"\ntarget = \"service:x\"",
            "3: dial_plan.pattern[0].target",
            "a service: \"echo\", \"tone\"",
        ),
        ("pattern = \"9\"\ntarget = \"reject:200\"", "3: dial_plan.pattern[0].target", "from 400 to 699"),
        ("pattern = \"9\"", "1: dial_plan.pattern[0].target", "is missing"),
        (
            "pattern = \"9\"\ntarget = \"reject:404\"\npartition = \"x\"",
            "4: dial_plan.pattern[0].partition",
            "the name of a partition: \"internal\"",
        ),
        (
            "pattern = \"9\"\ntarget = \"reject:404\"\nstrip = 33",
            "4: dial_plan.pattern[0].strip",
            "allowed: 0 to 32",
        ),
        (
            "pattern = \"9\"\ntarget = \"reject:404\"\nprefix = \"a\"",
            "4: dial_plan.pattern[0].prefix",
            "allowed: digits",
        ),
        (
            "pattern = \"9\"\ntarget = \"reject:404\"\ncalling_party_mask = \"me\"",
            "4: dial_plan.pattern[0].calling_party_mask",
            "allowed: up to 32 digits, X",
        ),
        (
            "pattern = \"9\"\ntarget = \"reject:404\"\ncalling_party_prefix = \"a\"",
            "4: dial_plan.pattern[0].calling_party_prefix",
            "allowed: digits",
        ),
        ("pattern = \"9\"\ntarget = \"reject:404\"\nstrip = 2", "1: dial_plan", "strips 2 of at least 1"),
        (
            "pattern = \"9.X\"\ntarget = \"reject:404\"\n[[dial_plan.pattern]]\npattern = \"9X\"\ntarget = \"reject:404\"",
            "5: dial_plan.pattern[1].pattern",
            "dial_plan.pattern[0].pattern has this one",
        ),
    ];
    check_all(pattern, cases);
    check_all(
        "",
        &[
            (
                "[[dial_plan.calling_search_space]]\nname = \"a\"\npartitions = [\"internal\", \"x\"]",
                "3: dial_plan.calling_search_space[0].partitions[1]",
                "the name of a partition: \"internal\"",
            ),
            (
                "[[dial_plan.calling_search_space]]\nname = \"a\"\npartitions = []",
                "3: dial_plan.calling_search_space[0].partitions",
                "at least one partition",
            ),
            (
                "[[dial_plan.route_list]]\nname = \"a\"\ngroups = [\"x\"]",
                "3: dial_plan.route_list[0].groups[0]",
                "the name of a route group",
            ),
            (
                "[[dial_plan.route_group]]\nname = \"a\"\ntrunks = [\"x\"]",
                "3: dial_plan.route_group[0].trunks[0]",
                "the name of a trunk",
            ),
            ("[[dial_plan.patterns]]\npattern = \"1\"", "1: dial_plan.patterns", "did you mean `pattern`?"),
        ],
    );
}
