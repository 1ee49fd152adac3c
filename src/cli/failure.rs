//! A command that failed: what, why, what is left, and what to do.

use std::error::Error as _;

use crr::Error;
use crr::log::Explanation;
use crr::preflight::Finding;

use super::exit::Code;

/// What is printed when a command fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// What was attempted, and each cause below it.
    pub(crate) chain: Vec<String>,
    /// What the preflight found.
    pub(crate) findings: Vec<Finding>,
    /// What CRIU's log says.
    pub(crate) explanation: Option<Box<Explanation>>,
    /// What is left: whether the tree runs, what became of the directory.
    pub(crate) state: Vec<String>,
    /// What a person can do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure that the library has no error for.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, chain: vec![what.into()], findings: Vec::new(), explanation: None, state: Vec::new(), hint: None }
    }

    /// With a cure.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The cure of what CRIU's log says.
    fn known_cure(&self) -> Option<&str> {
        Some(self.explanation.as_ref()?.known.as_ref()?.cure.as_ref())
    }

    /// The object that `--json` prints.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "ok": false,
            "exit_code": self.code as u8,
            "error": self.chain.first(),
            "causes": self.chain.get(1..),
            "findings": self.findings,
            "explanation": self.explanation,
            "state": self.state,
            "cure": self.hint.as_deref().or(self.known_cure()),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        let explanation = match &error {
            Error::Refused { log: Some(log), .. } => Some(Box::new(crr::log::explain(log))),
            _ => None,
        };
        let findings = match &error {
            Error::WillNotWork { findings, .. } | Error::ChoiceNeeded { findings, .. } => findings.clone(),
            _ => Vec::new(),
        };
        Self { code: Code::of(&error), chain, findings, explanation, state: Vec::new(), hint: error.hint() }
    }
}
