//! Faults of `[toll_fraud]`, and of what stations and search spaces say otherwise.

use super::check_all;

#[test]
fn faults_of_what_keeps_calls_from_becoming_a_bill() {
    check_all(
        "[toll_fraud]\n",
        &[
            (
                "international_prefixes = [\"00\", \"00X\"]",
                "2: toll_fraud.international_prefixes[1]",
                "found \"00X\"; allowed: 1 to 16 digits, * and #, after + or not",
            ),
            ("national_prefixes = [\"\"]", "2: toll_fraud.national_prefixes[0]", "1 to 16 digits"),
            (
                "national_prefixes = [\"+49\", \"+\"]",
                "2: toll_fraud.national_prefixes[1]",
                "allowed: a prefix that is not in international_prefixes too",
            ),
            ("alarm_factor = 1", "2: toll_fraud.alarm_factor", "allowed: 2 to 1000 (times)"),
            ("alarm_action = \"hang_up\"", "2: toll_fraud.alarm_action", "\"alarm\" or \"block\""),
            (
                "alarm_trunk_minutes_per_h = 1000001",
                "2: toll_fraud.alarm_trunk_minutes_per_h",
                "allowed: 0 to 1000000 (an hour, 0 is off)",
            ),
            ("max_new_calls_per_min = 1000001", "2: toll_fraud.max_new_calls_per_min", "0 is no limit"),
            (
                "[[dial_plan.calling_search_space]]\nname = \"a\"\npartitions = [\"internal\"]\nmax_new_calls_per_min = 2000000",
                "5: dial_plan.calling_search_space[0].max_new_calls_per_min",
                "0 is no limit",
            ),
            (
                "[[station]]\nname = \"1\"\nextension = \"1\"\ninternational = \"yes\"",
                "5: station[0].international",
                "allowed: true or false",
            ),
        ],
    );
}
