//! The rows of a benchmark: a table for people and a line of JSON.

use std::fmt::{self, Display};
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::allocator::{Allocated, allocated_by};

/// How long an operation is measured in all.
const PATIENCE: Duration = Duration::from_millis(300);
/// Runs that are timed together: the clock is read too coarsely for one.
const TOGETHER: usize = 64;
/// Runs whose allocations are counted. More than one: some pay for others, as a table that grows does.
const COUNTED: usize = 64;

/// What operations cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    name: &'static str,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    operation: String,
    ns: f64,
    allocations: f64,
    bytes: f64,
}

impl Report {
    /// An empty report of the benchmark called `name`.
    pub fn new(name: &'static str) -> Report {
        Report { name, rows: Vec::new() }
    }

    /// Measures an operation.
    pub fn measure<R>(&mut self, operation: &str, mut run: impl FnMut() -> R) {
        self.measure_with(operation, || (), |()| run());
    }

    /// Measures an operation on what `prepare` makes anew for each run. Neither that nor the end of what the operation returns
    /// is counted.
    pub fn measure_with<T, R>(
        &mut self,
        operation: &str,
        mut prepare: impl FnMut() -> T,
        mut run: impl FnMut(T) -> R,
    ) {
        let mut together = |results: &mut Vec<R>, inputs: Vec<T>| {
            let began = Instant::now();
            for input in inputs {
                results.push(run(black_box(input)));
            }
            began.elapsed()
        };
        let mut results = Vec::with_capacity(TOGETHER.max(COUNTED));
        let began = Instant::now();
        let mut shortest = Duration::MAX;
        while began.elapsed() < PATIENCE {
            let inputs = (0..TOGETHER).map(|_| prepare()).collect();
            shortest = shortest.min(together(&mut results, inputs));
            black_box(&results);
            results.clear();
        }
        let inputs = (0..COUNTED).map(|_| prepare()).collect();
        let (_, allocated) = allocated_by(|| together(&mut results, inputs));
        self.add(operation, shortest / TOGETHER as u32, COUNTED as u64, allocated);
    }

    /// Notes what was measured elsewhere: the time of one run, and what `runs` of them allocated.
    pub fn add(&mut self, operation: &str, time: Duration, runs: u64, allocated: Allocated) {
        let each = |sum: u64| sum as f64 / runs.max(1) as f64;
        self.rows.push(Row {
            operation: operation.to_owned(),
            ns: time.as_secs_f64() * 1e9,
            allocations: each(allocated.blocks),
            bytes: each(allocated.bytes),
        });
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| operation | ns | allocations | bytes |\n| --- | ---: | ---: | ---: |")?;
        for Row { operation, ns, allocations, bytes } in &self.rows {
            writeln!(f, "| {operation} | {ns:.0} | {allocations:.1} | {bytes:.0} |")?;
        }
        let json = |row: &Row| {
            let Row { operation, ns, allocations, bytes } = row;
            // Names of operations are plain text, which Rust quotes as JSON does.
            format!(
                r#"{{"operation": {operation:?}, "ns": {ns:.1}, "allocations": {allocations:.2}, "bytes": {bytes:.1}}}"#
            )
        };
        let rows: Vec<String> = self.rows.iter().map(json).collect();
        write!(f, "\n{{\"benchmark\": {:?}, \"results\": [{}]}}", self.name, rows.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_a_line_of_json() {
        let mut report = Report::new("calls");
        report.add("parse", Duration::from_nanos(1234), 4, Allocated { blocks: 10, bytes: 400 });
        assert_eq!(
            report.to_string(),
            "| operation | ns | allocations | bytes |\n| --- | ---: | ---: | ---: |\n| parse | 1234 | 2.5 | 100 |\n\n\
             {\"benchmark\": \"calls\", \"results\": [{\"operation\": \"parse\", \"ns\": 1234.0, \"allocations\": 2.50, \"bytes\": 100.0}]}"
        );
    }

    #[test]
    fn only_what_runs_is_timed_and_not_what_is_prepared() {
        let mut report = Report::new("calls");
        let (mut prepared, mut ran) = (0_u32, 0_u32);
        report.measure_with(
            "add",
            || {
                prepared += 1;
                prepared
            },
            |n| ran += u32::from(n > 0),
        );
        assert_eq!(prepared, ran);
        assert_eq!(report.rows.len(), 1);
    }
}
