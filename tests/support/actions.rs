//! What happens to a scene: actions drawn by weight, one after the other, while a stream arrives and a reader reads. The same seed draws
//! the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::engines::{Dice, Fleet, Scene, Shape};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `kill -9` of one engine; its supervisor starts another.
    KillEngine,
    /// `kill -9` of all; another shape is started.
    KillAll,
    /// SIGTERM; another shape is started.
    Stop,
    /// `kill -9` of all, and a bit of the newest snapshot is not what it was.
    Corrupt,
    /// FLUSHALL.
    Flush,
    /// `kill -9` of Redis, and it starts again: with nothing, or as it was at the last copy.
    RestartRedis,
    /// Redis copies everything to its disk.
    CopyRedis,
    /// `kill -9` of the broker, and it starts again.
    KillBroker,
    /// SIGTERM to the broker, and it starts again.
    StopBroker,
}

impl Action {
    /// Whether an engine was ended by it.
    pub fn ends(self) -> bool {
        matches!(self, Self::KillEngine | Self::KillAll | Self::Stop | Self::Corrupt)
    }
}

/// A scene to which things happen.
pub struct Drive {
    scene: Scene,
    dice: Dice,
    shapes: &'static [Shape],
    running: Option<(Shape, Fleet)>,
    done: BTreeMap<Action, u64>,
}

impl Drive {
    pub fn new(scene: Scene, seed: u64, shapes: &'static [Shape]) -> Self {
        Self { scene, dice: Dice(seed), shapes, running: None, done: BTreeMap::new() }
    }

    /// Lets it run for a while, then does one thing of these, each as often as its weight says.
    pub fn round(&mut self, actions: &[(u64, Action)]) -> Action {
        let (shape, mut fleet) = self.running.take().unwrap_or_else(|| self.start());
        std::thread::sleep(Duration::from_millis(50 + self.dice.below(3_000))); // not for anything: at any moment
        assert!(fleet.live(), "{shape:?} ended by itself after {:?}", self.done);
        let action = self.draw(actions);
        *self.done.entry(action).or_default() += 1;
        self.running = self.act(action, fleet).map(|fleet| (shape, fleet));
        action
    }

    /// Yields what still runs.
    fn act(&mut self, action: Action, fleet: Fleet) -> Option<Fleet> {
        match action {
            Action::KillEngine => self.kill_one(&fleet),
            Action::Flush => self.scene.lose(),
            Action::RestartRedis => self.scene.restart_redis(),
            Action::CopyRedis => self.scene.redis.copy(),
            Action::KillBroker | Action::StopBroker => self.restart_broker(action == Action::StopBroker, &fleet),
            Action::Stop => {
                fleet.stop();
                return None;
            }
            Action::KillAll | Action::Corrupt => {
                fleet.kill();
                if action == Action::Corrupt {
                    corrupt(&self.scene.dir.path().join("state"), &mut self.dice);
                }
                return None;
            }
        }
        Some(fleet)
    }

    fn start(&mut self) -> (Shape, Fleet) {
        let shape = self.shapes[self.dice.below(self.shapes.len() as u64) as usize];
        (shape, self.scene.start(shape, &[]))
    }

    fn draw(&mut self, actions: &[(u64, Action)]) -> Action {
        let mut at = self.dice.below(actions.iter().map(|(weight, _)| weight).sum());
        for (weight, action) in actions {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *action,
            }
        }
        unreachable!("the number drawn is below the sum of all weights")
    }

    fn kill_one(&mut self, fleet: &Fleet) {
        fleet.0[self.dice.below(fleet.0.len() as u64) as usize].kill_engine();
    }

    /// Half of the time an engine dies while the broker is away, so that it starts without one.
    fn restart_broker(&mut self, cleanly: bool, fleet: &Fleet) {
        self.scene.input.end(cleanly);
        if self.dice.below(2) == 0 {
            self.kill_one(fleet);
        }
        self.scene.input.start_again();
    }

    /// The stream ends, and everything must be as if nothing had been. Yields what was done, and figures.
    pub fn end(mut self) -> String {
        let (_, fleet) = self.running.take().unwrap_or_else(|| self.start());
        let figures = self.scene.close(fleet);
        let done: Vec<String> = self.done.iter().map(|(action, times)| format!("{action:?} {times}")).collect();
        format!("{}; {figures}", done.join(", "))
    }
}

/// Changes one bit of the newest manifest, where there is an older one to fall back to. No engine may run.
fn corrupt(state: &Path, dice: &mut Dice) {
    let names = std::fs::read_dir(state).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut manifests: Vec<String> = names.filter(|name| name.starts_with("manifest-") && name.ends_with(".json")).collect();
    manifests.sort();
    if let [.., _, newest] = &manifests[..] {
        let path = state.join(newest);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
        std::fs::write(&path, bytes).expect("writable");
    }
}
