// SPDX-License-Identifier: MIT
//
// FUSEDVAE_LIB names the folder of the installed library: `python -m fusedvae --libs`, or PREFIX/lib.
fn main() {
    let folder = std::env::var("FUSEDVAE_LIB").expect("FUSEDVAE_LIB must name the folder of libfusedvae.so");
    println!("cargo:rerun-if-env-changed=FUSEDVAE_LIB");
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-lib=dylib=fusedvae");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}
