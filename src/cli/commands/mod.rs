//! One file a command.

pub(crate) mod check;
pub(crate) mod check_tree;
pub(crate) mod completions;
pub(crate) mod dump;
pub(crate) mod explain;
pub(crate) mod man;
pub(crate) mod peer;
pub(crate) mod restore;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod unlock;
