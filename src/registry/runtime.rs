//! ONNX Runtime in this process: its library, loaded once, and sessions that keep to one thread.

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The library, loaded once in a process.
pub fn environment(library: &str) -> Result<&'static Environment, String> {
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
pub fn session(environment: &Environment, bytes: &[u8]) -> Result<Session, String> {
    builder(environment).and_then(|mut builder| builder.commit_from_memory(bytes)).map_err(refused)
}

/// A session of a model in a file, with what lies beside it.
pub fn session_of(environment: &Environment, path: &Path) -> Result<Session, String> {
    builder(environment).and_then(|mut builder| builder.commit_from_file(path)).map_err(refused)
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
