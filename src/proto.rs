//! Generated messages. Never part of the public interface.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// CRIU's RPC: `proto/rpc.proto`.
mod generated_rpc {
    include!(concat!(env!("OUT_DIR"), "/rpc/mod.rs"));
}
/// Image files: `proto/images/*.proto`.
pub(crate) mod images {
    include!(concat!(env!("OUT_DIR"), "/images/mod.rs"));
}

pub(crate) use generated_rpc::rpc;
