//! A checkpoint that was taken elsewhere: what it needs from outside is missing or different there, or comes along.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use crate::dumped::{Dumped, end, snapshot};
use crate::elsewhere::Elsewhere;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, interop, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_checkpoint_that_was_copied_restores_from_its_new_place", NEEDS, copied),
        test("on_another_host_all_that_is_missing_or_different_is_named_and_nothing_touched", NEEDS, lacking),
        test("with_its_files_a_checkpoint_restores_on_another_host", NEEDS, with_files),
        test("files_that_come_along_never_replace_what_is_there", NEEDS, never_replaced),
        test("files_of_a_tree_that_runs_on_are_kept_as_the_checkpoint_needs_them", NEEDS, with_files_running),
        test("a_program_with_another_content_is_a_warning_and_with_strict_files_an_error", NEEDS, content),
        test("a_program_that_was_touched_is_not_different", NEEDS, touched),
        test("a_program_of_another_size_is_refused", NEEDS, size),
        test("a_program_of_another_mode_is_refused_unless_modes_are_not_compared", NEEDS, mode),
        test("a_program_of_another_build_is_refused", NEEDS, build),
        test("a_program_that_is_a_directory_now_is_refused", NEEDS, kind),
        test("what_the_criu_program_dumped_is_compared_with_what_is_there_too", NEEDS, without_record),
    ]
}

/// A tree whose program and open file are its own.
struct Subject {
    dumped: Dumped,
    program: PathBuf,
    /// Open for reading and writing, 100 bytes; the tree has a lock on it.
    file: PathBuf,
    _programs: TempDir,
}

impl Subject {
    fn start() -> Result<(Victim, PathBuf, TempDir), Failed> {
        let programs = tempfile::Builder::new().prefix("crr-moved.").tempdir()?;
        let program = programs.path().join("program");
        fs::copy(programs::program_with("situation", &["-pthread", "-lutil", "-lrt"])?, &program)?;
        Ok((Victim::start(&program, &["posix_lock"])?, program, programs))
    }

    fn dump(words: &[&str]) -> Result<Self, Failed> {
        let (victim, program, programs) = Self::start()?;
        let file = victim.directory().join("work/locked");
        let dumped = Dumped::of(victim, words)?;
        Ok(Self { dumped, program, file, _programs: programs })
    }
}

fn copied() -> Outcome {
    let mut dumped = Dumped::situation("unlinked_linked", &["--link-remap", "--with-files"])?;
    let copy = dumped.victim.directory().join("copy");
    let copied = Command::new("cp").arg("-a").arg(&dumped.images).arg(&copy).status()?;
    ensure!(copied.success(), "cp -a: {copied}");
    fs::remove_dir_all(&dumped.images)?;
    dumped.comes_back_from(&copy, &[]).map(drop)
}

fn lacking() -> Outcome {
    let subject = Subject::dump(&[])?;
    let host = Elsewhere::start(&subject.dumped.images)?;
    // A library that is there, but another: longer by a byte.
    let libraries = subject.dumped.record()?;
    let libraries = libraries["files"].as_array().ok_or("crr.json has no files")?.clone();
    let mut paths = libraries.iter().filter_map(|file| file["path"].as_str());
    let library = paths.find(|path| path.contains("libc.so")).ok_or("no libc in the manifest")?.to_owned();
    let mut other = fs::read(&library)?;
    other.push(0);
    fs::write(host.path("/tmp/library"), other)?;
    fs::set_permissions(host.path("/tmp/library"), fs::metadata(&library)?.permissions())?;
    host.run(["mount", "--bind", "/tmp/library", &library])?.must_pass("mount")?;
    // The directories that are not even there count too.
    let before = (snapshot(&host.path("/tmp"))?, snapshot(&host.path("/run"))?, snapshot(&host.path("/images"))?);
    let ran = host.restore(&[])?.must_exit(68, "a restore on a host that lacks files")?;
    let work = subject.dumped.victim.directory().join("work");
    for (path, what) in [
        (subject.program.as_path(), "is missing"),
        (&subject.file, "is missing"),
        (&work, "is missing"),
        (&subject.dumped.victim.directory().join("output"), "is missing"),
        (Path::new(&library), "bytes and had"),
    ] {
        let said = format!("`{}` ", path.display());
        let line = ran.stderr.lines().find(|line| line.contains(&said));
        ensure!(line.is_some_and(|line| line.contains(what)), "{said}{what} is not said: {}", ran.stderr);
    }
    ensure!(ran.stderr.contains("nothing was touched"), "{}", ran.stderr);
    ensure!(ran.stderr.contains("--with-files"), "the cure is not named: {}", ran.stderr);
    // CRIU makes a directory there, and removes it, when it looks at the kernel.
    let in_tmp = |mut found: BTreeMap<PathBuf, String>| {
        found.remove(&host.path("/tmp"));
        found
    };
    let (before_in_tmp, tmp) = (in_tmp(before.0), in_tmp(snapshot(&host.path("/tmp"))?));
    ensure!(before_in_tmp == tmp, "/tmp: {before_in_tmp:#?} became {tmp:#?}");
    ensure!(before.2 == snapshot(&host.path("/images"))?, "the checkpoint was changed");
    // What crr and CRIU know about the host is theirs.
    let of_theirs = |path: &PathBuf| ["crr", "criu.kdat"].iter().any(|name| path.to_string_lossy().contains(name));
    let (mut ran_before, mut run) = (before.1, snapshot(&host.path("/run"))?);
    for names in [&mut ran_before, &mut run] {
        names.retain(|path, _| !of_theirs(path) && !path.ends_with("run"));
    }
    ensure!(ran_before == run, "/run: {ran_before:#?} became {run:#?}");
    // CRIU may take a moment to end, and nobody there reaps it.
    until("nothing to run there", SOON, || host.running().ok()?.is_empty().then_some(()))
}

