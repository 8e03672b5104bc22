//! The shim over gRPC: `schemas/service.proto`, with health and reflection. Each method takes its request apart, asks the query that
//! the route of HTTP asks too, and puts the answer together.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use prost::Message;
use std::future::Future;
use std::sync::Arc;

use super::access::Who;
use super::guard::{self, Caller, Protocol};
use super::queries::asked::{self, Unchecked, parse_surface};
use super::queries::candidates::Proposed;
use super::queries::feeds::{self, Asked};
use super::queries::rank::{self, Also, Mature, order};
use super::queries::{about, experiments, ingest, models, stats, views};
use super::{Refusal, Scope, State as Shim, Token};
use crate::model::Role;

mod answers;
mod health;
mod message;
mod proto;

pub use health::{Lasting, follow, report};
pub use message::{patience, refuse};

/// `schemas/service.proto` and what it imports, compiled: a test compares them.
const SCHEMA: &[u8] = include_bytes!("../../../schemas/service.binpb");

/// One method: its path, what a token must be for, what answers it.
struct Route {
    path: &'static str,
    scope: Scope,
    method: Method,
}

/// What answers a method, and whether a body has a request of it.
struct Method {
    handler: MethodRouter<Arc<Shim>>,
    reads: fn(&[u8]) -> bool,
}

fn routes() -> Vec<Route> {
    let read = |path, method| Route { path, scope: Scope::Read, method };
    let write = |path, method| Route { path, scope: Scope::Write, method };
    let admin = |path, method| Route { path, scope: Scope::Admin, method };
    vec![
        read("/overdrive.v1.Recommender/GetFeed", unary(feed)),
        read("/overdrive.v1.Recommender/BatchGetFeeds", unary(batch)),
        read("/overdrive.v1.Recommender/Rank", unary(rank)),
        read("/overdrive.v1.Recommender/GetItemNeighbours", unary(neighbours)),
        read("/overdrive.v1.Recommender/GetTrending", unary(trending)),
        read("/overdrive.v1.Recommender/GetUserFeatures", unary(user_features)),
        read("/overdrive.v1.Recommender/GetItemFeatures", unary(item_features)),
        read("/overdrive.v1.Recommender/GetUserInterests", unary(interests)),
        read("/overdrive.v1.Recommender/GetUserActivity", unary(activity)),
        read("/overdrive.v1.Recommender/GetUserInsights", unary(insights)),
        read("/overdrive.v1.Recommender/ExportUser", unary(export)),
        read("/overdrive.v1.Recommender/GetExperiments", unary(experiments)),
        read("/overdrive.v1.Recommender/GetModels", unary(models)),
        admin("/overdrive.v1.Recommender/PromoteModel", unary(promote)),
        admin("/overdrive.v1.Recommender/TrainModel", unary(train)),
        read("/overdrive.v1.Recommender/GetStats", unary(stats)),
        write("/overdrive.v1.Recommender/SendEvents", unary(send::<EVENTS>)),
        write("/overdrive.v1.Recommender/SendItems", unary(send::<ITEMS>)),
        write("/overdrive.v1.Recommender/SendUsers", unary(send::<USERS>)),
        write("/overdrive.v1.Recommender/ForgetUser", unary(forget)),
        read("/overdrive.v1.Recommender/GetReceipt", unary(receipt)),
    ]
}

/// The path of every method, and whether a body has a request of it.
pub fn readers() -> Vec<(&'static str, fn(&[u8]) -> bool)> {
    routes().into_iter().map(|route| (route.path, route.method.reads)).collect()
}

/// All methods over one state, each request guarded; and what reports how it is, which is for everybody, as reflection is.
pub fn router(state: Arc<Shim>, health: health::Server) -> Router {
    let guarded = |Route { path: _, scope, method }: Route| {
        method.handler.route_layer(middleware::from_fn_with_state((state.clone(), Protocol::Grpc, scope), guard::admit))
    };
    let routes = routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, guarded(route)));
    let unknown = || async {
        let message = "there is no such method here; reflection and schemas/service.proto say what there is";
        refuse(Refusal::new(StatusCode::NOT_IMPLEMENTED, "unimplemented", message))
    };
    health::routes(routes, health)
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(middleware::from_fn_with_state((state.clone(), Protocol::Grpc), guard::guard))
        .with_state(state)
}

/// A method with one request and one answer.
fn unary<M, R, F, A>(answer: F) -> Method
where
    M: Message + Default + 'static,
    R: Message,
    F: Fn(Arc<Shim>, Caller, M) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<R, Refusal>> + Send,
{
    let handler = post(async move |State(shim): State<Arc<Shim>>, request: Request| -> Response {
        let answer = async {
            let caller = Caller::of(request.extensions(), request.headers())?;
            let asked = message::taken(request, shim.params.body_limit).await?;
            answer(shim, caller, asked).await
        };
        answer.await.map_or_else(refuse, |answer| message::given(&answer))
    });
    Method { handler, reads: |body| message::read::<M>(Bytes::copy_from_slice(body)).is_ok() }
}

