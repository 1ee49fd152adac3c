//! Moving a process tree to another host: exactly one copy, whatever fails.
//!
//! | module | what it is |
//! |---|---|
//! | [`journal`] | what a side writes down before it acts |
//! | [`machine`] | who may do what when: the two state machines, pure |
//! | [`words`] | which message of the wire is which word of the machines |

pub mod journal;
pub mod machine;
pub mod words;
