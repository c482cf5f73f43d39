//! The same choice as [`DialPlan::lookup`], with the reason for every pattern that was looked at.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Candidate, DialPlan, PatternRef, Target};

/// What became of one pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum StepVerdict {
    /// It does not match the number.
    NoMatch,
    /// It matches, and so does one that matches fewer strings.
    Wider,
    /// It matches, and so does one as wide that comes earlier.
    Later,
    /// It won.
    Chosen,
}

/// One pattern that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its partition.
    pub partition: String,
    /// Its text; for the exact patterns of a partition that do not match, how many there are.
    pub pattern: String,
    /// How many strings it matches.
    pub width: String,
    /// What became of it.
    pub verdict: StepVerdict,
}

/// A routing decision with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The calling search space asked for.
    pub css: Option<String>,
    /// Whether that search space exists.
    pub css_exists: bool,
    /// What was dialled.
    pub dialled: String,
    /// The pattern that won.
    pub matched: Option<PatternRef<'a>>,
    /// The number after stripping and prefixing; what was dialled, if nothing matched.
    pub number_out: String,
    /// Where the call goes.
    pub target: Option<&'a Target>,
    /// Every pattern looked at, by partition in the order of the search space, the narrowest first.
    pub steps: Vec<Step>,
}

/// The candidates of all partitions, in the order of preference among equals.
struct Survey {
    steps: Vec<Step>,
    /// Where in `steps` each candidate stands.
    candidates: Vec<(usize, Candidate)>,
}

impl DialPlan {
    /// Routes a dialled number and says why. The result is that of [`DialPlan::lookup`].
    pub fn route(&self, css: Option<&str>, dialled: &str) -> Decision<'_> {
        let reach = self.reach(css);
        let mut survey = Survey { steps: Vec::new(), candidates: Vec::new() };
        for place in reach.unwrap_or_default() {
            self.survey_partition(*place, dialled, &mut survey);
        }
        let Survey { mut steps, candidates } = survey;
        // min_by returns the first of equals.
        let best = candidates.iter().min_by(|a, b| self.width(a.1).cmp(&self.width(b.1))).copied();
        for (step, candidate) in &candidates {
            let equal = best.is_some_and(|(_, b)| self.width(b) == self.width(*candidate));
            steps[*step].verdict = if equal { StepVerdict::Later } else { StepVerdict::Wider };
        }
        let found = best.map(|(step, candidate)| {
            steps[step].verdict = StepVerdict::Chosen;
            self.finish(candidate, dialled)
        });
        Decision {
            css: css.map(str::to_owned),
            css_exists: reach.is_some(),
            dialled: dialled.to_owned(),
            matched: found.as_ref().map(|m| m.pattern),
            target: found.as_ref().map(|m| m.pattern.target),
            number_out: found.map_or_else(|| dialled.to_owned(), |m| m.number_out),
            steps,
        }
    }

    fn survey_partition(&self, place: usize, dialled: &str, survey: &mut Survey) {
        let partition = &self.partitions[place];
        let hit = self.exact_in(place, dialled);
        let others = partition.exact - usize::from(hit.is_some());
        if let Some(candidate) = hit {
            survey.candidates.push((survey.steps.len(), candidate));
            survey.steps.push(self.step(candidate.index));
        }
        if others > 0 {
            survey.steps.push(Step {
                partition: partition.name.clone(),
                pattern: format!("({others} exact)"),
                width: "1 string each".to_owned(),
                verdict: StepVerdict::NoMatch,
            });
        }
        for index in &partition.wild {
            if let Some(matched) = self.patterns.matches(*index, dialled) {
                survey.candidates.push((survey.steps.len(), Candidate { index: *index, matched }));
            }
            survey.steps.push(self.step(*index));
        }
    }

    fn step(&self, index: usize) -> Step {
        let pattern = self.patterns.get(index);
        Step {
            partition: pattern.partition.to_owned(),
            pattern: pattern.pattern.to_owned(),
            width: self.patterns.width(index).to_string(),
            verdict: StepVerdict::NoMatch,
        }
    }
}

impl Decision<'_> {
    /// The decision as text, one line for each pattern looked at: what `tandem route` prints.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let space = match (&self.css, self.css_exists) {
            (None, _) => "no calling search space: partition \"internal\" only".to_owned(),
            (Some(css), true) => format!("calling search space {css:?}"),
            (Some(css), false) => format!("calling search space {css:?} does not exist"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "dialled {} in {space}", self.dialled);
        for step in &self.steps {
            let verdict = match step.verdict {
                StepVerdict::NoMatch => "does not match",
                StepVerdict::Wider => "matches, but another matches fewer strings",
                StepVerdict::Later => "matches, but an equal one comes earlier",
                StepVerdict::Chosen => "matches: chosen",
            };
            let _ = writeln!(text, "  {} / {} ({}): {verdict}", step.partition, step.pattern, step.width);
        }
        match self.matched {
            Some(pattern) => {
                self.explain_number(pattern, &mut text);
                let emergency = if pattern.emergency { ", an emergency call" } else { "" };
                let _ = writeln!(text, "goes to {} as {}{emergency}", pattern.target, self.number_out);
            }
            None => text.push_str("no pattern matches: 404\n"),
        }
        text
    }

    /// How the number that goes out is made from the one that was dialled.
    fn explain_number(&self, pattern: PatternRef<'_>, text: &mut String) {
        let kept = self.number_out.strip_prefix(pattern.prefix).unwrap_or(&self.number_out);
        let before =
            self.dialled.strip_suffix('#').filter(|d| !self.dialled.ends_with(kept) && d.ends_with(kept));
        let number = before.unwrap_or(&self.dialled);
        if before.is_some() {
            let _ = writeln!(text, "  the final # ends dialling: {number}");
        }
        let stripped = number.len().saturating_sub(kept.len());
        if stripped > 0 {
            let why = if pattern.strip.is_some() { "as strip says" } else { "before the dot" };
            let _ = writeln!(text, "  without the first {stripped} ({why}): {kept}");
        }
        if !pattern.prefix.is_empty() {
            let _ = writeln!(text, "  with the prefix {}: {}", pattern.prefix, self.number_out);
        }
    }
}
