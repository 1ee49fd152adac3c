//! Images of a real program without capabilities, compared with a policy and with what is on this host. It is root's: who has
//! no CAP_SYS_RESOURCE cannot dump a program of another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::crr::images::Images;
use ::crr::peer::Configuration;
use ::crr::peer::policy::{Line, Policies, Violation, judge};
use libtest_mimic::{Failed, Trial};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{XattrFlags, removexattr, setxattr};

use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_program_without_capabilities_passes_a_policy_and_is_restored", NEEDS, passes),
        test("a_policy_looks_at_the_files_of_this_host", NEEDS, files),
    ]
}

/// The images of a program without capabilities, and a policy that lets exactly that in.
struct Subject {
    victim: Victim,
    tree: Vec<i32>,
    program: PathBuf,
    images: PathBuf,
    configuration: Configuration,
    _home: tempfile::TempDir,
}

impl Subject {
    fn dump() -> Result<Self, Failed> {
        let home = tempfile::Builder::new().prefix("crr-peer.").tempdir()?;
        fs::set_permissions(home.path(), Permissions::from_mode(0o755))?;
        let program = home.path().join("program");
        fs::copy(programs::program("memory")?, &program)?;
        let word = program.to_str().ok_or("UTF-8")?;
        let words = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", word, "4", "1"];
        let victim = Victim::start(Path::new("setpriv"), &words)?;
        victim.await_ticks(1)?;
        let configuration = Configuration::at(home.path().join("crr"));
        fs::create_dir(configuration.path())?;
        let (images, work, tree) = (victim.images(), home.path().join("criu"), victim.tree());
        fs::create_dir(&images)?;
        fs::create_dir(&work)?;
        let directory = victim.directory().display().to_string();
        let policy = format!(
            "[peer.b]\nuids = [0]\ngids = [0]\nopen = [\"/dev/null\", \"{directory}/work\"]\n\
             write = [\"{directory}\"]\nmap = [\"{word}\", \"/usr/lib\"]\nmax-tasks = 1\n"
        );
        fs::write(configuration.path().join("serve.toml"), policy)?;
        let pid = victim.pid().to_string();
        let work = work.to_str().ok_or("UTF-8")?;
        crr::criu("dump", &images, ["-t", &pid, "-W", work], LIMIT)?.must_pass("criu dump")?;
        Ok(Self { victim, tree, program, images, configuration, _home: home })
    }

    fn judge(&self) -> Result<Vec<Violation>, Failed> {
        let policy = Policies::read(&self.configuration)?.of_peer(&"b".parse()?);
        Ok(judge(&Images::open(&self.images)?, &policy)?)
    }

    fn accepted(&self) -> Outcome {
        let found = self.judge()?;
        ensure!(found.is_empty(), "{found:#?}");
        Ok(())
    }

    /// Refused for this line, and for no other.
    fn refused(&self, line: Line, told: &str) -> Outcome {
        let found = self.judge()?;
        let right = |violation: &Violation| violation.line == line && violation.to_string().contains(told);
        ensure!(!found.is_empty() && found.iter().all(right), "not refused for {line:?} ({told}) alone: {found:#?}");
        Ok(())
    }
}

fn passes() -> Outcome {
    let mut subject = Subject::dump()?;
    subject.accepted()?;
    let tree = subject.tree.clone();
    subject.victim.await_gone(&tree)?;
    crr::criu("restore", &subject.images, ["-d"], LIMIT)?.must_pass("criu restore")?;
    subject.victim.self_check()
}

fn files() -> Outcome {
    let subject = Subject::dump()?;
    subject.accepted()?;
    // Its libraries are mapped, too, but nothing is wrong with them.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(&subject.program, "security.capability", &capability, XattrFlags::empty())?;
    subject.refused(Line::Map, "file capabilities")?;
    removexattr(&subject.program, "security.capability")?;
    subject.accepted()?;

    fs::set_permissions(&subject.program, Permissions::from_mode(0o2755))?;
    subject.refused(Line::Map, "set-user-ID or set-group-ID")?;
    fs::set_permissions(&subject.program, Permissions::from_mode(0o755))?;

    let (output, aside) = (subject.victim.directory().join("output"), subject.victim.directory().join("aside"));
    fs::rename(&output, &aside)?;
    subject.refused(Line::Write, "it is not there")?;
    mknod(&output, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 200))?;
    subject.refused(Line::Write, "it is a device (7:200)")?;
    fs::remove_file(&output)?;
    symlink(&aside, &output)?;
    subject.refused(Line::Write, "symbolic link")?;
    fs::remove_file(&output)?;
    fs::rename(&aside, &output)?;

    let work = subject.victim.work();
    fs::remove_dir(&work)?;
    symlink("/etc", &work)?;
    subject.refused(Line::Open, "symbolic link")?;
    fs::remove_file(&work)?;
    fs::create_dir(&work)?;
    subject.accepted()
}
