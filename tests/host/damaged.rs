//! Checkpoints that are not whole, not as they were written, or not for this crr.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::dumped::{Dumped, snapshot};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::{Outcome, crr, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_flipped_byte_in_any_image_is_found", NEEDS, flipped),
        test("a_flipped_byte_of_memory_is_restored_where_nobody_verifies", NEEDS, flipped_memory),
        test("an_image_that_criu_cannot_read_is_refused_where_nobody_verifies", NEEDS, wrong_magic),
        test("a_truncated_image_is_found", NEEDS, || each_image(&[], truncate)),
        test("a_missing_image_is_found", NEEDS, || each_image(&[], remove)),
        test("an_image_that_is_missing_is_found_where_nobody_verifies", NEEDS, missing_unverified),
        test("a_directory_without_a_checkpoint_is_refused", NEEDS, none_there),
        test("a_pre_dump_is_refused", NEEDS, pre_dump),
        test("a_record_of_a_newer_crr_is_refused_by_its_version", NEEDS, newer),
        test("a_record_with_an_option_that_is_not_allowed_is_refused", NEEDS, forbidden),
        test("a_record_that_is_damaged_is_refused", NEEDS, record_damaged),
        test("a_checkpoint_without_sums_restores_and_says_so", NEEDS, no_sums),
        test("a_checkpoint_whose_record_is_gone_restores", NEEDS, no_record),
    ]
}

/// The images and what else has a sum, in order.
fn summed(dumped: &Dumped) -> Result<Vec<String>, Failed> {
    let record = dumped.record()?;
    let sums = record["sums"].as_object().ok_or("crr.json has no sums")?;
    Ok(sums.keys().cloned().collect())
}

fn flip(path: &Path, at: usize) -> Outcome {
    let mut content = fs::read(path)?;
    *content.get_mut(at).ok_or("the file is shorter")? ^= 1;
    Ok(fs::write(path, content)?)
}

fn truncate(path: &Path) -> Outcome {
    let length = fs::metadata(path)?.len();
    Ok(fs::File::options().write(true).open(path)?.set_len(length.saturating_sub(1))?)
}

fn remove(path: &Path) -> Outcome {
    Ok(fs::remove_file(path)?)
}

/// Spoils each file in turn: a restore must name it, exit with 65 and make nothing.
fn each_image(words: &[&str], spoil: fn(&Path) -> Outcome) -> Outcome {
    let mut dumped = Dumped::situation("deleted_small", &["--file-locks"])?;
    let names = summed(&dumped)?;
    ensure!(names.len() > 10, "only {names:?} have sums");
    for image in fs::read_dir(&dumped.images)? {
        let name = image?.file_name().to_string_lossy().into_owned();
        ensure!(!name.ends_with(".img") || names.contains(&name), "{name} has no sum");
    }
    for name in &names {
        let path = dumped.images.join(name);
        let content = fs::read(&path)?;
        spoil(&path)?;
        let said = dumped.refused(65, words).map_err(|failed| format!("{name}: {failed:?}"))?;
        ensure!(said.contains(name.as_str()), "{name} is not named: {said}");
        fs::write(&path, content)?;
    }
    dumped.comes_back(&[]).map(drop)
}

fn flipped() -> Outcome {
    each_image(&[], |path| flip(path, usize::try_from(fs::metadata(path)?.len())? / 2))
}

/// A change that CRIU does not see comes back with the tree, which sees it.
fn flipped_memory() -> Outcome {
    let mut dumped = Dumped::situation("anonymous_private", &[])?;
    let path = dumped.images.join("pages-1.img");
    let pages = fs::read(&path)?;
    // The situation's area: pages that begin with 1, 2, 3... and hold zeros else.
    let is_page = |page: &[u8], first: u8| page[0] == first && page[1..].iter().all(|byte| *byte == 0);
    let at = pages.chunks(4096).collect::<Vec<_>>();
    let at = at.windows(3).position(|pages| (1..4u8).all(|n| is_page(pages[usize::from(n) - 1], n)));
    flip(&path, at.ok_or("the area is not in pages-1.img")? * 4096)?;
    ensure!(dumped.refused(65, &[])?.contains("pages-1.img"), "the image is not named");
    crr::restore(&dumped.images, &["--no-verify"])?.must_pass("crr restore --no-verify")?;
    let complaint = dumped.victim.complaint();
    ensure!(complaint.as_deref() == Some("BAD memory changed"), "the tree says {complaint:?}");
    dumped.gone()
}

fn wrong_magic() -> Outcome {
    let mut dumped = Dumped::situation("deleted_small", &[])?;
    for name in summed(&dumped)?.iter().filter(|name| name.ends_with(".img") && !name.starts_with("pages-")) {
        let path = dumped.images.join(name);
        flip(&path, 0)?;
        let ran = crr::restore(&dumped.images, &["--no-verify"])?;
        // What crr reads it names itself; the rest is for CRIU to refuse, or not to look at.
        match ran.code {
            65 => ensure!(ran.stderr.contains(name.as_str()), "{name} is not named: {}", ran.stderr),
            81 => ensure!(ran.stderr.contains("Nothing of the tree is left"), "{name}: {}", ran.stderr),
            0 if !["inventory.img", "pstree.img", "files.img"].contains(&name.as_str()) => dumped.gone()?,
            code => return Err(format!("{name}: exit status {code}: {}", ran.stderr).into()),
        }
        dumped.nothing_runs()?;
        flip(&path, 0)?;
    }
    dumped.comes_back(&[]).map(drop)
}

