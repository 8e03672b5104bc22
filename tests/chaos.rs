//! Killed at random, again and again, under load, with Redis losing everything now and then, as one process or two, with one worker
//! or more: in the end every key holds what a run leaves that was never interrupted, over the same epochs; every record was read
//! once; and no reader ever saw a key's epoch go back but where Redis had lost it.
//!
//! `CHAOS_KILLS=200 CHAOS_CYCLES=20 CHAOS_SEED=7 cargo test --test chaos` is the long form; a failure prints the line that repeats it.
//! `CHAOS_SHAPES=2` leaves it at the first two shapes; `CHAOS_KEEP=1` leaves the folders of a failed run, with both change feeds.
#![cfg(feature = "redis")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::engines::{Dice, Fleet, Scene, Shape, number, shown, until};

/// What is killed and started: workers of each process, and processes.
const SHAPES: [Shape; 4] = [Shape(1, 1), Shape(2, 1), Shape(3, 1), Shape(1, 2)];

#[test]
fn killed_at_random_it_leaves_what_an_undisturbed_run_leaves() {
    let (kills, seed) = (number("CHAOS_KILLS", 6), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_KILLS={kills} CHAOS_SEED={seed} cargo test --test chaos killed");
    let shapes = &SHAPES[..number("CHAOS_SHAPES", SHAPES.len() as u64) as usize];
    let (scene, mut dice) = (Scene::open(seed), Dice(seed));
    let mut fleet: Option<(Shape, Fleet)> = None;
    for round in 0..kills {
        let (shape, mut running) = fleet.take().unwrap_or_else(|| {
            let shape = shapes[dice.below(shapes.len() as u64) as usize];
            (shape, Fleet::start(scene.dir.path(), &scene.redis, shape, &[]))
        });
        std::thread::sleep(Duration::from_millis(50 + dice.below(3_000)));
        if dice.below(5) == 0 {
            scene.lose();
            std::thread::sleep(Duration::from_millis(dice.below(2_000)));
        }
        assert!(running.live(), "round {round}: {shape:?} ended by itself");
        match dice.below(6) {
            0 => running.stop(),
            1 | 2 => running.kill(),
            _ => {
                let one = dice.below(running.0.len() as u64) as usize;
                running.0[one].kill_engine();
                fleet = Some((shape, running));
            }
        }
    }
    let last = shapes[shapes.len() - 1];
    let (_, fleet) = fleet.unwrap_or_else(|| (last, Fleet::start(scene.dir.path(), &scene.redis, last, &[])));
    eprintln!("{kills} kills and stops, {}", scene.close(fleet));
}

#[test]
fn with_other_numbers_of_workers_it_goes_on_where_it_was() {
    let (cycles, seed) = (number("CHAOS_CYCLES", 1), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_CYCLES={cycles} CHAOS_SEED={seed} cargo test --test chaos other");
    let (scene, mut dice) = (Scene::open(seed), Dice(seed));
    let mut gaps = Vec::new();
    let mut fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(1, 1), &[]);
    for phase in 0..cycles * 3 {
        until("the first answers are there", || (shown(&scene.redis) > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(dice.below(1_500)));
        fleet.0[0].kill_engine();
        std::thread::sleep(Duration::from_millis(200 + dice.below(1_500)));
        assert!(fleet.live(), "phase {phase}: it ended by itself");
        let workers = [2, 4, 1][phase as usize % 3];
        let began = Instant::now();
        fleet.stop();
        let stopped = shown(&scene.redis);
        fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(workers, 1), &[]);
        until("there is something newer", || (shown(&scene.redis) > stopped).then_some(()));
        gaps.push(began.elapsed());
    }
    gaps.sort();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let kills = cycles * 3;
    eprintln!("{cycles} cycles of 1 to 2 to 4 to 1 workers, {kills} kills, {}", scene.close(fleet));
    eprintln!("from the word to stop to the first newer answer: median {median:?}, longest {longest:?}");
}
