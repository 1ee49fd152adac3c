//! Generated messages. Never part of the public interface.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// CRIU's RPC: `proto/rpc.proto`.
mod generated_rpc {
    include!(concat!(env!("OUT_DIR"), "/rpc/mod.rs"));
}
/// What two crr say to each other: `proto/wire.proto`.
mod generated_wire {
    include!(concat!(env!("OUT_DIR"), "/wire/mod.rs"));
}
/// Image files: `proto/images/*.proto`.
pub(crate) mod images {
    include!(concat!(env!("OUT_DIR"), "/images/mod.rs"));
}

pub(crate) use generated_rpc::rpc;
pub(crate) use generated_wire::wire;
