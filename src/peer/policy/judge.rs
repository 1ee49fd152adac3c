//! All that a set of images asks for and its sender may not have.

use super::Policy;
use super::rules::{self, limits};
use super::scene::{Findings, Scene};
use super::violation::Violation;
use crate::error::Result;
use crate::images::Images;

/// Compares images with a policy, before CRIU is started. Everything that is not allowed is in the list, which is empty when
/// they may be restored. Nothing may write to the directory from now until CRIU has read it. An unrestricted peer is held to its limits only.
///
/// # Errors
/// Only when the directory cannot be listed; what cannot be read or understood is a violation.
pub fn judge(images: &Images, policy: &Policy) -> Result<Vec<Violation>> {
    let mut findings = Findings::new(policy.section());
    if policy.is_unrestricted() {
        limits::of_unrestricted(policy.limits(), images, &mut findings)?;
        return Ok(findings.into_violations());
    }
    let mut scene = Scene::new(policy.restrictions());
    scene.read(images, &mut findings)?;
    rules::all(&scene, &mut findings);
    Ok(findings.into_violations())
}
