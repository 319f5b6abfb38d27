//! Compiles every `.proto` below `proto/` into Rust and into a descriptor set, without
//! an external compiler.

use prost::Message;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    walk(Path::new("proto"), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    for file in &files {
        compiler.open_file(file)?;
    }
    // The encoded form keeps what the decoded struct would drop.
    let encoded = compiler.encode_file_descriptor_set();
    let set = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &encoded)?;

    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        .btree_map(["."])
        // Rare, and five sixths of the size of a resource, of which every task and agent has some.
        .boxed(".mesos.v1.Resource.disk")
        .boxed(".mesos.v1.Resource.reservation")
        .enable_type_names()
        .include_file("packages.rs");
    tonic_prost_build::configure()
        // A method named `Connect` would collide with the generated constructor.
        .build_transport(false)
        .codec_path("crate::codec::SmallBuffers")
        .compile_fds_with_config(set, config)?;
    Ok(())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|it| it == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
