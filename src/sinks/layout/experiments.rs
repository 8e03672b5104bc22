//! How experiments stand.

use std::collections::BTreeMap;

use super::fields::{decimal, number, parse, push_when, split};
use super::{Fence, Fields, LayoutError};
use crate::model::experiment::{Arm, Standing, Sums, Whom};
use crate::model::time::Millis;

/// How every experiment stands, as it lies in the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredExperiments {
    pub as_of: Millis,
    pub epoch: u64,
    /// In the order of the settings.
    pub standings: Vec<Standing>,
}

const EXPERIMENTS: &str = "experiments";

/// The hash `experiments`. Names of experiments, arms and versions have neither commas nor colons in them.
pub fn encode_experiments(standings: &[Standing], as_of: Millis, fence: Fence) -> Fields {
    let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(",");
    let mut fields = vec![(EXPERIMENTS.into(), list(&mut standings.iter().map(|of| of.name.as_str())))];
    for Standing { name, rollout, whom, began, arms } in standings {
        let about = [
            ("rollout", decimal(*rollout)),
            ("began", began.to_string()),
            ("arms", list(&mut arms.iter().map(|arm| arm.name.as_str()))),
            ("ranks", list(&mut arms.iter().map(|arm| arm.ranks.as_str()))),
        ];
        fields.extend(about.map(|(what, text)| (format!("{what}:{name}").into(), text)));
        let cohort = |whom: &Whom| serde_json::to_string(whom).expect("texts and a number are JSON");
        fields.extend(whom.iter().map(|whom| (format!("cohort:{name}").into(), cohort(whom))));
        let sums = |arm: &Arm| arm.sums.numbers().map(|sum| sum.to_string()).join(",");
        fields.extend(arms.iter().map(|arm| (format!("arm:{name}:{}", arm.name).into(), sums(arm))));
    }
    push_when(&mut fields, as_of, fence);
    fields
}

/// Reads the hash `experiments`.
pub fn decode_experiments(fields: &BTreeMap<String, String>) -> Result<StoredExperiments, LayoutError> {
    let names = fields.get(EXPERIMENTS).ok_or(LayoutError::Missing(EXPERIMENTS))?;
    let standings = names.split(',').map(|name| standing(fields, name)).collect::<Result<_, _>>()?;
    Ok(StoredExperiments { as_of: number(fields, "as_of")?, epoch: number(fields, "epoch")?, standings })
}

fn standing(fields: &BTreeMap<String, String>, name: &str) -> Result<Standing, LayoutError> {
    let about = |what: &'static str| {
        let field = format!("{what}:{name}");
        let text = fields.get(&field).ok_or(LayoutError::Missing(what))?;
        Ok::<_, LayoutError>((field, text))
    };
    let ((rollout, share), (began, at)) = (about("rollout")?, about("began")?);
    let arms = about("arms")?.1.split(',').zip(about("ranks")?.1.split(','));
    let arm = |(arm, ranks): (&str, &str)| {
        let field = format!("arm:{name}:{arm}");
        let text = fields.get(&field).ok_or(LayoutError::Missing("arm"))?;
        let too_large = || LayoutError::Number { field: field.clone(), value: text.clone() };
        let sums = Sums::from_numbers(split(&field, text)?).ok_or_else(too_large)?;
        Ok(Arm { name: arm.to_string(), ranks: ranks.to_string(), sums })
    };
    let cohort = format!("cohort:{name}");
    let whom = |text: &String| {
        let unreadable = |_| LayoutError::Cohort { field: cohort.clone(), value: text.clone() };
        serde_json::from_str::<Whom>(text).map_err(unreadable)
    };
    Ok(Standing {
        name: name.to_string(),
        rollout: parse(&rollout, share)?,
        whom: fields.get(&cohort).map(whom).transpose()?,
        began: parse(&began, at)?,
        arms: arms.map(arm).collect::<Result<_, LayoutError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

    #[test]
    fn experiments_round_trip_and_what_is_wrong_is_named() {
        let arm = |name: &str, of: i128| {
            let sums = Sums::from_numbers(std::array::from_fn(|n| of + n as i128)).expect("small");
            Arm { name: name.into(), ranks: "lr-1".into(), sums }
        };
        let one = |name: &str, whom: Option<Whom>| Standing {
            name: name.into(),
            rollout: 0.1,
            whom,
            began: -5,
            arms: vec![arm("a", 1), arm("b", 20)],
        };
        let whom = Whom { languages: vec!["de".into()], cities: vec!["Rome, \"old\"".into()], users: Some(3), ..Whom::default() };
        let standings = vec![one("z", None), one("y", Some(whom))];
        let fields = as_map(&encode_experiments(&standings, 7, Fence { epoch: 9, generation: 3 }));
        assert_eq!(fields["arm:y:b"], "20,21,22,23,24,25,26,27,28,29,30");
        assert_eq!(decode_experiments(&fields), Ok(StoredExperiments { as_of: 7, epoch: 9, standings }));
        let broken = |field: &str, value: Option<&str>| {
            let mut fields = fields.clone();
            fields.remove(field);
            fields.extend(value.map(|value| (field.to_string(), value.to_string())));
            decode_experiments(&fields).expect_err("it must be refused").to_string()
        };
        assert!(broken("arm:y:b", None).contains("no field `arm`"));
        assert!(broken("rollout:z", Some("all")).contains("`rollout:z` is `all`"));
        assert!(!fields.contains_key("cohort:z"), "it is for everybody");
        assert!(broken("cohort:y", Some("de")).contains("`cohort:y` is `de`, not a cohort as JSON"));
        assert!(broken("arm:y:b", Some("1,2")).contains("not 11 numbers"));
        let large = format!("{},1,1,1,1,1,1,1,1,1,1", u64::MAX);
        assert!(broken("arm:y:b", Some(&large)).contains("`arm:y:b` is"));
    }
}
