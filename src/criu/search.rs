//! Finding a CRIU.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::kept::{Identity, Kept, KeptFacts};
use super::suitability::{InetSockets, Suitability, Verdict, is_doubtful};
use crate::error::{Error, Result};
use crate::host::{KernelRelease, is_executable};
use crate::operation::Session;
use crate::request::Version;
use crate::swrk::{Launch, Watch};

/// The CRIU of the private prefix that tools/setup-criu makes.
pub const PREFIX_BINARY: &str = "/opt/crr/criu/bin/criu";

/// A CRIU answers in 4 ms; looking at the kernel takes it 50.
const ANSWER: Duration = Duration::from_secs(10);

/// Where a CRIU was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was named by the caller.
    Given,
    /// In a directory of `PATH`.
    Path,
    /// In the private prefix.
    Prefix,
}

/// A CRIU that was found, and what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The program.
    pub binary: PathBuf,
    /// Where it was found.
    pub origin: Origin,
    /// Its version; `None` if it does not answer.
    pub version: Option<Version>,
    /// What its self-test said, if there was one since it was installed and the machine was booted.
    pub verdict: Option<Verdict>,
    /// Whether it suits.
    pub suitability: Suitability,
}

impl Candidate {
    /// Whether the caller named it.
    pub fn is_given(&self) -> bool {
        self.origin == Origin::Given
    }
}

/// The CRIU to use.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The program.
    pub binary: PathBuf,
    /// Its version.
    pub version: Version,
    /// Those that were found before it and do not suit.
    pub passed_over: Vec<Candidate>,
}

/// Where to look for a CRIU.
#[derive(Clone, Debug)]
pub struct Search {
    given: Option<PathBuf>,
    places: Vec<(Origin, PathBuf)>,
    kept: Kept,
}

impl Search {
    /// Takes `given` (`--criu`, `$CRR_CRIU`) as it is; without it looks through `path` (the value of `$PATH`) and then at
    /// [`PREFIX_BINARY`].
    pub fn new(given: Option<PathBuf>, path: Option<&OsStr>) -> Self {
        let directories = path.map(std::env::split_paths).into_iter().flatten();
        // A relative directory would make the choice depend on where crr is called.
        let in_path = directories.filter(|directory| directory.is_absolute()).map(|directory| directory.join("criu"));
        let mut places: Vec<_> = in_path.map(|binary| (Origin::Path, binary)).collect();
        places.push((Origin::Prefix, PREFIX_BINARY.into()));
        Self { given, places, kept: Kept::default() }
    }

