//! Answers of the API for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::{cell, duration, local, now_ms, printable, table, unix_ms};

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `tandem calls`.
pub(super) fn calls(answer: &Value) -> String {
    let now = now_ms();
    let row = |call: &Value| {
        [
            cell(&call["call_id"]),
            cell(&call["state"]),
            cell(&call["from"]),
            cell(&call["to"]),
            cell(&call["trunk"]),
            local(&call["start"]),
            unix_ms(&call["answer"]).map_or_else(|| "-".to_owned(), |at| duration(now - at)),
        ]
    };
    let rows: Vec<[String; 7]> = list(answer).iter().map(row).collect();
    if rows.is_empty() {
        return "no calls\n".to_owned();
    }
    table(["CALL", "STATE", "FROM", "TO", "TRUNK", "START", "TALKING"], &rows)
}

/// `tandem call ID`.
pub(super) fn call(call: &Value) -> String {
    let mut text = String::new();
    let Some(facts) = call.as_object() else { return text };
    for (name, value) in facts {
        let value = match (name.as_str(), value) {
            ("start" | "answer", time) => local(time),
            ("media_sessions", Value::Array(sessions)) => joined(sessions.iter().map(|s| cell(&s["id"]))),
            (_, Value::Array(values)) => joined(values.iter().map(cell)),
            (_, value) => cell(value),
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{name:<16}{value}");
    }
    if let Some(at) = unix_ms(&call["answer"]) {
        let _ = writeln!(text, "{:<16}{}", "talking", duration(now_ms() - at));
    }
    text
}

fn joined(values: impl Iterator<Item = String>) -> String {
    let text = values.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// `tandem stations`: a line for each binding, one for each station without any.
pub(super) fn stations(answer: &Value) -> String {
    let mut rows: Vec<[String; 7]> = Vec::new();
    for station in list(answer) {
        let (name, extension, calls) =
            (cell(&station["name"]), cell(&station["extension"]), cell(&station["calls"]));
        let bindings = list(&station["bindings"]);
        for binding in bindings {
            let left = binding["expires_in_s"].as_i64().unwrap_or_default();
            rows.push([
                name.clone(),
                extension.clone(),
                calls.clone(),
                cell(&binding["contact"]),
                cell(&binding["source"]),
                duration(left.saturating_mul(1000)),
                cell(&binding["user_agent"]),
            ]);
        }
        if bindings.is_empty() {
            let none = || "-".to_owned();
            rows.push([name, extension, calls, "not registered".to_owned(), none(), none(), none()]);
        }
    }
    if rows.is_empty() {
        return "no stations\n".to_owned();
    }
    table(["STATION", "EXTENSION", "CALLS", "CONTACT", "SOURCE", "EXPIRES IN", "USER AGENT"], &rows)
        + &toll_alarms(answer)
}

/// `tandem trunks`: a line for each proxy.
pub(super) fn trunks(answer: &Value) -> String {
    let mut rows: Vec<[String; 7]> = Vec::new();
    for trunk in list(answer) {
        let most = trunk["max_calls"].as_u64().filter(|most| *most > 0);
        let calls = cell(&trunk["calls"]) + &most.map_or_else(String::new, |most| format!(" of {most}"));
        let row = |[proxy, state, since, cause]: [String; 4]| {
            [cell(&trunk["name"]), cell(&trunk["listener"]), calls.clone(), proxy, state, since, cause]
        };
        let proxies = list(&trunk["proxies"]);
        for proxy in proxies {
            let state = if proxy["up"] == true { cell(&proxy["state"]) } else { "DOWN".to_owned() };
            let fewer = proxy["overload_percent"].as_u64().filter(|percent| *percent > 0);
            let state = state + &fewer.map_or_else(String::new, |percent| format!(" (-{percent} %)"));
            let name = proxy["name"].as_str().map_or_else(String::new, |name| format!(" ({name})"));
            let address = cell(&proxy["address"]) + &name;
            rows.push(row([address, state, local(&proxy["since"]), cell(&proxy["cause"])]));
        }
        let troubled: Vec<&Value> =
            list(&trunk["names"]).iter().filter(|name| name["state"] != "fresh").collect();
        for name in &troubled {
            let state = cell(&name["state"]).to_uppercase();
            rows.push(row([cell(&name["name"]), state, "-".to_owned(), cell(&name["why"])]));
        }
        if proxies.is_empty() && troubled.is_empty() {
            rows.push(row(["-"; 4].map(str::to_owned)));
        }
    }
    if rows.is_empty() {
        return "no trunks\n".to_owned();
    }
    table(["TRUNK", "LISTENER", "CALLS", "PROXY", "STATE", "SINCE", "CAUSE"], &rows) + &toll_alarms(answer)
}

/// A line for each that suddenly has too many calls.
fn toll_alarms(answer: &Value) -> String {
    let alarmed = list(answer).iter().filter(|one| !list(&one["toll_alarms"]).is_empty());
    let line = |one: &Value| {
        let measures: Vec<String> = list(&one["toll_alarms"]).iter().map(cell).collect();
        format!("{}: suddenly too many: {}\n", cell(&one["name"]), measures.join(", "))
    };
    alarmed.map(line).collect()
}

/// `tandem clear-alarm WHO`.
pub(super) fn cleared(answer: &Value) -> String {
    let who = cell(&answer["who"]);
    let measures: Vec<String> = list(&answer["cleared"]).iter().map(cell).collect();
    match measures.as_slice() {
        [] => format!("{who} had no alarm; its last hour counts no more\n"),
        measures => format!("{who}: cleared: {}; its last hour counts no more\n", measures.join(", ")),
    }
}

/// `tandem registrations`: a line for each, the one whose route calls take marked with a star.
pub(super) fn registrations(answer: &Value) -> String {
    let mut rows: Vec<[String; 8]> = Vec::new();
    for group in list(answer) {
        for one in list(&group["registrations"]) {
            let seconds = |key: &str| {
                let seconds = one[key].as_i64();
                seconds.map_or_else(|| "-".to_owned(), |s| duration(s.saturating_mul(1000)))
            };
            let mark = if one["in_use"] == true { "*" } else { "" };
            rows.push([
                cell(&group["name"]),
                cell(&one["at"]) + mark,
                cell(&one["registrar"]),
                cell(&one["state"]),
                seconds("age_s"),
                seconds("expires_in_s"),
                local(&one["last_failure"]),
                cell(&one["last_cause"]),
            ]);
        }
    }
    if rows.is_empty() {
        return "no registrations\n".to_owned();
    }
    let titles =
        ["GROUP", "REGISTRATION", "REGISTRAR", "STATE", "AGE", "EXPIRES IN", "LAST FAILURE", "CAUSE"];
    table(titles, &rows)
}

/// A node of the drawn tree.
struct Node {
    label: String,
    children: Vec<Node>,
}

impl Node {
    fn new(label: impl Into<String>, children: Vec<Node>) -> Node {
        Node { label: label.into(), children }
    }

    /// A node for each name in a list.
    fn names(list_of: &Value) -> Vec<Node> {
        list(list_of).iter().map(|name| Node::new(cell(name), Vec::new())).collect()
    }

    fn draw(&self, before: &str, text: &mut String) {
        text.push_str(&self.label);
        text.push('\n');
        for (place, child) in self.children.iter().enumerate() {
            let last = place + 1 == self.children.len();
            let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
            text.push_str(before);
            text.push_str(branch);
            child.draw(&format!("{before}{below}"), text);
        }
    }
}

/// `tandem tree`: each actor under its supervisor, then how many of each kind live and were restarted.
pub(super) fn tree(answer: &Value) -> String {
    let mut children: Vec<Node> = list(&answer["shards"]).iter().map(shard).collect();
    children.extend(
        list(&answer["media_workers"])
            .iter()
            .map(|worker| Node::new(cell(&worker["id"]), Node::names(&worker["media_sessions"]))),
    );
    let mut text = String::new();
    Node::new(format!("engine ({})", cell(&answer["node"])), children).draw("", &mut text);
    let rows: Vec<[String; 3]> = list(&answer["kinds"])
        .iter()
        .map(|kind| [cell(&kind["kind"]), cell(&kind["alive"]), cell(&kind["restarts"])])
        .collect();
    text.push('\n');
    text.push_str(&table(["KIND", "ALIVE", "RESTARTS"], &rows));
    text
}

fn shard(shard: &Value) -> Node {
    let mut children = Vec::new();
    for call in list(&shard["calls"]) {
        let label = format!("{} ({})", cell(&call["id"]), cell(&call["state"]));
        children.push(Node::new(label, Node::names(&call["dialogs"])));
    }
    for kind in ["stations", "trunks", "registration_groups"] {
        children.extend(Node::names(&shard[kind]));
    }
    for failure in list(&shard["failures"]) {
        // A named actor that rests after a fault is in no other list.
        let id = cell(&failure["id"]);
        let note = format!("failed {} times in a row", cell(&failure["failures"]));
        match children.iter_mut().find(|child| child.label == id) {
            Some(child) => child.label = format!("{id} ({note})"),
            None => children.push(Node::new(format!("{id} (resting; {note})"), Vec::new())),
        }
    }
    // How many before it were given up.
    let epoch = shard["epoch"].as_u64().filter(|epoch| *epoch > 0);
    let id = cell(&shard["id"]);
    Node::new(epoch.map_or(id.clone(), |epoch| format!("{id} (epoch {epoch})")), children)
}

/// The facts of an event as `name=value`, those apart that are shown elsewhere.
pub(super) fn facts(data: &Value) -> String {
    let Some(data) = data.as_object() else { return String::new() };
    let shown = data.iter().filter(|(name, _)| !name.starts_with("sip_call_id"));
    let fact = |(name, value): (&String, &Value)| format!("{}={}", printable(name), cell(value));
    shown.map(fact).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_station_with_two_phones_has_two_lines_and_one_without_any_says_so() {
        let binding = |port: u16| {
            json!({"contact": format!("sip:1001@10.0.0.1:{port}"), "source": format!("10.0.0.1:{port}"),
                "expires_in_s": 90, "user_agent": null})
        };
        let answer = json!([
            {"name": "1001", "extension": "1001", "calls": 1, "bindings": [binding(1), binding(2)]},
            {"name": "1002", "extension": "1002", "calls": 0, "bindings": []},
        ]);
        let expected = "\
STATION  EXTENSION  CALLS  CONTACT              SOURCE      EXPIRES IN    USER AGENT
1001     1001       1      sip:1001@10.0.0.1:1  10.0.0.1:1  1 min 30 s    -
1001     1001       1      sip:1001@10.0.0.1:2  10.0.0.1:2  1 min 30 s    -
1002     1002       0      not registered       -           -             -
";
        let shown: Vec<String> = stations(&answer).lines().map(squeezed).collect();
        assert_eq!(shown, expected.lines().map(squeezed).collect::<Vec<_>>());
    }

    fn squeezed(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_proxy_that_is_down_stands_out() {
        let answer = json!([{"name": "a", "listener": "udp", "calls": 2, "max_calls": 30, "proxies": [
            {"address": "10.0.0.1:5060", "up": false, "state": "down", "cause": "it cannot be reached"},
            {"address": "10.0.0.2:5060", "up": true, "state": "degraded"}]}]);
        let shown = trunks(&answer);
        assert!(
            shown
                .contains("a      udp       2 of 30  10.0.0.1:5060  DOWN      -      it cannot be reached\n"),
            "{shown}"
        );
        assert!(shown.contains("10.0.0.2:5060  degraded  -      -\n"), "{shown}");
    }

    #[test]
    fn a_proxy_that_was_found_by_name_is_shown_with_it_and_a_name_in_trouble_with_its_cause() {
        let answer = json!([{"name": "a", "listener": "udp", "calls": 0, "max_calls": 0,
        "proxies": [{"address": "10.0.0.1:5060", "up": true, "state": "up", "name": "example.net"}],
        "names": [
            {"name": "example.net", "state": "fresh", "why": null},
            {"name": "gone.example", "state": "absent", "why": "gone.example A: there is no such name"},
        ]}]);
        let shown = trunks(&answer);
        assert!(shown.contains("10.0.0.1:5060 (example.net)  up      -      -\n"), "{shown}");
        assert!(
            shown.contains(
                "gone.example                 ABSENT  -      gone.example A: there is no such name\n"
            ),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), 3, "{shown}");
    }

    #[test]
    fn the_tree_hangs_every_actor_under_its_supervisor() {
        let answer = json!({
            "node": "n",
            "kinds": [{"kind": "call", "alive": 1, "restarts": 2}],
            "shards": [{"id": "shard:0", "calls": [{"id": "call:c1", "state": "talking",
                "dialogs": ["dialog:c1/0", "dialog:c1/1"]}], "stations": [], "trunks": ["trunk:a"],
                "registration_groups": [], "failures": [{"id": "trunk:a", "failures": 1},
                {"id": "trunk:b", "failures": 3}]}, {"id": "shard:1", "epoch": 2}],
            "media_workers": [{"id": "media_worker:0", "media_sessions": ["media_session:c1/0"]}],
        });
        let expected = "\
engine (n)
├── shard:0
│   ├── call:c1 (talking)
│   │   ├── dialog:c1/0
│   │   └── dialog:c1/1
│   ├── trunk:a (failed 1 times in a row)
│   └── trunk:b (resting; failed 3 times in a row)
├── shard:1 (epoch 2)
└── media_worker:0
    └── media_session:c1/0

KIND  ALIVE  RESTARTS
call  1      2
";
        assert_eq!(tree(&answer), expected);
    }

    #[test]
    fn a_registration_is_shown_with_its_age_and_what_it_last_failed_of() {
        let answer = json!([{"name": "carrier", "registrations": [
            {"at": "trunk:a", "registrar": null, "state": "failed", "in_use": false,
                "last_cause": "the registrar does not answer"},
            {"at": "domain:b.example", "registrar": "10.0.0.2:5060", "state": "registered", "in_use": true,
                "age_s": 61, "expires_in_s": 30}]}]);
        let shown: Vec<String> = registrations(&answer).lines().map(squeezed).collect();
        assert_eq!(shown[1], "carrier trunk:a - failed - - - the registrar does not answer");
        assert_eq!(shown[2], "carrier domain:b.example* 10.0.0.2:5060 registered 1 min 01 s 30.0 s - -");
    }

    #[test]
    fn nothing_is_said_plainly() {
        assert_eq!(calls(&json!([])), "no calls\n");
        assert_eq!(stations(&json!([])), "no stations\n");
        assert_eq!(trunks(&json!([])), "no trunks\n");
        assert_eq!(registrations(&json!([])), "no registrations\n");
    }

    #[test]
    fn a_call_in_setup_is_not_talking_yet() {
        let answer = json!([{"call_id": "c1", "state": "ringing", "from": "1001", "to": "*43", "trunk": null,
            "start": "2026-07-01T12:00:00.000Z", "answer": null}]);
        let shown = calls(&answer);
        let cells: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((cells[0], cells[4], cells[6]), ("c1", "-", "-"));
    }
}
