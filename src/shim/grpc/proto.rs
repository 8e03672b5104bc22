//! The messages of `schemas/service.proto`, by hand: building needs no protoc. A test reads and writes them by the schema.

use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Message)]
pub struct GetFeedRequest {
    #[prost(string, tag = "1")]
    pub surface: String,
    #[prost(string, tag = "2")]
    pub user_id: String,
    #[prost(uint32, optional, tag = "3")]
    pub k: Option<u32>,
    #[prost(string, tag = "4")]
    pub cursor: String,
    #[prost(string, repeated, tag = "5")]
    pub exclude: Vec<String>,
    #[prost(bool, tag = "6")]
    pub explain: bool,
    #[prost(string, tag = "7")]
    pub at_least: String,
    #[prost(string, tag = "8")]
    pub category: String,
    #[prost(string, tag = "9")]
    pub language: String,
    #[prost(message, optional, tag = "10")]
    pub position: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Position {
    #[prost(double, tag = "1")]
    pub lat: f64,
    #[prost(double, tag = "2")]
    pub lon: f64,
    #[prost(double, optional, tag = "3")]
    pub local_preference: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Feed {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub user_id: String,
    #[prost(string, tag = "3")]
    pub surface: String,
    #[prost(bool, tag = "4")]
    pub stale: bool,
    #[prost(int64, tag = "5")]
    pub as_of: i64,
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    #[prost(string, tag = "7")]
    pub model: String,
    #[prost(string, tag = "8")]
    pub experiment: String,
    #[prost(string, tag = "9")]
    pub variant: String,
    #[prost(bool, tag = "10")]
    pub fallback: bool,
    #[prost(message, repeated, tag = "11")]
    pub items: Vec<FeedItem>,
    #[prost(string, optional, tag = "12")]
    pub cursor: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FeedItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(double, tag = "2")]
    pub score: f64,
    #[prost(string, tag = "3")]
    pub source: String,
    #[prost(string, tag = "4")]
    pub reason: String,
    #[prost(double, optional, tag = "5")]
    pub distance_km: Option<f64>,
    #[prost(btree_map = "string, double", tag = "6")]
    pub terms: BTreeMap<String, f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BatchGetFeedsRequest {
    #[prost(string, tag = "1")]
    pub surface: String,
    #[prost(string, repeated, tag = "2")]
    pub user_ids: Vec<String>,
    #[prost(uint32, optional, tag = "3")]
    pub k: Option<u32>,
    #[prost(string, repeated, tag = "4")]
    pub exclude: Vec<String>,
    #[prost(bool, tag = "5")]
    pub explain: bool,
    #[prost(string, tag = "6")]
    pub at_least: String,
    #[prost(string, tag = "7")]
    pub category: String,
    #[prost(string, tag = "8")]
    pub language: String,
    #[prost(message, optional, tag = "9")]
    pub position: Option<Position>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Feeds {
    #[prost(message, repeated, tag = "1")]
    pub feeds: Vec<Feed>,
}

/// Any request for what is known of one user or item.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Of {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub at_least: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ItemNeighbours {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    pub as_of: Option<i64>,
    #[prost(uint64, optional, tag = "4")]
    pub epoch: Option<u64>,
    #[prost(message, repeated, tag = "5")]
    pub neighbours: Vec<ItemNeighbour>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ItemNeighbour {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(double, tag = "2")]
    pub similarity: f64,
    #[prost(uint32, tag = "3")]
    pub users: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetTrendingRequest {
    #[prost(string, tag = "1")]
    pub scope: String,
    #[prost(uint32, optional, tag = "2")]
    pub k: Option<u32>,
    #[prost(string, tag = "3")]
    pub at_least: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Trending {
    #[prost(string, tag = "1")]
    pub scope: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(message, repeated, tag = "5")]
    pub items: Vec<TrendingItem>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TrendingItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(double, tag = "2")]
    pub score: f64,
}

/// `UserFeatures` and `ItemFeatures`, which differ in the name of `id`.
#[derive(Clone, PartialEq, Message)]
pub struct Features {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(btree_map = "string, message", tag = "5")]
    pub windows: BTreeMap<String, WindowCounts>,
    #[prost(double, tag = "6")]
    pub velocity: f64,
    #[prost(double, tag = "7")]
    pub decayed: f64,
    #[prost(message, optional, tag = "8")]
    pub rates: Option<Rates>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WindowCounts {
    #[prost(btree_map = "string, uint32", tag = "1")]
    pub counts: BTreeMap<String, u32>,
    #[prost(double, tag = "2")]
    pub weighted: f64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Rates {
    #[prost(double, tag = "1")]
    pub ctr: f64,
    #[prost(double, tag = "2")]
    pub engagement: f64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct RankRequest {
    #[prost(string, tag = "1")]
    pub user_id: String,
    /// As they were sent: the decoder of the items topic reads them.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub items: Vec<Bytes>,
    #[prost(uint32, optional, tag = "3")]
    pub k: Option<u32>,
    #[prost(bool, tag = "4")]
    pub explain: bool,
    #[prost(bool, tag = "5")]
    pub seen: bool,
    #[prost(bool, optional, tag = "6")]
    pub mature: Option<bool>,
    #[prost(string, tag = "7")]
    pub at_least: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ranking {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub user_id: String,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(string, tag = "5")]
    pub model: String,
    #[prost(bool, tag = "6")]
    pub stale: bool,
    #[prost(bool, tag = "7")]
    pub fallback: bool,
    #[prost(message, repeated, tag = "8")]
    pub items: Vec<RankedItem>,
    #[prost(message, repeated, tag = "9")]
    pub left_out: Vec<LeftOutItem>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RankedItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(double, tag = "2")]
    pub score: f64,
    #[prost(string, tag = "3")]
    pub source: String,
    #[prost(string, tag = "4")]
    pub reason: String,
    #[prost(bool, tag = "5")]
    pub known: bool,
    #[prost(btree_map = "string, double", tag = "6")]
    pub terms: BTreeMap<String, f64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeftOutItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(string, tag = "2")]
    pub why: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UserInterests {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(btree_map = "string, double", tag = "5")]
    pub short: BTreeMap<String, f64>,
    #[prost(btree_map = "string, double", tag = "6")]
    pub long: BTreeMap<String, f64>,
    #[prost(double, tag = "7")]
    pub drift: f64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetUserActivityRequest {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(uint32, optional, tag = "2")]
    pub k: Option<u32>,
    #[prost(string, tag = "3")]
    pub at_least: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UserActivity {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(btree_map = "string, message", tag = "5")]
    pub windows: BTreeMap<String, WindowCounts>,
    #[prost(double, tag = "6")]
    pub velocity: f64,
    #[prost(double, tag = "7")]
    pub decayed: f64,
    #[prost(message, optional, tag = "8")]
    pub rates: Option<Rates>,
    #[prost(message, repeated, tag = "9")]
    pub latest: Vec<SeenItem>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SeenItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(int64, tag = "2")]
    pub at: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct UserInsights {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(bool, optional, tag = "2")]
    pub stale: Option<bool>,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(double, tag = "5")]
    pub drift: f64,
    #[prost(message, repeated, tag = "6")]
    pub interests: Vec<Interest>,
    #[prost(btree_map = "string, uint32", tag = "7")]
    pub sources: BTreeMap<String, u32>,
    #[prost(btree_map = "string, uint32", tag = "8")]
    pub reasons: BTreeMap<String, u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Interest {
    #[prost(string, tag = "1")]
    pub token: String,
    #[prost(double, tag = "2")]
    pub short: f64,
    #[prost(double, tag = "3")]
    pub long: f64,
    #[prost(double, tag = "4")]
    pub change: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct UserExport {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(int64, tag = "2")]
    pub exported_at: i64,
    #[prost(message, optional, tag = "3")]
    pub features: Option<Features>,
    #[prost(message, optional, tag = "4")]
    pub interests: Option<UserInterests>,
    #[prost(message, optional, tag = "5")]
    pub profile: Option<Profile>,
    #[prost(message, optional, tag = "6")]
    pub slate: Option<UserSlate>,
    #[prost(btree_map = "string, message", tag = "7")]
    pub surfaces: BTreeMap<String, UserSlate>,
    #[prost(message, repeated, tag = "8")]
    pub seen: Vec<SeenItem>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(int64, tag = "1")]
    pub as_of: i64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(double, optional, tag = "3")]
    pub lat: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub lon: Option<f64>,
    #[prost(string, tag = "5")]
    pub city: String,
    #[prost(double, optional, tag = "6")]
    pub local_preference: Option<f64>,
    #[prost(string, tag = "7")]
    pub language: String,
    #[prost(bool, tag = "8")]
    pub mature: bool,
    #[prost(string, repeated, tag = "9")]
    pub hidden_authors: Vec<String>,
    #[prost(string, repeated, tag = "10")]
    pub hidden_items: Vec<String>,
    #[prost(double, optional, tag = "11")]
    pub total_watch_hours: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UserSlate {
    #[prost(int64, tag = "1")]
    pub as_of: i64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(string, tag = "3")]
    pub model: String,
    #[prost(string, tag = "4")]
    pub experiment: String,
    #[prost(string, tag = "5")]
    pub variant: String,
    #[prost(message, repeated, tag = "6")]
    pub items: Vec<FeedItem>,
    #[prost(message, repeated, tag = "7")]
    pub history: Vec<TakenItem>,
    #[prost(uint32, tag = "8")]
    pub taken: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TakenItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(string, tag = "2")]
    pub interaction: String,
}