    /// Keeps what it finds out in another store.
    pub fn keeping_in(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// The programs that are there, in the order in which they are considered. One that is found twice is listed once.
    pub fn binaries(&self) -> Vec<(Origin, PathBuf)> {
        if let Some(given) = &self.given {
            return vec![(Origin::Given, given.clone())];
        }
        let mut seen = HashSet::new();
        let there = self.places.iter().filter(|(_, binary)| is_executable(binary));
        let fresh = there.filter(|(_, binary)| seen.insert(binary.canonicalize().unwrap_or_else(|_| binary.clone())));
        fresh.cloned().collect()
    }

    /// Looks at all that are there.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel's release cannot be read.
    pub async fn candidates(&self) -> Result<Vec<Candidate>> {
        let kernel = KernelRelease::running()?;
        let mut candidates = Vec::new();
        for (origin, binary) in self.binaries() {
            candidates.push(self.look(&kernel, origin, binary).await);
        }
        Ok(candidates)
    }

    /// The first that suits a tree with or without `sockets`. One that was given is taken as long as it answers.
    ///
    /// # Errors
    /// [`Error::NoCriu`] if none does, with each one found and why not; [`Error::Io`] if the kernel's release cannot be read.
    pub async fn choose(&self, sockets: InetSockets) -> Result<Chosen> {
        let kernel = KernelRelease::running()?;
        let mut passed_over: Vec<Candidate> = Vec::new();
        for (origin, binary) in self.binaries() {
            let candidate = self.look(&kernel, origin, binary).await;
            match candidate.version {
                Some(version) if candidate.is_given() || candidate.suitability.allows(sockets) => {
                    return Ok(Chosen { binary: candidate.binary, version, passed_over });
                }
                _ => passed_over.push(candidate),
            }
        }
        // Where nobody has looked at the tree, one that suits some trees is better than none.
        let suits_some = |candidate: &Candidate| candidate.suitability.allows(InetSockets::None);
        let some = passed_over.iter().position(suits_some).filter(|_| sockets == InetSockets::Unknown);
        match some.and_then(|at| Some((at, passed_over.get(at)?.version?))) {
            Some((at, version)) => Ok(Chosen { binary: passed_over.remove(at).binary, version, passed_over }),
            None => Err(Error::NoCriu { found: passed_over }),
        }
    }

    /// Keeps what a self-test said.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be kept.
    pub fn keep(&self, binary: &Path, verdict: Verdict) -> Result<()> {
        let identity = Identity::of(binary, &KernelRelease::running()?)?;
        let facts = KeptFacts { verdict: Some(verdict), ..self.kept.load(&identity) };
        self.kept.store(&identity, &facts)
    }

    async fn look(&self, kernel: &KernelRelease, origin: Origin, binary: PathBuf) -> Candidate {
        let identity = match Identity::of(&binary, kernel) {
            Ok(identity) => identity,
            Err(error) => return unanswered(origin, binary, &error),
        };
        let known = self.kept.load(&identity);
        let mut facts = known.clone();
        if facts.version.is_none() {
            match ask_version(&binary).await {
                Ok(version) => facts.version = Some(version),
                Err(error) => return unanswered(origin, binary, &error),
            }
        }
        let doubtful = facts.version.is_some_and(|version| is_doubtful(kernel, version));
        if doubtful && facts.starts.is_none() && facts.verdict.is_none() {
            facts.starts = Some(try_kernel(&binary).await.map_err(|error| chain(&error)));
        }
        if facts != known {
            // Kept to save time only: without root nothing can be.
            let _ = self.kept.store(&identity, &facts);
        }
        let version = facts.version.ok_or_else(|| "it names no version".to_owned());
        let suitability = Suitability::judge(kernel, &version, facts.starts.as_ref(), facts.verdict.as_ref());
        Candidate { binary, origin, version: version.ok(), verdict: facts.verdict, suitability }
    }
}

fn unanswered(origin: Origin, binary: PathBuf, error: &Error) -> Candidate {
    let suitability = Suitability::Unsuitable { why: chain(error) };
    Candidate { binary, origin, version: None, verdict: None, suitability }
}

async fn ask_version(binary: &Path) -> Result<Version> {
    let mut session = Session::start(&Launch::new(binary))?;
    session.watch(Watch { deadline: Some(Instant::now() + ANSWER), silence: None });
    session.version().await
}

/// Has CRIU find out what this kernel can do, which it does before every operation.
async fn try_kernel(binary: &Path) -> Result<()> {
    let mut session = Session::start(&Launch::new(binary))?;
    session.watch(Watch { deadline: Some(Instant::now() + ANSWER), silence: None });
    session.features().await.map(drop)
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::host::RuntimeDirectory;

    fn program(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(path, "#!/bin/sh\nexit 1\n").expect("file");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn what_is_given_excludes_all_else_and_the_path_is_searched_in_order() {
        let scratch = tempfile::tempdir().expect("directory");
        let dirs = ["a", "b", "c"].map(|name| scratch.path().join(name));
        program(&dirs[0].join("criu"), 0o644);
        program(&dirs[1].join("criu"), 0o755);
        std::fs::create_dir_all(&dirs[2]).expect("directory");
        std::os::unix::fs::symlink(dirs[1].join("criu"), dirs[2].join("criu")).expect("link");
        let path = std::env::join_paths([dirs.as_slice(), &["relative".into()]].concat()).expect("a path");
        let found = Search::new(None, Some(&path)).binaries();
        let found: Vec<_> = found.iter().filter(|(origin, _)| *origin == Origin::Path).collect();
        assert_eq!(found, [&(Origin::Path, dirs[1].join("criu"))], "not the unexecutable, nor the link to the same");
        let given = Search::new(Some("x".into()), Some(&path)).binaries();
        assert_eq!(given, [(Origin::Given, "x".into())]);
    }

    #[tokio::test]
    async fn without_one_that_suits_the_error_names_all_that_were_found() {
        let scratch = tempfile::tempdir().expect("directory");
        program(&scratch.path().join("bin/criu"), 0o755);
        let kept = Kept::at(RuntimeDirectory::at(scratch.path().join("run")));
        let mut search = Search::new(None, Some(scratch.path().join("bin").as_os_str())).keeping_in(kept);
        search.places.retain(|(origin, _)| *origin == Origin::Path);
        let error = search.choose(InetSockets::None).await.expect_err("none suits");
        let text = error.to_string();
        assert!(text.starts_with("no suitable CRIU: `") && text.contains("bin/criu` does not suit: "), "{text}");
        assert!(error.hint().is_some());
        search.places.clear();
        let error = search.choose(InetSockets::None).await.expect_err("none is there");
        assert_eq!(error.to_string(), "no suitable CRIU: none was found");
    }

    #[tokio::test]
    async fn a_program_that_is_no_criu_is_passed_over_with_its_reason() {
        let scratch = tempfile::tempdir().expect("directory");
        program(&scratch.path().join("bin/criu"), 0o755);
        let kept = Kept::at(RuntimeDirectory::at(scratch.path().join("run")));
        for given in [scratch.path().join("bin/criu"), scratch.path().join("absent")] {
            let search = Search::new(Some(given.clone()), None).keeping_in(kept.clone());
            let found = search.candidates().await.expect("candidates");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].binary, given);
            assert!(found[0].suitability.why().is_some_and(|why| !why.is_empty()));
            assert!(matches!(search.choose(InetSockets::Unknown).await, Err(Error::NoCriu { .. })));
        }
    }
}
