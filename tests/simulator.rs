//! The whole engine in one thread, with chance from a seed and nothing else: crashes between any two calls, processes that live on
//! when others have taken over, power that fails, a store that is away, and any number of workers. In the end every key holds what an
//! undisturbed run leaves over the same epochs; and each of the nine rules is needed, for without it that is not so.
//!
//! `SIM_SEEDS=10000 cargo test --test simulator` is the long form; a failure prints the line that repeats it.

#[path = "simulator/answers.rs"]
mod answers;
#[path = "simulator/crash.rs"]
mod crash;
#[path = "simulator/crew.rs"]
mod crew;
#[path = "simulator/dice.rs"]
mod dice;
#[path = "simulator/disk.rs"]
mod disk;
#[path = "simulator/gather.rs"]
mod gather;
#[path = "simulator/input.rs"]
mod input;
#[path = "simulator/mutant.rs"]
mod mutant;
#[path = "simulator/oracle.rs"]
mod oracle;
#[path = "simulator/process.rs"]
mod process;
#[path = "simulator/settings.rs"]
mod settings;
#[path = "simulator/world.rs"]
mod world;

use mutant::Mutant;
use world::simulate;

/// Seeds of the short form.
const SEEDS: u64 = 60;
/// Seeds within which every mutant is caught.
const ENOUGH: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn whatever_happens_it_leaves_what_an_undisturbed_run_leaves() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let letters = tempfile::tempdir().expect("a folder");
    let (mut starts, mut deaths, mut epochs, mut keys, count) = (0, 0, 0, 0, seeds.end - seeds.start);
    for seed in seeds {
        let outcome = simulate(seed, None, letters.path());
        if let Some(violation) = outcome.violation {
            let story = outcome.story.join("\n");
            panic!("{story}\n{violation}\nrepeat: SIM_SEED={seed} cargo test --test simulator whatever");
        }
        (starts, deaths) = (starts + outcome.starts, deaths + outcome.deaths);
        (epochs, keys) = (epochs + outcome.epochs, keys + outcome.keys);
    }
    eprintln!("{count} seeds, {starts} starts, {deaths} deaths, {epochs} epochs, {keys} keys equal");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let letters = tempfile::tempdir().expect("a folder");
    let twice = [(); 2].map(|()| format!("{:?}", simulate(3, None, letters.path())));
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn without_any_of_the_nine_rules_it_is_caught() {
    let letters = tempfile::tempdir().expect("a folder");
    for mutant in Mutant::ALL {
        let caught = (0..ENOUGH).find_map(|seed| Some((seed, simulate(seed, Some(mutant), letters.path()).violation?)));
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutant:?} is not caught in {ENOUGH} seeds"));
        eprintln!("{mutant:?}: seed {seed}: {violation:.160}");
    }
}
