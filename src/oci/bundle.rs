//! A bundle: a directory with a config.json and a root file system.

use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use super::file::{self, wrong};
use super::problem::Problem;
use super::spec::Spec;
use crate::error::{Error, Result};

/// A bundle: a directory with a config.json and a root file system, both looked at.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    rootfs: PathBuf,
    spec: Spec,
}

impl Bundle {
    /// Opens the bundle in the directory `path`.
    ///
    /// # Errors
    /// [`Error::Container`] if there is no config.json or it is wrong, or the root file system is no directory;
    /// [`Error::Io`] if the directory is not there or something cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(Error::io("open the bundle", path))?;
        let config = path.join(Spec::NAME);
        if !config.exists() {
            return Err(wrong(&path, Problem::NoBundle));
        }
        let spec = Spec::parse(file::read(&config)?, &config)?;
        // runc refuses a root file system that is named through a symbolic link.
        let named = spec.rootfs(&path);
        let rootfs = named.canonicalize().unwrap_or_else(|_| named.clone());
        if !rootfs.is_dir() {
            return Err(wrong(&config, Problem::NoRootfs(named)));
        }
        Ok(Self { path, rootfs, spec })
    }

    /// The directory, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root file system, absolute and without symbolic links.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// Its config.json.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What a container of this bundle is made of.
    pub fn configuration(&self) -> Configuration {
        Configuration { rootfs: self.rootfs.clone(), ..self.spec.configuration(&self.path) }
    }
}