/// Asks the tree on the other host whether it finds itself intact.
fn intact_at(host: &Elsewhere, dumped: &Dumped) -> Outcome {
    let output = host.path(dumped.victim.directory().join("output"));
    let before = fs::read_to_string(&output)?.len();
    host.run(["sh", "-c", &format!("kill -USR1 {}", dumped.victim.pid())])?.must_pass("kill")?;
    let answer = until("an answer", SOON, || {
        let output = fs::read_to_string(&output).ok()?;
        output.get(before..)?.lines().next().map(str::to_owned)
    })?;
    ensure!(answer == "ok", "the tree says: {answer}");
    Ok(())
}

fn with_files() -> Outcome {
    let subject = Subject::dump(&["--with-files"])?;
    let host = Elsewhere::start(&subject.dumped.images)?;
    let ran = host.restore(&[])?.must_pass("a restore with its files")?;
    intact_at(&host, &subject.dumped)?;
    for path in [&subject.program, &subject.file] {
        let (here, there) = (fs::metadata(path)?, fs::metadata(host.path(path))?);
        ensure!(fs::read(path)? == fs::read(host.path(path))?, "{} has another content there", path.display());
        ensure!(here.permissions() == there.permissions(), "{} has another mode there", path.display());
        ensure!(here.modified()? == there.modified()?, "{} has another time there", path.display());
        ensure!(ran.stderr.contains(&path.display().to_string()), "{} is not said: {}", path.display(), ran.stderr);
    }
    // A second host gets them from the same checkpoint.
    drop(host);
    let host = Elsewhere::start(&subject.dumped.images)?;
    host.restore(&[])?.must_pass("a second restore with its files")?;
    intact_at(&host, &subject.dumped)
}

fn never_replaced() -> Outcome {
    let subject = Subject::dump(&["--with-files"])?;
    let host = Elsewhere::start(&subject.dumped.images)?;
    let (there, output) = (host.path(&subject.file), host.path(subject.dumped.victim.directory().join("output")));
    fs::create_dir_all(there.parent().ok_or("no directory")?)?;
    fs::write(&there, "shorter")?;
    fs::write(&output, "of this host\n")?;
    let ran = host.restore(&[])?.must_exit(68, "a restore onto a file of another size")?;
    ensure!(ran.stderr.contains(&format!("`{}` has 7 bytes and had 100", subject.file.display())), "{}", ran.stderr);
    ensure!(fs::read_to_string(&there)? == "shorter", "the file was replaced");
    ensure!(!host.path(&subject.program).exists(), "a restore that was refused made a file");
    // What is appended to may have any content: it stays.
    fs::copy(&subject.file, &there)?;
    host.restore(&[])?.must_pass("a restore with its files")?;
    intact_at(&host, &subject.dumped)?;
    ensure!(fs::read_to_string(&output)?.starts_with("of this host\n"), "the output was replaced");
    Ok(())
}

/// The tree goes on writing while crr keeps its files: those of the checkpoint must be as they were in the freeze.
fn with_files_running() -> Outcome {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<>grows; while :; do echo more >&3; done"]);
    let mut victim = Victim::spawn(&mut command)?;
    let file = victim.directory().join("work/grows");
    let grown = |path: &Path, beyond: u64| {
        until("the file to grow", SOON, || (fs::metadata(path).ok()?.len() > beyond).then_some(()))
    };
    grown(&file, 100)?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &["--with-files", "--leave-running"])?.must_pass("crr dump --with-files")?;
    let then = fs::metadata(&file)?.len();
    grown(&file, then)?;
    end(&mut victim, &tree)?;
    let host = Elsewhere::start(&images)?;
    host.restore(&[])?.must_pass("a restore with its files")?;
    let restored = fs::metadata(host.path(&file))?.len();
    grown(&host.path(&file), restored)
}

