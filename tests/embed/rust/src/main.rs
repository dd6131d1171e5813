// SPDX-License-Identifier: MIT
//
// Scores rows with a model that Python trained:
//
//     score MODEL.safetensors < rows.f32        the ELBO of each row, in nats, one a line
//
// Standard input holds float32 rows in the machine's own byte order.
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::io::Read;

#[repr(C)]
struct Model {
    _opaque: [u8; 0],
}

// fvae_array
#[repr(C)]
struct Array {
    struct_size: usize,
    data: *const c_void,
    dtype: c_int,
    rows: i64,
    columns: i64,
    row_stride: i64,
    streamed: i32,
}

// fvae_config
#[repr(C)]
struct Config {
    struct_size: usize,
    input_shape: *const i64,
    input_rank: usize,
    hidden: *const i64,
    hidden_count: usize,
    decoder_hidden: *const i64,
    decoder_hidden_count: usize,
    latent: i64,
    activation: c_int,
    likelihood: c_int,
    variance: c_int,
    fixed_variance: f64,
    min_variance: f64,
    init: c_int,
    uint8_scale: f64,
    columns: *const c_void,
    column_count: usize,
}

extern "C" {
    fn fvae_last_error() -> *const c_char;
    fn fvae_array_default() -> Array;
    fn fvae_config_default() -> Config;
    fn fvae_model_load(path: *const c_char, model: *mut *mut Model) -> c_int;
    fn fvae_model_free(model: *mut Model);
    fn fvae_model_elbo(model: *const Model, x: *const Array, samples: i64, seed: u64, elbo: *mut f64) -> c_int;
    fn fvae_model_config(model: *const Model, config: *mut Config) -> c_int;
}

fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // The library's message lives until this thread's next failure: copied at once.
    Err(unsafe { CStr::from_ptr(fvae_last_error()) }.to_string_lossy().into_owned())
}

struct Owned(*mut Model);

impl Drop for Owned {
    fn drop(&mut self) {
        unsafe { fvae_model_free(self.0) }
    }
}

impl Owned {
    fn load(path: &str) -> Result<Owned, String> {
        let path = CString::new(path).map_err(|_| "the path holds a NUL".to_string())?;
        let mut model = std::ptr::null_mut();
        check(unsafe { fvae_model_load(path.as_ptr(), &mut model) })?;
        Ok(Owned(model))
    }

    // Values of a row as the caller has it: the first layer reads more where a column has categories.
    fn columns(&self) -> Result<usize, String> {
        let mut config = unsafe { fvae_config_default() };
        check(unsafe { fvae_model_config(self.0, &mut config) })?;
        let shape = unsafe { std::slice::from_raw_parts(config.input_shape, config.input_rank) };
        Ok(shape.iter().product::<i64>() as usize)
    }

    fn elbo(&self, rows: &[f32], columns: usize, samples: i64, seed: u64) -> Result<Vec<f64>, String> {
        let mut scores = vec![0.0; rows.len() / columns];
        let mut x = unsafe { fvae_array_default() };
        x.data = rows.as_ptr().cast();
        x.rows = scores.len() as i64;
        x.columns = columns as i64;
        check(unsafe { fvae_model_elbo(self.0, &x, samples, seed, scores.as_mut_ptr()) })?;
        Ok(scores)
    }
}

fn run() -> Result<(), String> {
    let path = std::env::args().nth(1).ok_or("usage: score MODEL.safetensors < rows.f32")?;
    let model = Owned::load(&path)?;
    let columns = model.columns()?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() % (4 * columns) != 0 {
        return Err(format!("the input is no whole number of rows of {columns} float32"));
    }
    let rows: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
    for score in model.elbo(&rows, columns, 10, 0)? {
        println!("{score}");
    }
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("score: {message}");
        std::process::exit(1);
    }
}
