//! Generates the protobuf messages of CRIU's RPC and image files and of crr's own protocol, without protoc.

use std::path::PathBuf;

fn main() {
    generate("rpc", vec![PathBuf::from("proto/rpc.proto")], "proto");
    generate("wire", vec![PathBuf::from("proto/wire.proto")], "proto");
    let mut images: Vec<PathBuf> = std::fs::read_dir("proto/images")
        .expect("proto/images is part of the source")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "proto"))
        .collect();
    images.sort();
    generate("images", images, "proto/images");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
}

fn generate(module: &str, inputs: Vec<PathBuf>, include: &str) {
    protobuf_codegen::Codegen::new().pure().include(include).inputs(inputs).cargo_out_dir(module).run_from_script();
}
