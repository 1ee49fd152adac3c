//! Options that only switch something on, named as the criu program names them.

use std::fmt;
use std::str::FromStr;

use crate::proto::rpc::Criu_opts;

macro_rules! switches {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal => $set:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every switch.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The criu program's word for it, without dashes.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            pub(super) fn write(self, opts: &mut Criu_opts) {
                match self {
                    $(Self::$variant => opts.$set(true),)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().copied().find(|switch| switch.word() == word);
                found.ok_or_else(|| format!("`{word}` is not an option that crr knows"))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

switches! {
    /// What a dump or pre-dump can be told to do beyond CRIU's defaults.
    DumpSwitch {
        /// The tree is a job of a shell: its session, and perhaps its terminal, belong to somebody outside.
        ShellJob = "shell-job" => set_shell_job,
        /// Unix sockets may have peers outside the tree.
        ExtUnixSk = "ext-unix-sk" => set_ext_unix_sk,
        /// File locks are dumped; that nobody outside the tree shares them is for the caller to know.
        FileLocks = "file-locks" => set_file_locks,
        /// An unlinked file that has other names is linked under a temporary one next to them.
        LinkRemap = "link-remap" => set_link_remap,
        /// Connections that nobody has accepted yet are dropped.
        SkipInFlight = "skip-in-flight" => set_tcp_skip_in_flight,
        /// A device that is not where its path says is looked for by its number.
        EvasiveDevices = "evasive-devices" => set_evasive_devices,
        /// Dirty pages are tracked from here on, for an incremental dump.
        TrackMem = "track-mem" => set_track_mem,
        /// Pages that this dump replaces are punched out of the parent's files.
        AutoDedup = "auto-dedup" => set_auto_dedup,
        /// Paths of watched inodes are always searched for.
        ForceIrmap = "force-irmap" => set_force_irmap,
        /// The master side of a terminal that the tree has only the other side of is left to whoever restores it.
        OrphanPtsMaster = "orphan-pts-master" => set_orphan_pts_master,
        /// Memory stays here and is served on demand: post-copy.
        LazyPages = "lazy-pages" => set_lazy_pages,
        /// CRIU runs without root's capabilities.
        Unprivileged = "unprivileged" => set_unprivileged,
    }
}

switches! {
    /// What a restore can be told to do beyond CRIU's defaults.
    RestoreSwitch {
        /// The tree becomes a job of the caller's session and takes its terminal.
        ShellJob = "shell-job" => set_shell_job,
        /// Sockets whose peers were outside are connected to them again.
        ExtUnixSk = "ext-unix-sk" => set_ext_unix_sk,
        /// File locks are taken again.
        FileLocks = "file-locks" => set_file_locks,
        /// Names made by the dump's `link-remap` are used, and used up.
        LinkRemap = "link-remap" => set_link_remap,
        /// Restored pages are punched out of the images.
        AutoDedup = "auto-dedup" => set_auto_dedup,
        /// Memory is fetched on demand from the lazy-pages daemon: post-copy.
        LazyPages = "lazy-pages" => set_lazy_pages,
        /// The terminal's master side is sent to the caller with the `orphan-pts-master` event.
        OrphanPtsMaster = "orphan-pts-master" => set_orphan_pts_master,
        /// A sysctl that cannot be set is passed over.
        WeakSysctls = "weak-sysctls" => set_weak_sysctls,
        /// Mounts are restored by the engine of CRIU before 3.17.
        MntnsCompatMode = "mntns-compat-mode" => set_mntns_compat_mode,
        /// The permissions of files are not compared.
        SkipFileRwxCheck = "skip-file-rwx-check" => set_skip_file_rwx_check,
        /// CRIU runs without root's capabilities.
        Unprivileged = "unprivileged" => set_unprivileged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_is_found_by_its_word() {
        for &switch in DumpSwitch::ALL {
            assert_eq!(switch.word().parse::<DumpSwitch>(), Ok(switch));
        }
        for &switch in RestoreSwitch::ALL {
            assert_eq!(switch.word().parse::<RestoreSwitch>(), Ok(switch));
        }
        assert!("exec-cmd".parse::<RestoreSwitch>().is_err());
    }
}
