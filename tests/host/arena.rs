//! The mount namespace of an operation: what is in it is seen nowhere else, and nothing stays.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use crr::arena::{Arena, FeatureCache, PLACE, Plan, TmpfsOptions};
use crr::host::RuntimeDirectory;
use crr::operation::Session;
use crr::swrk::Launch;
use libtest_mimic::{Failed, Trial};
use rustix::fs::OFlags;

use crate::need::{self, Need};
use crate::world::alone;
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Need::Root, Need::Netns];

const CRIU: &[Need] = &[Need::Root, Need::Criu, Need::Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("arena::what_is_planned_is_mounted_there_and_nowhere_else", NEEDS, || alone(planned)),
        test("arena::run_is_a_tmpfs_there_and_shows_what_it_showed", NEEDS, || alone(run)),
        test("arena::criu_finds_there_what_it_found_out_before", CRIU, features),
        test("arena::what_cannot_be_mounted_is_an_error_and_leaves_nothing", NEEDS, || alone(refused)),
        test("arena::an_arena_takes_a_millisecond", NEEDS, time),
    ]
}

fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()
}

fn planned() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let rootfs = scratch.path().join("root fs,with:odd\\name");
    let dirs = ["lower", "upper", "work", "merged"].map(|name| rootfs.join(name));
    for directory in &dirs {
        fs::create_dir_all(directory)?;
    }
    fs::write(dirs[0].join("file"), "lower")?;
    let before = mounts();
    let mut plan = Plan::new();
    let root = plan.root(&rootfs);
    plan.tmpfs(rootfs.join("work"), TmpfsOptions { data: "size=1m,mode=700".into(), ..TmpfsOptions::default() });
    plan.directory(rootfs.join("work/a/upper"), 0o750).directory(rootfs.join("work/a/work"), 0o700);
    let [lower, _, work, merged] = &dirs;
    plan.overlay(vec![lower.clone()], work.join("a/upper"), work.join("a/work"), merged);
    let arena = Arena::new(plan)?;
    ensure!(mounts() == before, "the machine's mount table has changed");
    ensure!(!root.exists(), "{} is seen outside", root.display());

    let seen = arena.run_inside(|| {
        fs::write(merged.join("file"), "changed")?;
        fs::read_to_string(root.join("lower/file"))
    })??;
    ensure!(seen == "lower", "the lower file became {seen}");
    let inside = arena.open(merged.join("file"), OFlags::RDONLY)?;
    ensure!(std::io::read_to_string(File::from(inside))? == "changed", "the overlay");
    ensure!(!dirs[3].join("file").exists() && !dirs[2].join("a").exists(), "seen outside");
    ensure!(fs::read_to_string(dirs[0].join("file"))? == "lower", "the lower file was changed");

    let namespace = fs::read_link(format!("/proc/self/fd/{}", arena.namespace().as_raw_fd()))?;
    ensure!(namespace != fs::read_link("/proc/thread-self/ns/mnt")?, "it is no namespace of its own");
    drop(arena);
    ensure!(mounts() == before, "the machine's mount table has changed");
    // A mount that were left would keep it from going.
    scratch.close()?;
    Ok(())
}

fn run() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let kept = RuntimeDirectory::at(scratch.path().join("kept"));
    let cache = |about: u8| FeatureCache::new(kept.clone(), "some.kdat", [about; 32]);
    let arena = |cache: FeatureCache| {
        let mut plan = Plan::new();
        plan.features(cache);
        Arena::new(plan)
    };
    let listed = |directory: &Path| -> std::io::Result<BTreeMap<_, _>> {
        let entries = fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
        let kinds = entries.iter().map(|entry| Ok((entry.file_name(), entry.file_type()?.is_dir())));
        let kinds = kinds.collect::<std::io::Result<BTreeMap<_, _>>>()?;
        Ok(kinds.into_iter().filter(|(name, _)| !name.to_string_lossy().starts_with("criu.kdat")).collect())
    };
    let (table, outside) = (mounts(), listed(Path::new("/run"))?);
    let mut first = arena(cache(1))?;
    let Some(had) = first.had_features() else {
        ensure!(rustix::fs::statfs("/run")?.f_type as u64 == 0x0102_1994, "nothing was done, and /run is no tmpfs");
        return Ok(());
    };
    ensure!(!had, "nothing was kept yet");
    let (inside, kind) = first.run_inside(|| (listed(Path::new("/run")), rustix::fs::statfs("/run")))?;
    ensure!(inside? == outside, "/run shows something else inside");
    ensure!(kind?.f_type as u64 == 0x0102_1994, "/run is no tmpfs inside");
    first.keep_features()?;
    ensure!(!scratch.path().join("kept/some.kdat").exists(), "nothing was there to be kept");
    first.run_inside(|| fs::write("/run/criu.kdat", "what CRIU knows"))??;
    first.keep_features()?;
    drop(first);

    let second = arena(cache(1))?;
    ensure!(second.had_features() == Some(true), "what was kept was not given");
    let text = second.run_inside(|| fs::read_to_string("/run/criu.kdat"))??;
    ensure!(text == "what CRIU knows", "it became {text}");
    ensure!(arena(cache(2))?.had_features() == Some(false), "it is about another kernel");
    drop(second);
    ensure!(mounts() == table, "the machine's mount table has changed");
    ensure!(listed(Path::new("/run"))? == outside, "/run has changed");
    Ok(())
}