async fn feed(shim: Arc<Shim>, caller: Caller, asked: proto::GetFeedRequest) -> Result<proto::Feed, Refusal> {
    let proto::GetFeedRequest { surface, user_id, k, cursor, exclude, explain, at_least, category, language, position } = asked;
    let unchecked = Unchecked { cursor: sent(cursor), ..unchecked(k, exclude, explain, category, language, position) };
    let found = found(&shim, &caller, &surface, vec![user_id], unchecked, &at_least).await?;
    Ok(found.into_iter().next().expect("one was asked for"))
}

async fn batch(shim: Arc<Shim>, caller: Caller, asked: proto::BatchGetFeedsRequest) -> Result<proto::Feeds, Refusal> {
    let proto::BatchGetFeedsRequest { surface, user_ids, k, exclude, explain, at_least, category, language, position } = asked;
    let unchecked = unchecked(k, exclude, explain, category, language, position);
    Ok(proto::Feeds { feeds: found(&shim, &caller, &surface, user_ids, unchecked, &at_least).await? })
}

fn unchecked(
    k: Option<u32>,
    exclude: Vec<String>,
    explain: bool,
    category: String,
    language: String,
    position: Option<proto::Position>,
) -> Unchecked {
    Unchecked {
        k: k.map(|k| k as usize),
        cursor: None,
        category: sent(category),
        language: sent(language),
        lat: position.map(|position| position.lat),
        lon: position.map(|position| position.lon),
        local_preference: position.and_then(|position| position.local_preference),
        explain,
        exclude,
    }
}

async fn found(
    shim: &Shim,
    caller: &Caller,
    surface: &str,
    users: Vec<String>,
    unchecked: Unchecked,
    at_least: &str,
) -> Result<Vec<proto::Feed>, Refusal> {
    let users = feeds::users(shim, &caller.who, users)?;
    asked::check_id(surface, shim.params.max_id_bytes)?;
    let kind = parse_surface(if surface.is_empty() { "home" } else { surface }, &shim.rules)?;
    let token = token(at_least)?;
    let wanted = unchecked.checked(&shim.params)?;
    let asked = Asked::new(kind, &wanted, caller)?;
    let found = feeds::find(shim, asked, &users, token.as_ref(), false).await?;
    Ok(users.iter().enumerate().map(|(at, user)| found.feed(at, user, &asked).into()).collect())
}

async fn rank(shim: Arc<Shim>, caller: Caller, asked: proto::RankRequest) -> Result<proto::Ranking, Refusal> {
    let proto::RankRequest { user_id, items, k, explain, seen, mature, at_least } = asked;
    let token = token(&at_least)?;
    let items = items.iter().map(|item| Proposed::Item(item[..].into())).collect();
    let (k, also) = (k.map(|k| k as usize), Also { seen, mature: Mature::asked(mature) });
    let asked = rank::Asked { k, explain, also, ..rank::Asked::of(user_id, items) };
    Ok(order(&shim, &caller, asked, token.as_ref()).await?.into())
}

async fn neighbours(shim: Arc<Shim>, _: Caller, asked: proto::Of) -> Result<proto::ItemNeighbours, Refusal> {
    let (item, token) = (item(&shim, asked.id)?, token(&asked.at_least)?);
    Ok(views::neighbours(&shim, &item, token.as_ref()).await?.into())
}

async fn trending(shim: Arc<Shim>, _: Caller, asked: proto::GetTrendingRequest) -> Result<proto::Trending, Refusal> {
    let proto::GetTrendingRequest { scope, k, at_least } = asked;
    asked::check_id(&scope, shim.params.max_id_bytes)?;
    let wanted = Unchecked { k: k.map(|k| k as usize), ..Unchecked::default() }.checked(&shim.params)?;
    let scope = if scope.is_empty() { "global" } else { &scope };
    Ok(views::trending(&shim, scope, wanted.k, token(&at_least)?.as_ref()).await?.into())
}

async fn user_features(shim: Arc<Shim>, caller: Caller, asked: proto::Of) -> Result<proto::Features, Refusal> {
    let (user, token) = (user(&shim, &caller.who, asked.id)?, token(&asked.at_least)?);
    Ok(views::user_features(&shim, &user, token.as_ref()).await?.into())
}

async fn item_features(shim: Arc<Shim>, _: Caller, asked: proto::Of) -> Result<proto::Features, Refusal> {
    let (item, token) = (item(&shim, asked.id)?, token(&asked.at_least)?);
    Ok(views::item_features(&shim, &item, token.as_ref()).await?.into())
}

