//! Memory pages over a socket.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::proto::rpc::{Criu_opts, Criu_page_server_info};

use super::images::{ImageDirectory, Log};

/// Where a dump sends memory instead of writing pages files.
#[derive(Debug)]
pub enum PagesTo {
    /// To the page server at this address and TCP port.
    Address {
        /// A name or address.
        address: String,
        /// A TCP port.
        port: u16,
    },
    /// To the page server at the other end of this connected stream socket.
    Socket(OwnedFd),
}

impl PagesTo {
    pub(super) fn write(&self, opts: &mut Criu_opts) {
        let mut info = Criu_page_server_info::new();
        match self {
            Self::Address { address, port } => {
                info.set_address(address.clone());
                info.set_port(i32::from(*port));
            }
            Self::Socket(socket) => info.set_fd(socket.as_raw_fd()),
        }
        opts.ps = Some(info).into();
    }

    /// The descriptor that CRIU must inherit.
    pub(crate) fn inherited(&self) -> Option<&OwnedFd> {
        match self {
            Self::Address { .. } => None,
            Self::Socket(socket) => Some(socket),
        }
    }
}

/// Where a page server takes its connection.
#[derive(Debug)]
pub enum Listen {
    /// On this address (`None`: all) and TCP port (0: CRIU picks one and tells).
    Address {
        /// A name or address.
        address: Option<String>,
        /// A TCP port.
        port: u16,
    },
    /// From this connected stream socket.
    Socket(OwnedFd),
}

/// Keys and certificates, as paths. Needs a CRIU built with GnuTLS; not applied to an inherited socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authority's certificate; CRIU's default is below /etc/pki.
    pub cacert: Option<String>,
    /// Revoked certificates.
    pub cacrl: Option<String>,
    /// The own certificate.
    pub cert: Option<String>,
    /// The own key.
    pub key: Option<String>,
    /// Whether the peer's name must be the one in its certificate.
    pub verify: VerifyName,
}

/// Whether the peer's name is compared with its certificate's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyName {
    /// It is.
    #[default]
    Verify,
    /// It is not: `--tls-no-cn-verify`.
    Accept,
}

impl Tls {
    pub(super) fn write(&self, opts: &mut Criu_opts) {
        let Self { cacert, cacrl, cert, key, verify } = self;
        opts.set_tls(true);
        opts.tls_cacert.clone_from(cacert);
        opts.tls_cacrl.clone_from(cacrl);
        opts.tls_cert.clone_from(cert);
        opts.tls_key.clone_from(key);
        if *verify == VerifyName::Accept {
            opts.set_tls_no_cn_verify(true);
        }
    }
}

/// Options of a page server that stays a child of the CRIU process it was asked of.
#[derive(Debug)]
pub struct PageServerOptions {
    /// Where the sender connects.
    pub listen: Listen,
    /// The directory of the parent images, relative to the image directory.
    pub parent: Option<String>,
    /// Whether pages that this iteration replaces are punched out of the parent's files.
    pub auto_dedup: bool,
    /// Keys and certificates; `None`: plain TCP.
    pub tls: Option<Tls>,
    /// CRIU's log.
    pub log: Log,
}

impl PageServerOptions {
    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> crate::Result<Criu_opts> {
        let Self { listen, parent, auto_dedup, tls, log } = self;
        log.check()?;
        let mut opts = Criu_opts::new();
        directory.write(&mut opts);
        log.write(&mut opts);
        let mut info = Criu_page_server_info::new();
        match listen {
            Listen::Address { address, port } => {
                info.address.clone_from(address);
                info.set_port(i32::from(*port));
            }
            Listen::Socket(socket) => info.set_fd(socket.as_raw_fd()),
        }
        opts.ps = Some(info).into();
        opts.parent_img.clone_from(parent);
        if *auto_dedup {
            opts.set_auto_dedup(true);
        }
        if let Some(tls) = tls {
            tls.write(&mut opts);
        }
        Ok(opts)
    }

    pub(crate) fn inherited(&self) -> Option<&OwnedFd> {
        match &self.listen {
            Listen::Address { .. } => None,
            Listen::Socket(socket) => Some(socket),
        }
    }
}
