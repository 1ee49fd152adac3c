//! What each kind of image asks for, compared with what is allowed. One file a subject.

mod cgroup;
mod credentials;
mod file;
pub(super) mod limits;
mod memory;
mod remap;
mod socket;
mod tree;
mod uses;

use super::scene::{Findings, Scene};

/// Every rule.
pub(super) fn all(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    tree::judge(scene, findings);
    credentials::judge(scene, findings);
    file::judge(scene, findings);
    socket::judge(scene, findings);
    remap::judge(scene, findings);
    memory::judge(scene, findings);
    cgroup::judge(scene, findings);
    limits::judge(scene, findings);
}
