//! The nine rules of recovery, each as a switch that breaks it. Only the harness has these switches: what is shipped knows none.

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Effects leave before their binding is durable.
    EffectsBeforeBinding,
    /// The store takes every write, whatever it holds.
    Unfenced,
    /// What is deleted leaves no tombstone.
    NoTombstone,
    /// Appends and manifests go on when a newer generation has taken over.
    GenerationIgnored,
    /// A manifest is written before what it names is durable.
    ManifestFirst,
    /// A snapshot leaves out what is not yet in the store.
    NoDirtyKeys,
    /// Records of an epoch are worked off as they come, not in the canonical order.
    AnyOrder,
    /// The budget of refreshes depends on the number of workers.
    BudgetPerWorker,
    /// The generation is claimed after log and manifests were read.
    ClaimedLate,
}

impl Mutant {
    pub const ALL: [Mutant; 9] = [
        Mutant::EffectsBeforeBinding,
        Mutant::Unfenced,
        Mutant::NoTombstone,
        Mutant::GenerationIgnored,
        Mutant::ManifestFirst,
        Mutant::NoDirtyKeys,
        Mutant::AnyOrder,
        Mutant::BudgetPerWorker,
        Mutant::ClaimedLate,
    ];
}
