//! `grpc.health.v1.Health`, which says SERVING while `/readyz` answers 200, and `grpc.reflection.v1.ServerReflection` (and v1alpha),
//! which tell clients of `schemas/service.proto`.

use axum::Router;
use axum::middleware;
use axum::response::Response;
use axum::routing::post_service;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder;

use super::SCHEMA;
use crate::shim::State as Shim;
use crate::shim::queries::applied_once;
use crate::shim::server::stopped;

/// What answers how the service is.
pub type Server = HealthServer<HealthService>;

/// All of it, and the service by its name.
const NAMES: [&str; 2] = ["", "overdrive.v1.Recommender"];
/// How often the store is asked.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a question to them at most: they are for everybody, and what is asked is said again in the answer.
const QUESTION: usize = 4 * 1024;

/// Marks an answer that may go on for as long as its connection.
#[derive(Clone, Copy)]
pub struct Lasting;

/// Tells whoever asks or watches how the store is, until `shutdown`; then that it is not there, and watches end.
pub async fn follow(shim: Arc<Shim>, mut reporter: HealthReporter, mut shutdown: watch::Receiver<bool>) {
    let mut last = ServingStatus::Unknown;
    loop {
        let applied = tokio::select! {
            applied = shim.reader.applied() => applied,
            () = stopped(&mut shutdown) => break,
        };
        let ready = applied.is_ok_and(|applied| applied_once(&applied));
        let now = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        if std::mem::replace(&mut last, now) != now {
            tell(&reporter, now).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut shutdown) => break,
        }
    }
    tell(&reporter, ServingStatus::NotServing).await;
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
}

/// A report that says NOT_SERVING so far, and what answers it.
pub async fn report() -> (HealthReporter, Server) {
    let reporter = HealthReporter::new();
    tell(&reporter, ServingStatus::NotServing).await;
    (reporter.clone(), HealthServer::new(HealthService::from_health_reporter(reporter)))
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    for name in NAMES {
        reporter.set_service_status(name, status).await;
    }
}

/// The routes, and those of health and reflection.
pub fn routes(routes: Router<Arc<Shim>>, health: Server) -> Router<Arc<Shim>> {
    let schema = || {
        let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
        Builder::configure().register_encoded_file_descriptor_set(SCHEMA).register_encoded_file_descriptor_set(health)
    };
    let sound = "a test reads the schema";
    let v1 = schema().build_v1().expect(sound).max_decoding_message_size(QUESTION);
    let v1alpha = schema().build_v1alpha().expect(sound).max_decoding_message_size(QUESTION);
    let lasting = async |mut answer: Response| {
        answer.extensions_mut().insert(Lasting);
        answer
    };
    let health = post_service(health.max_decoding_message_size(QUESTION));
    routes
        .route("/grpc.health.v1.Health/Watch", health.clone().layer(middleware::map_response(lasting)))
        .route("/grpc.health.v1.Health/{method}", health)
        .route("/grpc.reflection.v1.ServerReflection/{method}", post_service(v1))
        .route("/grpc.reflection.v1alpha.ServerReflection/{method}", post_service(v1alpha))
}
