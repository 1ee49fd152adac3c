//! A restore for which all is ready that does not depend on the images.

use std::iter;

use super::begin::begin;
use super::request::Request;
use super::restoring::Restoring;
use super::worker::Worker;
use crate::criu::{InetSockets, Search};
use crate::error::Result;
use crate::request::Tcp;
use crate::swrk::Programs;

/// A restore whose images are not there yet.
#[derive(Debug)]
pub struct Prepared {
    request: Request,
}

/// Prepares a restore before there are images: finds CRIU and starts it. [`Prepared::begin`] then takes as long as it takes to
/// look at the images and to restore them.
///
/// Where the images call for a CRIU that was started in another way, such as one on a shell's terminal, another is started.
///
/// # Errors
/// [`Error::NoCriu`](crate::Error::NoCriu) and [`Error::Spawn`](crate::Error::Spawn).
///
/// # Cancellation
/// Dropping the future, or what it gives, leaves nothing.
pub async fn prepare(mut request: Request) -> Result<Prepared> {
    if request.copy.is_none() && request.surroundings.is_none() {
        let search = Search::new(request.criu.clone(), std::env::var_os("PATH").as_deref());
        let chosen = search.choose(InetSockets::Unknown).await?;
        let programs = match (&request.options.config_file, request.options.tcp) {
            (None, Tcp::Refuse) => Programs::NoIptables,
            _ => Programs::All,
        };
        let worker = Worker::start_ahead(&chosen, &request.options, iter::empty(), programs, None)?;
        request.worker = Some(worker);
    }
    Ok(Prepared { request })
}

impl Prepared {
    /// Begins it: the images are there.
    ///
    /// # Errors
    /// As [`begin`].
    ///
    /// # Cancellation
    /// As [`begin`].
    pub async fn begin(self) -> Result<Restoring> {
        begin(self.request).await
    }
}
