//! ONNX Runtime in this process: its library, loaded once, and sessions that keep to one thread, on the CPU or on a GPU.
//!
//! The fact that must stay true: nothing runs on the CPU in silence that was to run on the GPU.

use ort::environment::Environment;
use ort::ep::CUDA;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Device, Onnx};

/// The library, loaded once in a process.
fn environment(library: &str) -> Result<&'static Environment, String> {
    static LOADED: OnceLock<Result<Environment, String>> = OnceLock::new();
    let path = match library {
        "" => std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from),
        path => Some(PathBuf::from(path)),
    };
    let advice = "scripts/fetch-onnxruntime.sh gets the library; name it in onnx.library or ORT_DYLIB_PATH";
    let path = path.ok_or(format!("no library of ONNX Runtime is named; {advice}"))?;
    let load = || {
        let builder = ort::init_from(&path).map_err(|e| format!("{} cannot be loaded: {e}; {advice}", path.display()))?;
        builder.with_telemetry(false).build().map_err(|e| format!("ONNX Runtime does not start: {e}"))
    };
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// A session of a model in memory.
pub fn session(onnx: &Onnx, bytes: &[u8]) -> Result<Session, String> {
    open(onnx, &|mut builder| builder.commit_from_memory(bytes))
}

/// A session of a model in a file, with what lies beside it.
pub fn session_of(onnx: &Onnx, path: &Path) -> Result<Session, String> {
    open(onnx, &|mut builder| builder.commit_from_file(path))
}

/// What the models of this process run on, as the first showed that was opened, and why not on a GPU where one was looked for.
static RUNS_ON: OnceLock<(Device, Option<String>)> = OnceLock::new();

/// What the models of this process run on; `None`: none was opened yet.
pub fn runs_on() -> Option<(Device, Option<String>)> {
    RUNS_ON.get().cloned()
}

fn open(onnx: &Onnx, commit: &dyn Fn(SessionBuilder) -> ort::Result<Session>) -> Result<Session, String> {
    let environment = environment(&onnx.library)?;
    let on_cpu = |why: Option<String>| {
        let opened = builder(environment).and_then(commit).map_err(refused)?;
        RUNS_ON.get_or_init(|| (Device::Cpu, why));
        Ok(opened)
    };
    let on_gpu = || {
        let opened = builder(environment).and_then(with_gpu).and_then(commit)?;
        RUNS_ON.get_or_init(|| (Device::Cuda, None));
        Ok(opened)
    };
    let unusable = |e: ort::Error| format!("the GPU cannot be used: {}; {ADVICE}", e.to_string().trim());
    match (onnx.device, RUNS_ON.get()) {
        (Device::Cpu, _) | (Device::Auto, Some((Device::Cpu, _))) => on_cpu(None),
        (Device::Cuda, _) | (Device::Auto, Some(_)) => on_gpu().map_err(unusable),
        // what runs nowhere is the model's fault and not the GPU's
        (Device::Auto, None) => on_gpu().or_else(|why: ort::Error| on_cpu(Some(why.to_string().trim().to_string()))),
    }
}

const ADVICE: &str = "give the library of ONNX Runtime for CUDA (scripts/fetch-onnxruntime.sh gpu), what it needs beside it and a GPU, or set \
                      onnx.device = \"auto\"";

fn with_gpu(builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    Ok(builder.with_execution_providers([CUDA::default().build().error_on_failure()])?)
}

/// One thread, which does not spin.
fn builder(environment: &Environment) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?.with_intra_threads(1)?.with_inter_threads(1)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All)?;
    Ok(builder.with_intra_op_spinning(false)?.with_inter_op_spinning(false)?)
}

fn refused(error: ort::Error) -> String {
    format!("ONNX Runtime refuses it: {error}")
}
