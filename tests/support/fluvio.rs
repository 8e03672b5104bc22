//! A real Fluvio cluster: one controller and one SPU on this machine, without Kubernetes, from the program `fluvio-run` that
//! `FLUVIO_RUN` names. No package carries it: it is built from Fluvio's sources.

use fluvio::metadata::customspu::CustomSpuSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::{Fluvio, FluvioAdmin, FluvioClusterConfig};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Server, free_port, said, server_dir};

static SHARED: LazyLock<FluvioCluster> = LazyLock::new(FluvioCluster::start);

/// The SPU's number.
const SPU: i32 = 5001;

/// Killed on drop.
pub struct FluvioCluster {
    _controller: Server,
    _spu: Server,
    port: u16,
}

impl FluvioCluster {
    /// One for all tests of a binary. Use topics of your own.
    pub fn shared() -> &'static FluvioCluster {
        &SHARED
    }

    /// On free ports, with its SPU online.
    pub fn start() -> FluvioCluster {
        let program = std::env::var("FLUVIO_RUN").expect("FLUVIO_RUN names the program fluvio-run, built from Fluvio's sources");
        let (dir, spu_dir) = (server_dir(), server_dir());
        let [port, private, spu_public, spu_private] = [(); 4].map(|()| free_port());
        let at = |port: u16| format!("127.0.0.1:{port}");
        let data = dir.join("data").display().to_string();
        let args = ["sc", "--local", &data, "--bind-public", &at(port), "--bind-private", &at(private)];
        let controller = Server::start(&dir, &program, &args);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let admin = runtime.block_on(connect(port, &dir));
        runtime.block_on(register(&admin, spu_public, spu_private));
        let (number, data) = (SPU.to_string(), spu_dir.join("data").display().to_string());
        let (public, private_at, controller_at) = (at(spu_public), at(spu_private), at(private));
        let args = ["spu", "-i", &number, "-p", &public, "-v", &private_at, "--sc-addr", &controller_at, "--log-base-dir", &data];
        let spu = Server::start(&spu_dir, &program, &args);
        runtime.block_on(online(&admin, &spu_dir));
        FluvioCluster { _controller: controller, _spu: spu, port }
    }

    /// `127.0.0.1:<port>`
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn connect(port: u16, dir: &std::path::Path) -> FluvioAdmin {
    let (config, until) = (FluvioClusterConfig::new(format!("127.0.0.1:{port}")), Instant::now() + Duration::from_secs(60));
    loop {
        match Fluvio::connect_with_config(&config).await {
            Ok(fluvio) => return fluvio.admin().await,
            Err(error) => assert!(Instant::now() < until, "fluvio does not answer on port {port}: {error}\n{}", said(dir)),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn register(admin: &FluvioAdmin, public: u16, private: u16) {
    let (mut spec, host) = (CustomSpuSpec { id: SPU, ..Default::default() }, "127.0.0.1".to_string());
    (spec.private_endpoint.port, spec.private_endpoint.host) = (private, host.clone());
    (spec.public_endpoint.port, spec.public_endpoint.ingress) = (public, vec![Default::default()]);
    spec.public_endpoint.ingress[0].hostname = Some(host);
    admin.create(format!("custom-spu-{SPU}"), false, spec).await.expect("the controller takes an SPU");
}

async fn online(admin: &FluvioAdmin, dir: &std::path::Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !admin.all::<SpuSpec>().await.expect("the controller answers").iter().any(|spu| spu.status.is_online()) {
        assert!(Instant::now() < until, "the SPU does not come online:\n{}", said(dir));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
