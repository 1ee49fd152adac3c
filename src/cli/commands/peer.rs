//! `crr peer key|add|remove|list`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use crr::peer::{Address, Configuration, Enrolled, Fingerprint, HostKey, Name, Peer};

use super::super::failure::Failure;
use super::super::output::Output;

/// Shows this host's key, and says which other hosts may migrate processes to and from it
///
/// A peer that may migrate processes here is root here, unless the policy (serve.toml) restricts it: what it sends says which
/// programs run, as whom and with which files open. Compare fingerprints by a way that nobody else can change.
#[derive(Debug, Args)]
pub(crate) struct Peers {
    #[command(flatten)]
    configured: Configured,
    #[command(subcommand)]
    what: What,
}

/// Where key, peers and policy are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Configured {
    /// The directory of this host's key, its peers and its policy
    #[arg(long, global = true, value_name = "DIR", env = "CRR_CONFIG_DIR", default_value = Configuration::DEFAULT)]
    config_dir: PathBuf,
}

impl Configured {
    pub(crate) fn configuration(&self) -> Configuration {
        Configuration::at(&self.config_dir)
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints the fingerprint of this host's key, which is made at first use and never leaves it
    Key,
    /// Enrols a host: from now on it may migrate processes here, as far as the policy lets it
    Add {
        /// What it is called here, and in the policy: [peer.NAME]
        name: Name,
        /// What `crr peer key` prints on it: SHA256:…
        fingerprint: Fingerprint,
        /// Where it listens, so that its name is enough to reach it
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<Address>,
    },
    /// Takes a host off the list: it is not let in any more, and its connections start nothing more
    Remove {
        /// What it is called here
        name: Name,
    },
    /// Lists the hosts that are enrolled
    List,
}

impl Peers {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        let Self { configured, what } = self;
        let configuration = configured.configuration();
        let enrolled = Enrolled::new(configuration.clone());
        match what {
            What::Key => key(&configuration, output),
            What::Add { name, fingerprint, address } => add(&enrolled, Peer { name, fingerprint, address }, output),
            What::Remove { name } => remove(&enrolled, &name, output),
            What::List => list(&enrolled, output),
        }
    }
}

fn key(configuration: &Configuration, output: &Output) -> Result<ExitCode, Failure> {
    let (key, made) = HostKey::open_or_make(configuration)?;
    if made {
        output.note(&format!("made the key of this host, `{}`", key.path().display()));
    }
    let fingerprint = key.fingerprint();
    let object = serde_json::json!({ "fingerprint": fingerprint.to_string(), "file": key.path(), "made": made });
    output.result(&object, &format!("{fingerprint}\n"));
    if !output.is_json() {
        output.note(&format!("on the other host: crr peer add NAME {fingerprint}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn add(enrolled: &Enrolled, peer: Peer, output: &Output) -> Result<ExitCode, Failure> {
    enrolled.add(&peer)?;
    let text = format!("enrolled {} {}\n", peer.name, peer.fingerprint);
    output.result(&object(&peer), &text);
    Ok(ExitCode::SUCCESS)
}

fn remove(enrolled: &Enrolled, name: &Name, output: &Output) -> Result<ExitCode, Failure> {
    enrolled.remove(name)?;
    output.result(&serde_json::json!({ "name": name.as_str() }), &format!("removed {name}\n"));
    Ok(ExitCode::SUCCESS)
}

fn list(enrolled: &Enrolled, output: &Output) -> Result<ExitCode, Failure> {
    let listing = enrolled.all()?;
    for error in &listing.unread {
        output.note(&format!("not let in: {error}"));
    }
    let peers: Vec<_> = listing.peers.iter().map(object).collect();
    let unread: Vec<_> = listing.unread.iter().map(ToString::to_string).collect();
    let width = listing.peers.iter().map(|peer| peer.name.as_str().len()).max().unwrap_or(0);
    let line = |peer: &Peer| {
        let address = peer.address.as_ref().map(|address| format!("  {address}")).unwrap_or_default();
        format!("{:width$}  {}{address}\n", peer.name.as_str(), peer.fingerprint)
    };
    let text: String = listing.peers.iter().map(line).collect();
    output.result(&serde_json::json!({ "peers": peers, "unread": unread }), &text);
    Ok(ExitCode::SUCCESS)
}

fn object(peer: &Peer) -> serde_json::Value {
    serde_json::json!({
        "name": peer.name.as_str(),
        "fingerprint": peer.fingerprint.to_string(),
        "address": peer.address.as_ref().map(ToString::to_string),
    })
}
