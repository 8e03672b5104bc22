//! One engine made of several processes, and the supervisor of each: real processes, real Redis, real signals. That nothing is lost
//! however they are killed is `tests/chaos.rs`; here is what each of the parts does.
#![cfg(feature = "redis")]

#[path = "support/mod.rs"]
mod support;

use overdrive::model::{Part, Saved};
use overdrive::state::State;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};
use std::time::Duration;
use support::engines::{Fleet, Process, Scene, Shape, arguments, command, is_there, shown};
use support::redis::RedisServer;
use support::until;

/// Waits for answers newer than those that are there.
fn moves_on(redis: &RedisServer) {
    let before = shown(redis);
    until("there are newer answers", || (shown(redis) > before).then_some(()));
}

#[test]
fn two_workers_or_two_processes_leave_what_one_worker_leaves() {
    for shape in [Shape(2, 1), Shape(1, 2)] {
        let scene = Scene::open(3);
        let fleet = Fleet::start(scene.dir.path(), &scene.redis, shape, &[]);
        moves_on(&scene.redis);
        std::thread::sleep(Duration::from_secs(2));
        eprintln!("{shape:?}: {}", scene.close(fleet));
    }
}

#[test]
fn when_one_process_dies_all_die_and_come_back_by_themselves() {
    let scene = Scene::open(4);
    let fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(1, 2), &[]);
    for killed in [1, 0, 1] {
        moves_on(&scene.redis);
        let engines: Vec<_> = fleet.0.iter().map(Process::engine).collect();
        fleet.0[killed].tell(engines[killed], Signal::KILL);
        fleet.0.iter().zip(&engines).for_each(|(process, engine)| process.replaced(*engine));
    }
    moves_on(&scene.redis);
    eprintln!("killed 1, 0, 1: {}", scene.close(fleet));
}

#[test]
fn a_process_that_is_held_holds_the_others_for_a_while_only() {
    let scene = Scene::open(5);
    let settings = [("OVERDRIVE_RECOVERY__STALLED_AFTER", "2s")];
    let fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(1, 2), &settings);
    for held in [1, 0] {
        moves_on(&scene.redis);
        let engines: Vec<_> = fleet.0.iter().map(Process::engine).collect();
        fleet.0[held].tell(engines[held], Signal::STOP);
        fleet.0.iter().zip(&engines).for_each(|(process, engine)| process.replaced(*engine));
        assert!(engines.iter().all(|engine| !is_there(*engine)));
    }
    moves_on(&scene.redis);
    eprintln!("held 1, 0: {}", scene.close(fleet));
}

#[test]
fn strangers_at_the_door_keep_nobody_out() {
    let scene = Scene::open(6);
    let dir = scene.dir.path();
    let args = arguments(dir, Shape(1, 2));
    let hosts = std::fs::read_to_string(dir.join("hosts")).expect("it was written");
    let door = hosts.lines().next().expect("an address").to_string();
    let first = Process::start(dir, &scene.redis, &args[0], &[]);
    until("process 0 listens", || TcpStream::connect(&door).ok());
    let sent: [&[u8]; 5] = [b"", b"\0", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"OVRDRIVE\x01", &[0xff; 4096]];
    let mut strangers = Vec::new();
    for n in 0..100 {
        let mut stranger = TcpStream::connect(&door).expect("it listens");
        let _reset = stranger.write_all(sent[n % sent.len()]);
        match n % 3 {
            0 => drop(stranger),
            _ => strangers.push(stranger), // idle, or half open
        }
    }
    let second = Process::start(dir, &scene.redis, &args[1], &[]);
    moves_on(&scene.redis);
    drop(strangers);
    let fleet = Fleet(vec![first, second]);
    eprintln!("with strangers: {}", scene.close(fleet));
}

