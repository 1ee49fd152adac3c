//! The one window: crr or CRIU is killed between the answer to `post-restore` and the freeze at `pre-resume`.
//!
//! `CRR_TEST_WINDOW` says how often each is killed; how long the copy ran is printed.

use std::fs;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use super::TAG;
use super::hand::Hand;
use super::hold::{cgroups, versions};
use crate::bed::{Bed, copy, selfcheck};
use crate::need::Need::{self, Cc, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Netns, Criu, Cc, Cgroups];

/// Each step of `selfcheck`.
const STEP: Duration = Duration::from_millis(10);

/// The longest that a copy may run after CRIU's death: a machine that is busy lets its processes wait.
const LIMIT: Duration = Duration::from_millis(500);

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in versions() {
        for victim in ["crr", "criu"] {
            let name = format!("held::no_copy_runs_on_when_{victim}_is_killed_in_the_window_v{version}");
            trials.push(test(name, NEEDS, move || window(version, victim)));
        }
    }
    trials
}

fn window(version: &str, victim: &str) -> Outcome {
    let times = std::env::var("CRR_TEST_WINDOW").ok().map_or(Ok(4), |times| times.parse::<u32>())?;
    let bed = Bed::new(&["a", "b"], &["selfcheck"])?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    let process = selfcheck(a, "/tmp/out", 1)?;
    a.sh("mkdir /tmp/images")?;
    a.criu("dump", "/tmp/images", &["-t", &process.pid.to_string()])?.must_pass("criu dump")?;
    copy(a, b, "/tmp/images")?;
    let before = fs::read(a.path("/tmp/out"))?;
    let mut longest = Duration::ZERO;
    for time in 0..times {
        fs::write(b.path("/tmp/out"), &before)?;
        let mut hand = Hand::start(b, version)?;
        let pid = i32::try_from(hand.count("pid")?)?;
        let event = hand.ask("restore /tmp/images")?;
        ensure!(event["event"] == "post-restore" && event["tasks"] == 1, "{event}");
        let criu = i32::try_from(event["criu"].as_i64().ok_or("no PID")?)?;
        hand.ask(&format!("plan {TAG}"))?;
        hand.ask("gather")?;
        hand.ask("guard")?;
        hand.ask("yes")?;
        // Every other time CRIU is in the middle of it.
        if time % 2 == 0 {
            hand.hear("pre-resume")?;
        }
        b.kill(if victim == "crr" { pid } else { criu }, "KILL")?;
        until("the copy to be killed", SOON, || {
            let programs = b.programs();
            (!programs.iter().any(|name| name == "selfcheck" || name == "crr-guard")).then_some(())
        })
        .map_err(|failed| format!("{}: {:?}", failed.message().unwrap_or_default(), b.programs()))?;
        drop(hand);
        until("CRIU's end", SOON, || (!b.programs().iter().any(|name| name == "criu")).then_some(()))?;
        let steps = fs::read(b.path("/tmp/out"))?.split(|byte| *byte == b'\n').count()
            - before.split(|byte| *byte == b'\n').count();
        let ran = STEP * u32::try_from(steps)?;
        ensure!(victim == "criu" || steps == 0, "the copy ran for {ran:?} after the death of crr");
        ensure!(ran < LIMIT, "the copy ran for {ran:?}");
        longest = longest.max(ran);
        sweep(&mut Hand::start(b, version)?)?;
        ensure!(cgroups(b)?.is_empty(), "left: {:?}", cgroups(b));
    }
    eprintln!("{victim} was killed {times} times; the copy ran for {} ms at most", longest.as_millis());
    Ok(())
}

/// What the next crr does with a copy that never came to be prepared.
fn sweep(hand: &mut Hand) -> Result<(), Failed> {
    ensure!(hand.ask(&format!("find {TAG}"))? == true, "the next crr does not find the cgroup");
    hand.ask("end").map(drop)
}
