//! Another host, as far as a restore can tell: a mount and a PID namespace with another root directory, which shares only what
//! a system has (/usr, /etc, /dev, /sys) with this one. Its /tmp, where the tests' programs and trees are, is empty.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::crr::{Ran, Running};
use crate::until::{SOON, until};

const LIMIT: Duration = Duration::from_secs(120);

/// Makes the root directory and enters it; CRIU needs a real root mount, so by pivot_root, not by chroot. `$1` is where it is
/// made, `$2` the crr under test, `$3` the checkpoint.
const MAKE: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir proc tmp run old crr images
chmod 1777 tmp
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
for name in /usr /opt /etc /dev /sys /bin /sbin /lib /lib32 /lib64; do
    if [ -L $name ]; then
        cp -a $name .
    elif [ -d $name ]; then
        mkdir .$name
        mount --rbind $name .$name
    fi
done
touch crr/crr
mount --bind "$2" crr/crr
cp -a "$3/." images
pivot_root . old
cd /
umount -l old
rmdir old
echo > /run/up
exec sleep infinity
"#;

/// A running host; dropping it ends all that runs there.
pub(crate) struct Elsewhere {
    /// `unshare`; its child is the host's first process.
    outer: Child,
    init: i32,
    _place: TempDir,
}

impl Elsewhere {
    /// The checkpoint in `images` is copied to [`Elsewhere::IMAGES`].
    pub(crate) fn start(images: &Path) -> Result<Self, Failed> {
        let place = tempfile::Builder::new().prefix("crr-elsewhere.").tempdir()?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", MAKE, "sh"]);
        command.arg(place.path()).arg(env!("CARGO_BIN_EXE_crr")).arg(images);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(place.path().join("said"))?);
        let mut outer = command.process_group(0).spawn()?;
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let said = place.path().join("said");
        let init = until("the other host to be up", SOON, || {
            if let Ok(Some(status)) = outer.try_wait() {
                let said = fs::read_to_string(&said).unwrap_or_default();
                return Some(Err(Failed::from(format!("no other host ({status}): {said}"))));
            }
            let init: i32 = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            Path::new(&format!("/proc/{init}/root/run/up")).exists().then_some(Ok(init))
        })??;
        Ok(Self { outer, init, _place: place })
    }

    /// Where the checkpoint is there.
    pub(crate) const IMAGES: &str = "/images";

    /// How a path of that host is reached from here.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        Path::new(&format!("/proc/{}/root", self.init)).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Runs a program there.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Ran, Failed> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--"]);
        command.args(words).current_dir("/").env("NO_COLOR", "1");
        Running::start(&mut command)?.end(LIMIT)
    }

    /// `crr restore -d` of the checkpoint there, and more words.
    pub(crate) fn restore(&self, words: &[&str]) -> Result<Ran, Failed> {
        self.run(["/crr/crr", "restore", "-d", "--dir", Self::IMAGES].iter().chain(words))
    }

    /// What runs there beside the first process: PIDs, zombies left out.
    pub(crate) fn running(&self) -> Result<Vec<i32>, Failed> {
        let entries = fs::read_dir(self.path("/proc"))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_alive = |pid: &i32| {
            let stat = fs::read_to_string(self.path(format!("/proc/{pid}/stat"))).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        Ok(pids.filter(|pid| *pid != 1).filter(is_alive).collect())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // With the first process of a PID namespace go all others.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.init), nix::sys::signal::Signal::SIGKILL);
        let _ = self.outer.wait();
    }
}
