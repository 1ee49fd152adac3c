//! Moving a process tree to another host: exactly one copy, whatever fails.
//!
//! | module | what it is |
//! |---|---|
//! | [`machine`] | who may do what when: the two state machines, pure |

pub mod machine;