fn missing_unverified() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let away = dumped.victim.directory().join("away");
    let needed = |name: &&String| {
        ["core-", "mm-", "pagemap-", "pages-", "fs-", "files.", "pstree", "inventory"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let names = summed(&dumped)?;
    for name in names.iter().filter(needed) {
        let path = dumped.images.join(name);
        fs::rename(&path, &away)?;
        let said = dumped.refused(65, &["--no-verify"]).map_err(|failed| format!("{name}: {failed:?}"))?;
        ensure!(said.contains(name.as_str()) || name == "inventory.img", "{name} is not named: {said}");
        fs::rename(&away, &path)?;
    }
    // All that is missing at once, by name.
    let gone: Vec<&String> = names.iter().filter(|name| name.starts_with("core-") || name.starts_with("fs-")).collect();
    ensure!(gone.len() == 4, "of two tasks: {gone:?}");
    for name in &gone {
        fs::remove_file(dumped.images.join(name))?;
    }
    for words in [&[][..], &["--no-verify"]] {
        let said = dumped.refused(65, words)?;
        ensure!(gone.iter().all(|name| said.contains(name.as_str())), "of {gone:?}: {said}");
    }
    dumped.gone()
}

fn none_there() -> Outcome {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    fs::create_dir(path("empty"))?;
    fs::create_dir(path("other"))?;
    fs::write(path("other/letter.txt"), "x")?;
    fs::write(path("file"), "x")?;
    for (name, code, words) in
        [("empty", 65, "empty"), ("other", 65, "no checkpoint"), ("file", 73, "not a directory"), ("none", 66, "exist")]
    {
        let ran = crr::restore(&path(name), &[])?.must_exit(code, name)?;
        ensure!(ran.stderr.contains(words) && ran.stderr.contains("What to do"), "{name}: {}", ran.stderr);
    }
    Ok(())
}

/// The inventory of a pre-dump says so in a field of its own (`pre_dump_mode`, number 9).
fn pre_dump() -> Outcome {
    let dumped = Dumped::pair()?;
    let path = dumped.images.join("inventory.img");
    let mut content = fs::read(&path)?;
    // A magic and the size of the message; then the message.
    let size = content.get(4..8).ok_or("no size")?.try_into().map(u32::from_le_bytes)?;
    ensure!(content.len() == 8 + usize::try_from(size)?, "the inventory is more than one message");
    content[4..8].copy_from_slice(&(size + 2).to_le_bytes());
    content.extend([9 << 3, 1]);
    fs::write(&path, content)?;
    for words in [&["--no-verify"][..], &[]] {
        let said = dumped.refused(65, words)?;
        ensure!(said.contains("pre-dump"), "{said}");
    }
    Ok(())
}

fn newer() -> Outcome {
    let dumped = Dumped::pair()?;
    dumped.edit_record("\"version\":1,", "\"version\":2,\"hint\":[],")?;
    let said = dumped.refused(65, &[])?;
    ensure!(said.contains("version 2") && said.contains("up to version 1"), "{said}");
    let before = snapshot(&dumped.images)?;
    // Whatever it holds: the choice to do without is the caller's, by taking it away.
    ensure!(dumped.refused(65, &["--no-verify"])?.contains("version 2"), "read without sums");
    ensure!(before == snapshot(&dumped.images)?, "a refused restore changed the checkpoint");
    Ok(())
}

fn forbidden() -> Outcome {
    let dumped = Dumped::pair()?;
    let path = dumped.images.join("crr.json");
    let good = fs::read_to_string(&path)?;
    for option in [
        "\"exec\":[\"touch\",\"/tmp/owned\"]",
        "\"root\":\"/elsewhere\"",
        "\"config_file\":\"/elsewhere\"",
        "\"inherit_fd\":[]",
        "\"action_script\":\"/elsewhere\"",
        "\"libdir\":\"/elsewhere\"",
        "\"switches\":[\"exec-cmd\"]",
    ] {
        let key = option.split('"').nth(1).unwrap_or_default();
        let options = good.split_once("\"options\":{").ok_or("crr.json has no options")?;
        let comma = if options.1.starts_with('}') { "" } else { "," };
        fs::write(&path, format!("{}\"options\":{{{option}{comma}{}", options.0, options.1))?;
        let said = dumped.refused(65, &[])?;
        ensure!(said.contains(if key == "switches" { "exec-cmd" } else { key }), "{key} is not named: {said}");
    }
    Ok(())
}

fn record_damaged() -> Outcome {
    let dumped = Dumped::pair()?;
    let path = dumped.images.join("crr.json");
    let good = fs::read(&path)?;
    for length in [0, 1, good.len() / 2, good.len() - 2] {
        fs::write(&path, &good[..length])?;
        let said = dumped.refused(65, &[])?;
        ensure!(said.contains("crr.json"), "{length} bytes: {said}");
    }
    Ok(())
}

fn no_sums() -> Outcome {
    let mut dumped = Dumped::situation("file_read", &["--no-hash"])?;
    ensure!(dumped.record()?["sums"].is_null(), "there are sums");
    let said = dumped.comes_back(&[])?.stderr;
    ensure!(said.contains("no sums"), "not said: {said}");
    // Whoever does not want them verified is not told.
    let said = dumped.comes_back(&["--no-verify"])?.stderr;
    ensure!(!said.contains("no sums"), "{said}");
    Ok(())
}

fn no_record() -> Outcome {
    let mut dumped = Dumped::situation("posix_lock", &[])?;
    let record: PathBuf = dumped.images.join("crr.json");
    fs::remove_file(record)?;
    let said = dumped.comes_back(&[])?.stderr;
    ensure!(said.contains("--file-locks"), "what was turned on is not said: {said}");
    Ok(())
}
