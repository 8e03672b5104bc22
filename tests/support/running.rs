//! `overdrive run` as somebody starts it: settings in a file, a folder of its own, and a shim that is asked over HTTP.

use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use crate::client::{get, post};
use crate::support::{free_port, until};

/// Killed when dropped.
pub struct Running {
    pub child: Child,
    pub shim: SocketAddr,
}

impl Running {
    /// Starts it in a folder, by its `settings.toml` and these variables; yields when it is ready.
    pub fn start(dir: &Path, env: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        command.arg("run").arg("--config").arg(dir.join("settings.toml")).current_dir(dir).envs(env.iter().copied());
        command.env("OVERDRIVE_STATE_DIR", dir.join("state")).env("OVERDRIVE_SERVICE_PORT", port.to_string());
        command.env("OVERDRIVE_SERVICE__GRPC_PORT", "0");
        let run = Self { child: command.spawn().expect("the binary starts"), shim: SocketAddr::from(([127, 0, 0, 1], port)) };
        until("it listens", || TcpStream::connect(run.shim).is_ok().then_some(()));
        until("it is ready", || (get(run.shim, "/readyz").status == 200).then_some(()));
        run
    }

    /// Sends records, of which none is rejected; yields the token of the last write.
    pub fn send(&self, path: &str, records: &[Value]) -> String {
        let mut token = Value::Null;
        for batch in records.chunks(500) {
            let answer = post(self.shim, path, &Value::from(batch).to_string());
            assert_eq!((answer.status, answer.json()["rejected"].as_array().map(Vec::len)), (202, Some(0)), "{}", answer.body);
            token = answer.json()["token"].take();
        }
        token.as_str().expect("something was accepted").to_string()
    }

    /// `kill -9`; yields when the state is nobody's. (The engine ends with its supervisor.)
    pub fn kill(mut self, dir: &Path) {
        self.end();
        let free = || std::fs::File::open(dir.join("state/state/lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        until("the engine is gone", || free().then_some(()));
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