/// `GetExperimentsRequest`, `PromoteModelRequest` and `TrainModelRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OfName {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Experiments {
    #[prost(int64, tag = "1")]
    pub as_of: i64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(message, repeated, tag = "3")]
    pub experiments: Vec<Experiment>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Experiment {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(double, tag = "2")]
    pub rollout: f64,
    #[prost(int64, tag = "3")]
    pub began: i64,
    #[prost(message, repeated, tag = "4")]
    pub arms: Vec<Arm>,
    #[prost(message, optional, tag = "5")]
    pub cohort: Option<Cohort>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Cohort {
    #[prost(string, repeated, tag = "1")]
    pub languages: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub cities: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub interests: Vec<String>,
    #[prost(uint32, optional, tag = "4")]
    pub users: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Arm {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub ranks: String,
    #[prost(int64, tag = "3")]
    pub users: i64,
    #[prost(int64, tag = "4")]
    pub impressions: i64,
    #[prost(int64, tag = "5")]
    pub clicks: i64,
    #[prost(int64, tag = "6")]
    pub taken: i64,
    #[prost(double, tag = "7")]
    pub dwell_seconds: f64,
    #[prost(message, optional, tag = "8")]
    pub ctr: Option<Measure>,
    #[prost(message, optional, tag = "9")]
    pub engagement_seconds: Option<Measure>,
    #[prost(message, optional, tag = "10")]
    pub taken_per_user: Option<Measure>,
    #[prost(string, tag = "11")]
    pub verdict: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Measure {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(double, repeated, tag = "2")]
    pub interval: Vec<f64>,
    #[prost(message, optional, tag = "3")]
    pub difference: Option<Difference>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Difference {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(double, repeated, tag = "2")]
    pub interval: Vec<f64>,
    #[prost(string, tag = "3")]
    pub verdict: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Models {
    #[prost(string, tag = "1")]
    pub serving: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    #[prost(int64, optional, tag = "3")]
    pub created_at: Option<i64>,
    #[prost(string, tag = "4")]
    pub served_before: String,
    #[prost(uint64, optional, tag = "5")]
    pub refused_epoch: Option<u64>,
    #[prost(int64, tag = "6")]
    pub as_of: i64,
    #[prost(uint64, tag = "7")]
    pub epoch: u64,
    #[prost(message, repeated, tag = "8")]
    pub versions: Vec<ModelVersion>,
    #[prost(message, optional, tag = "9")]
    pub training: Option<Training>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ModelVersion {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub serves: bool,
    #[prost(string, tag = "3")]
    pub model: String,
    #[prost(string, tag = "4")]
    pub digest: String,
    #[prost(int64, optional, tag = "5")]
    pub created_at: Option<i64>,
    #[prost(message, optional, tag = "6")]
    pub figures: Option<Figures>,
    #[prost(string, tag = "7")]
    pub unusable: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Figures {
    #[prost(message, optional, tag = "1")]
    pub examples: Option<Examples>,
    #[prost(int64, tag = "2")]
    pub held_out_from_ms: i64,
    #[prost(message, optional, tag = "3")]
    pub ndcg_10: Option<Ndcg>,
    #[prost(message, optional, tag = "4")]
    pub auc: Option<Auc>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Examples {
    #[prost(uint64, tag = "1")]
    pub earlier: u64,
    #[prost(uint64, tag = "2")]
    pub held_out: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ndcg {
    #[prost(double, tag = "1")]
    pub model: f64,
    #[prost(double, tag = "2")]
    pub blend: f64,
    #[prost(double, repeated, tag = "3")]
    pub ahead: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Auc {
    #[prost(double, optional, tag = "1")]
    pub model: Option<f64>,
    #[prost(double, optional, tag = "2")]
    pub blend: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Training {
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    #[prost(string, repeated, tag = "2")]
    pub asked: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub running: Option<RunningTraining>,
    #[prost(message, optional, tag = "4")]
    pub last: Option<EndedTraining>,
    #[prost(int64, optional, tag = "5")]
    pub next_ms: Option<i64>,
    #[prost(message, optional, tag = "6")]
    pub taken_back: Option<TakenBack>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RunningTraining {
    #[prost(string, tag = "1")]
    pub model: String,
    #[prost(int64, tag = "2")]
    pub began_ms: i64,
    #[prost(double, tag = "3")]
    pub done: f64,
    #[prost(string, tag = "4")]
    pub what: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct EndedTraining {
    #[prost(string, tag = "1")]
    pub model: String,
    #[prost(int64, tag = "2")]
    pub began_ms: i64,
    #[prost(int64, tag = "3")]
    pub ended_ms: i64,
    #[prost(string, tag = "4")]
    pub version: String,
    #[prost(message, optional, tag = "5")]
    pub figures: Option<Figures>,
    #[prost(bool, tag = "6")]
    pub promoted: bool,
    #[prost(string, tag = "7")]
    pub why: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TakenBack {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub why: String,
}

/// `GetModelsRequest` and `GetStatsRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stats {
    #[prost(string, tag = "1")]
    pub store: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub tick_epoch: u64,
    #[prost(int64, tag = "4")]
    pub as_of: i64,
    #[prost(int64, tag = "5")]
    pub watermark: i64,
    #[prost(int64, tag = "6")]
    pub lag_ms: i64,
    #[prost(bool, tag = "7")]
    pub rebuilding: bool,
    #[prost(uint64, tag = "8")]
    pub uptime_ms: u64,
    #[prost(btree_map = "string, uint64", tag = "9")]
    pub keys: BTreeMap<String, u64>,
    #[prost(string, repeated, tag = "10")]
    pub recent_users: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetReceiptRequest {
    #[prost(string, tag = "1")]
    pub token: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Progress {
    #[prost(bool, tag = "1")]
    pub applied: bool,
    #[prost(bool, tag = "2")]
    pub everywhere: bool,
    #[prost(int64, tag = "3")]
    pub as_of: i64,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
}

/// `SendEventsRequest`, `SendItemsRequest` and `SendUsersRequest`: the messages as they were sent, for the log.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Records {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub records: Vec<Bytes>,
}

/// `ExportUserRequest` and `ForgetUserRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OfUser {
    #[prost(string, tag = "1")]
    pub user_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Receipt {
    #[prost(uint64, tag = "1")]
    pub accepted: u64,
    #[prost(message, repeated, tag = "2")]
    pub rejected: Vec<Rejected>,
    #[prost(string, optional, tag = "3")]
    pub token: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Rejected {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(string, tag = "2")]
    pub reason: String,
}