async fn interests(shim: Arc<Shim>, caller: Caller, asked: proto::Of) -> Result<proto::UserInterests, Refusal> {
    let (user, token) = (user(&shim, &caller.who, asked.id)?, token(&asked.at_least)?);
    Ok(views::interests(&shim, &user, token.as_ref()).await?.into())
}

async fn activity(shim: Arc<Shim>, caller: Caller, asked: proto::GetUserActivityRequest) -> Result<proto::UserActivity, Refusal> {
    let proto::GetUserActivityRequest { user_id, k, at_least } = asked;
    let user = user(&shim, &caller.who, user_id)?;
    let wanted = Unchecked { k: k.map(|k| k as usize), ..Unchecked::default() }.checked(&shim.params)?;
    Ok(about::activity(&shim, &user, wanted.k, token(&at_least)?.as_ref()).await?.into())
}

async fn insights(shim: Arc<Shim>, caller: Caller, asked: proto::Of) -> Result<proto::UserInsights, Refusal> {
    let (user, token) = (user(&shim, &caller.who, asked.id)?, token(&asked.at_least)?);
    Ok(about::insights(&shim, &user, token.as_ref()).await?.into())
}

async fn export(shim: Arc<Shim>, caller: Caller, asked: proto::OfUser) -> Result<proto::UserExport, Refusal> {
    let user = user(&shim, &caller.who, asked.user_id)?;
    Ok(about::export(&shim, &user, &caller).await?.into())
}

async fn experiments(shim: Arc<Shim>, caller: Caller, asked: proto::OfName) -> Result<proto::Experiments, Refusal> {
    match name(&shim, asked)? {
        None => Ok(experiments::experiments(&shim, &caller.who).await?.into()),
        Some(name) => Ok(experiments::experiment(&shim, &caller.who, &name).await?.into()),
    }
}

async fn models(shim: Arc<Shim>, caller: Caller, _: proto::Nothing) -> Result<proto::Models, Refusal> {
    Ok(models::models(&shim, &caller.who).await?.into())
}

async fn promote(shim: Arc<Shim>, caller: Caller, asked: proto::OfName) -> Result<proto::Receipt, Refusal> {
    let version = asked::named("name", asked.name, &shim.params)?;
    Ok(models::promote(&shim, &caller, version).await?.into())
}

async fn train(shim: Arc<Shim>, caller: Caller, asked: proto::OfName) -> Result<proto::Receipt, Refusal> {
    Ok(models::train(&shim, &caller, name(&shim, asked)?).await?.into())
}

async fn stats(shim: Arc<Shim>, caller: Caller, _: proto::Nothing) -> Result<proto::Stats, Refusal> {
    Ok(stats::stats(&shim, &caller.who).await?.into())
}

async fn receipt(shim: Arc<Shim>, _: Caller, asked: proto::GetReceiptRequest) -> Result<proto::Progress, Refusal> {
    Ok(about::receipt(&shim, &asked.token).await?.into())
}

const EVENTS: u8 = Role::Events as u8;
const ITEMS: u8 = Role::Items as u8;
const USERS: u8 = Role::Users as u8;

/// Records go into the log as they were sent: what this schema does not know of them is not lost.
async fn send<const ROLE: u8>(shim: Arc<Shim>, caller: Caller, sent: proto::Records) -> Result<proto::Receipt, Refusal> {
    let role = Role::ALL.into_iter().find(|role| *role as u8 == ROLE).expect("one of the constants above");
    Ok(ingest::take(&shim, &caller.who, role, sent.records).await?.into())
}

async fn forget(shim: Arc<Shim>, caller: Caller, asked: proto::OfUser) -> Result<proto::Receipt, Refusal> {
    let user = user(&shim, &caller.who, asked.user_id)?;
    Ok(ingest::forget(&shim, &user, &caller).await?.into())
}

fn user(shim: &Shim, who: &Who, id: String) -> Result<String, Refusal> {
    asked::user(id, who, &shim.params)
}

fn item(shim: &Shim, id: String) -> Result<String, Refusal> {
    asked::named("item_id", id, &shim.params)
}

/// A name that can be one, where it is sent.
fn name(shim: &Shim, asked: proto::OfName) -> Result<Option<String>, Refusal> {
    asked::check_id(&asked.name, shim.params.max_id_bytes)?;
    Ok(sent(asked.name))
}

fn token(at_least: &str) -> Result<Option<Token>, Refusal> {
    asked::parse_token("at_least", Some(at_least).filter(|text| !text.is_empty()))
}

/// In proto3 an empty string is an absent one.
fn sent(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
