//! What is done about cgroups.

use serde::{Deserialize, Serialize};

use crate::proto::rpc::{Cgroup_root, Criu_cg_mode, Criu_opts};

/// How far CRIU manages cgroups: `--manage-cgroups=MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupMode {
    /// Not at all: restored tasks stay where the restorer is.
    Ignore,
    /// Cgroups must exist; properties are left alone.
    None,
    /// Cgroups must exist; their properties are restored.
    Props,
    /// What exists is left alone; what does not is made, with its properties.
    Soft,
    /// All is made and all properties are restored.
    Full,
    /// As `Full`, and none may exist yet.
    Strict,
}

/// A new root for the recorded cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupRoot {
    /// The controller; `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// The path of the new root within the hierarchy.
    pub path: String,
}

/// Everything about cgroups that dump and restore share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupOptions {
    /// `None`: CRIU's default, which ignores cgroups.
    pub mode: Option<CgroupMode>,
    /// New roots.
    pub roots: Vec<CgroupRoot>,
    /// A directory that has the controllers mounted: `--cgroup-yard`. An absolute path.
    pub yard: Option<String>,
}

impl CgroupOptions {
    pub(super) fn write(&self, opts: &mut Criu_opts) {
        let Self { mode, roots, yard } = self;
        if let Some(mode) = mode {
            opts.set_manage_cgroups_mode(match mode {
                CgroupMode::Ignore => Criu_cg_mode::IGNORE,
                CgroupMode::None => Criu_cg_mode::CG_NONE,
                CgroupMode::Props => Criu_cg_mode::PROPS,
                CgroupMode::Soft => Criu_cg_mode::SOFT,
                CgroupMode::Full => Criu_cg_mode::FULL,
                CgroupMode::Strict => Criu_cg_mode::STRICT,
            });
        }
        for CgroupRoot { controller, path } in roots {
            let mut root = Cgroup_root::new();
            root.ctrl.clone_from(controller);
            root.set_path(path.clone());
            opts.cg_root.push(root);
        }
        opts.cgroup_yard.clone_from(yard);
    }
}
