//! Whether one model may rank in place of another, and whether what was promoted turned out worse. Pure.

use serde::{Deserialize, Serialize};

use super::measure::Measured;

/// When a version is ordered to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promote {
    /// Where it is surely better than what ranks.
    Better,
    /// Where it is not surely worse.
    NoWorse,
    Never,
}

/// Users without whom no interval over users says anything.
const USERS: usize = 30;

/// Why a model is to rank in place of what is called `against`, or why not. It needs so many examples.
pub fn promotes(promote: Promote, measured: &Measured, least: usize, against: &str) -> Result<String, String> {
    if measured.examples < least {
        let examples = measured.examples;
        return Err(format!("{examples} later examples are too few to say how good it is; training.least is {least}"));
    }
    if measured.users < USERS {
        return Err(format!("{} users are too few to say how good it is, it takes {USERS}", measured.users));
    }
    let (low, high) = measured.ahead;
    let (is, may) = match promote {
        _ if low > 0.0 => ("better", promote != Promote::Never),
        _ if high < 0.0 => ("worse", false),
        _ => ("neither surely better nor surely worse", promote == Promote::NoWorse),
    };
    let why = format!("{is} than {against}: {}", told(measured));
    if may { Ok(why) } else { Err(format!("{why}; training.promote decides")) }
}

/// How far a model was ahead, and on how much.
pub fn told(measured: &Measured) -> String {
    let (low, high) = measured.ahead;
    format!("ahead by {low:.4} to {high:.4} NDCG@10 on {} later examples", measured.examples)
}

/// Whether what ranks is surely behind what ranked before it.
pub fn worse(measured: &Measured, least: usize) -> bool {
    measured.examples >= least && measured.users >= USERS && measured.ahead.1 < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(examples: usize, low: f64, high: f64) -> Measured {
        Measured { examples, users: USERS, ahead: (low, high), ..Measured::default() }
    }

    #[test]
    fn c35_a_model_needs_enough_examples_and_an_interval_on_the_right_side_of_zero() {
        let verdict = |promote, of| promotes(promote, &of, 500, "lr-1");
        let (better, unsure, worse_one) = (measured(500, 0.001, 0.01), measured(500, 0.0, 0.2), measured(500, -0.2, -0.1));
        for (promote, of, may, says) in [
            (Promote::Better, &better, true, "better than lr-1: ahead by 0.0010 to 0.0100"),
            (Promote::Better, &unsure, false, "neither surely better nor surely worse than lr-1"),
            (Promote::Better, &worse_one, false, "worse than lr-1"),
            (Promote::NoWorse, &better, true, "better than lr-1"),
            (Promote::NoWorse, &unsure, true, "neither surely"),
            (Promote::NoWorse, &worse_one, false, "worse than lr-1"),
            (Promote::Never, &better, false, "training.promote decides"),
            (Promote::NoWorse, &measured(499, 0.1, 0.2), false, "499 later examples are too few"),
        ] {
            let (found, why) = match verdict(promote, of.clone()) {
                Ok(why) => (true, why),
                Err(why) => (false, why),
            };
            assert!(found == may && why.contains(says), "{promote:?} {says}: {why}");
        }
        let few = Measured { users: USERS - 1, ..better.clone() };
        assert!(verdict(Promote::NoWorse, few).is_err_and(|why| why.contains("29 users are too few")));
        assert!(!worse(&Measured { users: 1, ..worse_one }, 500));
        assert!(worse(&measured(500, -0.2, -0.001), 500));
        assert!(!worse(&measured(499, -0.2, -0.1), 500) && !worse(&measured(500, -0.2, 0.0), 500));
    }
}
