//! Writes the place of libtorch into the binary, so that it starts without `LD_LIBRARY_PATH`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let unix = env::var_os("CARGO_CFG_UNIX").is_some();
    let wanted = env::var_os("CARGO_FEATURE_LIBTORCH").is_some();
    if let (true, true, Ok(folder)) = (unix, wanted, env::var("LIBTORCH")) {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{folder}/lib");
    }
}
