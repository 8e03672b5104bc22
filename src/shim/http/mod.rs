//! The routes: one table, from which the router and the list of what is served are made.

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;

use super::guard::{self, Protocol};
use super::{Refusal, Scope, State};

mod about;
mod aliases;
pub mod body;
mod etag;
mod experiments;
mod feeds;
mod ingest;
mod models;
mod pages;
mod params;
mod rank;
mod status;
mod views;

/// One route: method, path as axum and OpenAPI write it, what a token must be for, handler.
struct Route {
    method: &'static str,
    path: &'static str,
    scope: Option<Scope>,
    handler: MethodRouter<Arc<State>>,
}

/// For everybody, token or none.
fn open<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: "get", path, scope: None, handler: get(handler) }
}

fn read<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: "get", path, scope: Some(Scope::Read), handler: get(handler) }
}

fn write<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: "post", path, scope: Some(Scope::Write), handler: post(handler) }
}

/// What only operators may ask for.
fn admin<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { scope: Some(Scope::Admin), ..write(path, handler) }
}

/// A question too large for a query.
fn ask<H: Handler<T, Arc<State>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { scope: Some(Scope::Read), ..write(path, handler) }
}

/// Ours; the aliases are apart.
fn own_routes() -> Vec<Route> {
    vec![
        write("/v1/events", ingest::events),
        write("/v1/items", ingest::items),
        write("/v1/users", ingest::users),
        read("/v1/feeds/{surface}/{user}", feeds::feed),
        read("/v1/feeds/for-you", feeds::for_you),
        ask("/v1/feeds/{surface}", feeds::feeds),
        ask("/v1/rank", rank::rank),
        read("/v1/users/{user}/features", views::user_features),
        read("/v1/users/{user}/interests", views::interests),
        read("/v1/users/{user}/activity", about::activity),
        read("/v1/users/{user}/insights", about::insights),
        read("/v1/users/{user}/export", about::export),
        read("/v1/receipts/{token}", about::receipt),
        Route { method: "delete", path: "/v1/users/{user}", scope: Some(Scope::Write), handler: delete(ingest::forget) },
        read("/v1/items/{item}/features", views::item_features),
        read("/v1/items/{item}/neighbours", views::neighbours),
        read("/v1/trending/{scope}", views::trending),
        read("/v1/models", models::models),
        admin("/v1/models/{name}/promote", models::promote),
        admin("/v1/models/{name}/train", models::train),
        read("/v1/experiments", experiments::experiments),
        read("/v1/experiments/{name}", experiments::experiment),
        read("/v1/stats", status::stats),
        open("/health", status::health),
        open("/livez", status::livez),
        open("/readyz", status::readyz),
        read("/metrics", status::metrics),
        open("/openapi.json", pages::openapi),
        open("/docs", pages::docs),
        open("/", pages::index),
        open("/console.css", pages::css),
        open("/console.js", pages::js),
    ]
}

fn routes() -> Vec<Route> {
    own_routes().into_iter().chain(aliases::routes()).collect()
}

/// Method (small letters) and path of every route that is served.
pub fn served() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|route| (route.method, route.path)).collect()
}

/// All routes over one state, each request guarded.
pub fn router(state: Arc<State>) -> Router {
    let guarded = |route: Route| match route.scope {
        Some(scope) => {
            let admit = middleware::from_fn_with_state((state.clone(), Protocol::Http, scope), guard::admit);
            route.handler.route_layer(admit)
        }
        None => route.handler,
    };
    let routes = routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, guarded(route)));
    routes
        .fallback(|| async { Refusal::unknown("not_found", "there is nothing under this path; /docs lists what there is") })
        .method_not_allowed_fallback(|| async {
            let message = "this path does not take this method; /docs lists what it takes";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(middleware::from_fn_with_state((state.clone(), Protocol::Http), guard::guard))
        .layer(middleware::map_response(of_the_moment))
        .with_state(state)
}

/// Answers are of the moment, and what they are is said.
async fn of_the_moment(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What a scraper asks for, without a store or a log.
pub fn metrics_router(recorder: PrometheusHandle) -> Router {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let metrics = move || async move { (text, recorder.render()) };
    Router::new().route("/metrics", get(metrics)).route("/livez", get(|| async { "ok" }))
}
