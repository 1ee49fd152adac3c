//! The options that a dump needs, and why.

use serde::Serialize;

use crate::request::{DumpOptions, DumpSwitch, Tcp};

/// Why an option is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The tasks that need it.
    pub pids: Vec<i32>,
    /// What of theirs needs it, to be escaped where it is printed.
    pub why: String,
}

/// The options that crr turns on by itself, each with the reason. None changes anything outside the image directory for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// `--shell-job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell_job: Option<Need>,
    /// `--ext-unix-sk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext_unix_sk: Option<Need>,
    /// `--file-locks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_locks: Option<Need>,
    /// `--link-remap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_remap: Option<Need>,
    /// `--tcp-close`, where every connection is closed at both ends already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_close: Option<Need>,
    /// `--ghost-limit`, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ghost_limit: Option<(u32, Need)>,
    /// `--network-lock nftables`, where the tools of CRIU's default are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_lock_nftables: Option<Need>,
    /// `--external`, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<(String, Need)>,
}

impl Needs {
    /// The switches, on or off.
    pub(super) fn switches(&self) -> [(&Option<Need>, DumpSwitch); 4] {
        [
            (&self.shell_job, DumpSwitch::ShellJob),
            (&self.ext_unix_sk, DumpSwitch::ExtUnixSk),
            (&self.file_locks, DumpSwitch::FileLocks),
            (&self.link_remap, DumpSwitch::LinkRemap),
        ]
    }

    /// Those of them that are on.
    fn turned_on(&self) -> impl Iterator<Item = DumpSwitch> {
        self.switches().into_iter().filter(|(need, _)| need.is_some()).map(|(_, switch)| switch)
    }

    /// The words that have to be added to a `crr dump` (or `criu dump`) command line.
    pub fn arguments(&self) -> Vec<String> {
        let Self {
            shell_job: _,
            ext_unix_sk: _,
            file_locks: _,
            link_remap: _,
            tcp_close,
            ghost_limit,
            network_lock_nftables,
            external,
        } = self;
        let mut words: Vec<String> = self.turned_on().map(|switch| format!("--{}", switch.word())).collect();
        words.extend(tcp_close.iter().map(|_| "--tcp-close".to_owned()));
        if let Some((bytes, _)) = ghost_limit {
            words.extend(["--ghost-limit".to_owned(), bytes.to_string()]);
        }
        if network_lock_nftables.is_some() {
            words.extend(["--network-lock".to_owned(), "nftables".to_owned()]);
        }
        for (name, _) in external {
            words.extend(["--external".to_owned(), name.clone()]);
        }
        words
    }

    /// Turns them on in `options`.
    pub fn apply(&self, options: &mut DumpOptions) {
        let Self {
            shell_job: _,
            ext_unix_sk: _,
            file_locks: _,
            link_remap: _,
            tcp_close,
            ghost_limit,
            network_lock_nftables,
            external,
        } = self;
        options.switches.extend(self.turned_on());
        if tcp_close.is_some() && options.tcp == Tcp::Refuse {
            options.tcp = Tcp::Close;
        }
        if let Some((bytes, _)) = ghost_limit {
            options.ghost_limit = Some(*bytes);
        }
        if network_lock_nftables.is_some() && options.network_lock.is_none() {
            options.network_lock = Some(crate::request::NetworkLock::Nftables);
        }
        for (name, _) in external {
            if !options.external.contains(name) {
                options.external.push(name.clone());
            }
        }
    }

    /// Whether nothing has to be turned on.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need() -> Need {
        Need { pids: vec![7], why: "a reason".into() }
    }

    #[test]
    fn the_words_and_the_options_say_the_same() {
        let needs = Needs {
            shell_job: Some(need()),
            ext_unix_sk: Some(need()),
            file_locks: Some(need()),
            link_remap: Some(need()),
            tcp_close: Some(need()),
            ghost_limit: Some((2 << 20, need())),
            network_lock_nftables: Some(need()),
            external: vec![("unix[42]".into(), need())],
        };
        assert_eq!(
            needs.arguments().join(" "),
            "--shell-job --ext-unix-sk --file-locks --link-remap --tcp-close --ghost-limit 2097152 --network-lock nftables \
             --external unix[42]"
        );
        let mut options = DumpOptions::new(7);
        needs.apply(&mut options);
        needs.apply(&mut options);
        let words: Vec<&str> = options.switches.iter().map(|switch| switch.word()).collect();
        assert_eq!(words, ["shell-job", "ext-unix-sk", "file-locks", "link-remap"]);
        assert_eq!((options.tcp, options.ghost_limit), (Tcp::Close, Some(2 << 20)));
        assert_eq!(options.external, ["unix[42]"]);
    }

    #[test]
    fn nothing_needed_adds_nothing() {
        assert!(Needs::default().is_empty());
        assert_eq!(Needs::default().arguments(), Vec::<String>::new());
    }

    #[test]
    fn a_choice_of_the_user_is_kept() {
        let mut options = DumpOptions::new(7);
        options.tcp = Tcp::Established;
        Needs { tcp_close: Some(need()), ..Needs::default() }.apply(&mut options);
        assert_eq!(options.tcp, Tcp::Established);
    }
}