fn features() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let kept = RuntimeDirectory::at(scratch.path().join("kept"));
    let criu = need::criu().ok_or("no CRIU")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Has CRIU look at the kernel; gives the inode of its cache before and after, and how long it took.
    let ask = || -> Result<_, Failed> {
        let mut plan = Plan::new();
        plan.features(FeatureCache::new(kept.clone(), "some.kdat", [7; 32]));
        let mut arena = Arena::new(plan)?;
        let inode = |arena: &Arena| {
            arena.open("/run/criu.kdat", OFlags::PATH).ok().map(|fd| Ok(File::from(fd).metadata()?.ino()))
        };
        let before: Option<Result<u64, Failed>> = inode(&arena);
        let mut launch = Launch::new(&criu);
        launch.mount_namespace = Some(arena.namespace());
        let began = Instant::now();
        runtime.block_on(async { Session::start(&launch)?.features().await })?;
        let took = began.elapsed();
        let after = inode(&arena);
        arena.keep_features()?;
        Ok((arena.had_features(), before.transpose()?, after.transpose()?, took))
    };
    let (had, before, after, slow) = ask()?;
    if had.is_none() {
        return Ok(());
    }
    ensure!(had == Some(false) && before.is_none(), "nothing was known yet: {had:?} {before:?}");
    ensure!(after.is_some(), "CRIU did not keep what it found out");
    let (had, before, after, fast) = ask()?;
    println!("CRIU's start and look at the kernel: {slow:?}, with its cache {fast:?}");
    ensure!(had == Some(true) && before.is_some(), "what CRIU found out was not kept");
    ensure!(before == after, "CRIU did not believe its cache");
    ensure!(fast < slow, "with its cache CRIU took {fast:?}, without {slow:?}");

    // What CRIU cannot use it replaces.
    let path = scratch.path().join("kept/some.kdat");
    let sound = fs::read(&path)?;
    fs::write(&path, &sound[..sound.len() - 8])?;
    let (had, before, after, _) = ask()?;
    ensure!(had == Some(true) && before != after, "CRIU believes a damaged cache");
    ensure!(fs::read(&path)?.len() == sound.len(), "what replaces it was not kept");
    ensure!(fs::metadata(&path)?.mode() & 0o777 == 0o600, "others may read or write it");
    ensure!(!Path::new("/run/criu.kdat").exists(), "a cache was put where no boot removes it");
    Ok(())
}

fn refused() -> Outcome {
    let before = mounts();
    let mut plan = Plan::new();
    plan.root("/nonexistent");
    let error = Arena::new(plan).err().ok_or("a root that does not exist was mounted")?;
    ensure!(error.to_string().contains("/nonexistent"), "the error says {error}");
    ensure!(mounts() == before, "the machine's mount table has changed");
    ensure!(!Path::new(PLACE).join("root").exists(), "a directory was left");
    Ok(())
}

fn time() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let kept = RuntimeDirectory::at(scratch.path().join("kept"));
    let mut times = Vec::new();
    for _ in 0..15 {
        let mut plan = Plan::new();
        plan.features(FeatureCache::new(kept.clone(), "some.kdat", [0; 32])).root(scratch.path());
        for index in 0..4 {
            let place = crr::arena::place(&format!("tmpfs-{index}"));
            plan.directory(&place, 0o700).tmpfs(place, TmpfsOptions::default());
        }
        let began = Instant::now();
        let arena = Arena::new(plan)?;
        let made = began.elapsed();
        let _ = arena.namespace().as_fd();
        drop(arena);
        times.push((made, began.elapsed() - made));
    }
    times.sort();
    println!("arena: {:?} to make and {:?} to end (median)", times[7].0, times[7].1);
    // Far above what is aimed at: other programs run beside a test.
    ensure!(times[7].0.as_millis() < 20, "it took {:?}", times[7]);
    Ok(())
}