/// Changes one byte of the program that no task looks at, in its line numbers.
fn change(program: &Path) -> Outcome {
    let content = fs::read(program)?;
    let at = content.len() * 2 / 3;
    File::options().write(true).open(program)?.write_all_at(&[content[at] ^ 1], at as u64)?;
    Ok(())
}

fn content() -> Outcome {
    let mut subject = Subject::dump(&[])?;
    change(&subject.program)?;
    let wanted = format!("`{}` has another content", subject.program.display());
    let said = subject.dumped.refused(68, &["--strict-files"])?;
    ensure!(said.contains(&wanted), "{said}");
    let said = subject.dumped.comes_back(&[])?.stderr;
    ensure!(said.contains("warning") && said.contains(&wanted), "{said}");
    Ok(())
}

fn touched() -> Outcome {
    let mut subject = Subject::dump(&[])?;
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    File::options().write(true).open(&subject.program)?.set_times(times)?;
    let said = subject.dumped.comes_back(&["--strict-files"])?.stderr;
    ensure!(!said.contains("warning"), "{said}");
    Ok(())
}

fn size() -> Outcome {
    let mut subject = Subject::dump(&[])?;
    let length = fs::metadata(&subject.program)?.len();
    File::options().append(true).open(&subject.program)?.write_all(b"x")?;
    let said = subject.dumped.refused(68, &[])?;
    let wanted = format!("`{}` has {} bytes and had {length}", subject.program.display(), length + 1);
    ensure!(said.contains(&wanted), "{said}");
    File::options().write(true).open(&subject.program)?.set_len(length)?;
    subject.dumped.comes_back(&[]).map(drop)
}

fn mode() -> Outcome {
    let mut subject = Subject::dump(&[])?;
    fs::set_permissions(&subject.program, Permissions::from_mode(0o700))?;
    let said = subject.dumped.refused(68, &[])?;
    ensure!(said.contains(&format!("`{}` has mode 0700", subject.program.display())), "{said}");
    subject.dumped.comes_back(&["--skip-file-rwx-check"]).map(drop)
}

/// The place of the build-id in an ELF file: its note has a name of 4 bytes, an id of 20 and type 3.
fn build_id(program: &Path) -> Result<u64, Failed> {
    const NOTE: [u8; 16] = [4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];
    let content = fs::read(program)?;
    let at = content.windows(NOTE.len()).position(|window| window == NOTE).ok_or("no build-id in the program")?;
    Ok((at + NOTE.len()) as u64)
}

fn build() -> Outcome {
    let mut subject = Subject::dump(&[])?;
    let at = build_id(&subject.program)?;
    let mut file = File::options().read(true).write(true).open(&subject.program)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.write_all_at(&[byte[0] ^ 0xff], at)?;
    let said = subject.dumped.refused(68, &[])?;
    ensure!(said.contains(&format!("`{}` is build ", subject.program.display())), "{said}");
    file.write_all_at(&byte, at)?;
    drop(file);
    subject.dumped.comes_back(&["--strict-files"]).map(drop)
}

fn kind() -> Outcome {
    let subject = Subject::dump(&[])?;
    fs::remove_file(&subject.program)?;
    fs::create_dir(&subject.program)?;
    let said = subject.dumped.refused(68, &[])?;
    ensure!(said.contains("is a directory and was a plain file"), "{said}");
    fs::remove_dir(&subject.program)?;
    let said = subject.dumped.refused(68, &[])?;
    ensure!(said.contains(&format!("`{}` is missing", subject.program.display())), "{said}");
    Ok(())
}

fn without_record() -> Outcome {
    let (mut victim, program, _programs) = Subject::start()?;
    let (file, images) = (victim.directory().join("work/locked"), victim.images());
    let tree = interop::criu_dumps(&mut victim, &["--file-locks"])?;
    File::options().append(true).open(&program)?.write_all(b"x")?;
    let away = victim.directory().join("away");
    fs::rename(&file, &away)?;
    let ran = crr::restore(&images, &[])?.must_exit(68, "a restore of what is not as it was")?;
    for (path, what) in [(&program, "bytes and had"), (&file, "is missing")] {
        let said = format!("`{}` ", path.display());
        let line = ran.stderr.lines().find(|line| line.contains(&said));
        ensure!(line.is_some_and(|line| line.contains(what)), "{said}{what} is not said: {}", ran.stderr);
    }
    fs::rename(&away, &file)?;
    let length = fs::metadata(&program)?.len();
    File::options().write(true).open(&program)?.set_len(length - 1)?;
    crr::restore(&images, &[])?.must_pass("crr restore")?;
    victim.self_check()?;
    end(&mut victim, &tree)
}