#[test]
fn a_process_that_differs_is_told_in_what_and_the_others_wait_on() {
    let scene = Scene::open(7);
    let dir = scene.dir.path();
    let args = arguments(dir, Shape(1, 2));
    let secret = ("OVERDRIVE_CLUSTER__SECRET", "a secret of the test");
    let first = Process::start(dir, &scene.redis, &args[0], &[secret]);
    let refused = |args: &[String], settings: &[(&str, &str)]| {
        let output = command(dir, &scene.redis, args, settings).output().expect("it runs");
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        text(&output)
    };
    let [mut more_workers, mut other_number] = [args[1].clone(), args[1].clone()];
    more_workers[1] = "2".into();
    let number = other_number.iter().position(|arg| arg == "--process").expect("a number") + 1;
    other_number[number] = "0".into();
    for (args, settings, says) in [
        (&args[1], vec![("OVERDRIVE_CLUSTER__SECRET", "another secret of the test")], "another [cluster] secret"),
        (&args[1], vec![], "another [cluster] secret"),
        (&more_workers, vec![secret], "workers is 1 there and 2 here"),
        (&args[1], vec![secret, ("OVERDRIVE_SLATES__KEPT", "100")], "slates.kept is 200 there and 100 here"),
        (&args[1], vec![secret, ("OVERDRIVE_CLUSTER__NAME", "other")], "[cluster] name is overdrive there and other here"),
    ] {
        let told = refused(args, &settings);
        assert!(told.contains(says) && told.contains("process 0 at 127.0.0.1:"), "{says}: {told}");
    }
    let hosts = dir.join("hosts");
    let good = std::fs::read_to_string(&hosts).expect("it was written");
    std::fs::write(&hosts, "10.1.2.3:4100\n10.1.2.3:4101\n").expect("writable");
    let told = refused(&args[1], &[]);
    assert!(told.contains("10.1.2.3:4100, which others can reach: set [cluster] secret"), "{told}");
    std::fs::write(&hosts, "10.1.2.3:4100\n").expect("writable");
    assert!(refused(&args[1], &[secret]).contains("has 1 addresses for 2 processes"));
    std::fs::write(&hosts, good).expect("writable");
    let second = Process::start(dir, &scene.redis, &args[1], &[secret]);
    moves_on(&scene.redis);
    eprintln!("after strangers: {}", scene.close(Fleet(vec![first, second])));
}

#[test]
fn an_engine_never_outlives_its_supervisor() {
    let scene = Scene::open(8);
    let fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(2, 1), &[]);
    moves_on(&scene.redis);
    fleet.kill(); // waits for the engine to be gone
    let fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(1, 1), &[]);
    moves_on(&scene.redis);
    eprintln!("after its supervisor: {}", scene.close(fleet));
}

#[test]
fn what_another_start_cannot_help_is_not_tried_again() {
    let (dir, redis) = (tempfile::tempdir().expect("a folder"), RedisServer::start());
    std::fs::create_dir_all(dir.path().join("state")).expect("a folder");
    std::fs::write(dir.path().join("state/committed"), "").expect("writable");
    let output = command(dir.path(), &redis, &[], &[]).output().expect("it runs");
    let told = text(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert_eq!(told.matches("no manifest is left").count(), 1, "{told}");
}

#[test]
fn a_worker_that_panics_takes_the_process_with_it_until_the_supervisor_gives_up() {
    let scene = Scene::open(9);
    let fleet = Fleet::start(scene.dir.path(), &scene.redis, Shape(2, 1), &[]);
    moves_on(&scene.redis);
    std::thread::sleep(Duration::from_secs(2)); // there is a snapshot, or there is one when it stops
    fleet.stop();
    poison(&scene);
    let settings = [("OVERDRIVE_SUPERVISOR__RESTARTS", "2")];
    let output = command(scene.dir.path(), &scene.redis, &["--workers".into(), "2".into()], &settings).output().expect("it runs");
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the engine ended 3 times within 10m, at last with signal: 6"), "{told}");
    assert_eq!(told.matches("an entry of ledger/").count(), 2 * 3, "panicked and logged at each of three starts: {told}");
}

/// One entry of the newest snapshot becomes something no ledger can read; its checksums are in order.
fn poison(scene: &Scene) {
    let state = State::open(&scene.dir.path().join("state")).expect("nobody has it");
    let mut snapshot = state.restore().expect("it is whole").expect("there is one");
    let ledger = |part: &&mut Part| part.uid.starts_with("ledger/");
    let Part { entries, .. } = snapshot.parts.iter_mut().find(ledger).expect("it keeps a ledger");
    entries.push(Saved { group: 0, shared: false, payload: vec![0xff; 3] });
    state.commit(&snapshot, 3).expect("it can be written");
}

/// All that was said.
fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].concat().iter().map(|byte| char::from(*byte)).collect()
}

#[test]
fn a_signal_to_the_supervisor_of_process_0_stops_the_cluster() {
    let (dir, redis) = (tempfile::tempdir().expect("a folder"), RedisServer::start());
    let args = arguments(dir.path(), Shape(1, 2));
    let mut first = command(dir.path(), &redis, &args[0], &[("OVERDRIVE_LOGGING__FILTER", "info")]);
    let mut first = first.stderr(Stdio::piped()).spawn().expect("it starts");
    let second = Process::start(dir.path(), &redis, &args[1], &[]);
    until("there are answers", || (shown(&redis) > 0).then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&first), Signal::INT).expect("it can be told");
    assert!(second.ended().success(), "the second process follows the first");
    let mut said = String::new();
    first.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    assert!(first.wait().expect("it ends").success() && said.contains("stopped"), "{said}");
}
