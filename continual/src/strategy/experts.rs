//! Experts from one experience to the next, as tensors of the method `moe-adapters`: the most used ones are frozen, fresh
//! ones take their place, and the routers before keep choosing among those that they knew.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{MoeAdapters, Parameters};

/// The parts of an expert.
const PARTS: [&str; 4] = ["down", "down_offset", "up", "up_offset"];
/// What tells experiences apart.
pub(super) const SELECTOR: [&str; 3] = ["means.fixed", "directions.fixed", "slopes.fixed"];

/// The rows of a tensor along its first axis.
fn rows(tensor: &HostTensor) -> Vec<&[f32]> {
    let count = tensor.shape.first().copied().unwrap_or(0).max(1);
    tensor.data.chunks((tensor.data.len() / count).max(1)).collect()
}

/// The greatest `top` of counts, and the others, both in their order; of equal ones the first are greater.
fn most_used(counts: &[f32], top: usize) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|left, right| counts[*right].total_cmp(&counts[*left]));
    let (mut most, mut rest) = (order[..top.min(order.len())].to_vec(), order[top.min(order.len())..].to_vec());
    most.sort_unstable();
    rest.sort_unstable();
    (most, rest)
}

/// Puts the experts, routers and selectors of the experiences `before` into the values of a `fresh` adapter for one more,
/// by how often each open expert was used, by the path of its block. `None` where they do not fit.
pub(super) fn carried(
    before: &Parameters,
    uses: &BTreeMap<String, Vec<f32>>,
    fresh: &mut Parameters,
    top: usize,
) -> Option<()> {
    for (path, counts) in uses {
        let (most, rest) = most_used(counts, top);
        let known = before.get(&format!("{path}.past.down.fixed")).map_or(0, |down| down.shape[0]);
        let open = |list: &[usize]| list.iter().map(|at| known + at).collect::<Vec<usize>>();
        let order = [(0..known).collect(), open(&most), open(&rest)].concat();
        for part in PARTS {
            let frozen = before.get(&format!("{path}.past.{part}.fixed")).map_or_else(Vec::new, rows);
            let all = [frozen, rows(before.get(&format!("{path}.open.{part}"))?)].concat();
            let ordered: Vec<&[f32]> = order.iter().map(|at| all.get(*at).copied()).collect::<Option<_>>()?;
            let (still, moving) = ordered.split_at(known + most.len());
            fill(fresh.get_mut(&format!("{path}.past.{part}.fixed"))?, &still.concat(), true)?;
            // Behind those that are left stand fresh ones.
            fill(fresh.get_mut(&format!("{path}.open.{part}"))?, &moving.concat(), false)?;
        }
        let routers = fresh.get(&format!("{path}.past.routers.fixed"))?;
        let [_, width, experts] = routers.shape[..] else { return None };
        let widened = |columns: &[f32], beyond: f32| -> Option<Vec<f32>> {
            let known: Option<Vec<f32>> = order.iter().map(|at| columns.get(*at).copied()).collect();
            let mut known = known?;
            known.resize(experts, beyond);
            Some(known)
        };
        let (mut all, mut reach) = (Vec::new(), Vec::new());
        let (past, last) = (before.get(&format!("{path}.past.routers.fixed")), before.get(&format!("{path}.router"))?);
        for router in past.map_or_else(Vec::new, rows).into_iter().chain([last.data.as_slice()]) {
            for columns in router.chunks((router.len() / width.max(1)).max(1)) {
                all.extend(widened(columns, 0.0)?);
            }
        }
        let everything = vec![0.0; order.len()];
        let past = before.get(&format!("{path}.past.reach.fixed"));
        for columns in past.map_or_else(Vec::new, rows).into_iter().chain([everything.as_slice()]) {
            reach.extend(widened(columns, MoeAdapters::OUT)?);
        }
        fill(fresh.get_mut(&format!("{path}.past.routers.fixed"))?, &all, true)?;
        fill(fresh.get_mut(&format!("{path}.past.reach.fixed"))?, &reach, true)?;
    }
    for name in SELECTOR {
        fill(fresh.get_mut(name)?, &before.get(name)?.data, false)?;
    }
    Some(())
}

/// Writes values to the beginning of a tensor, or to all of it.
fn fill(tensor: &mut HostTensor, values: &[f32], all: bool) -> Option<()> {
    let fits = if all { values.len() == tensor.data.len() } else { values.len() <= tensor.data.len() };
    fits.then(|| tensor.data[..values.len()].copy_from_slice(values))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inarch_core::backbone::HostTensor;
    use inarch_peft::{MoeAdapters, Parameters};

    use super::{carried, most_used};

    /// A block of width 1 with experts of the given values, one value a part, and one router.
    fn block(frozen: &[f32], open: &[f32], routers: &[&[f32]], reach: &[&[f32]]) -> Parameters {
        let mut all = Parameters::new();
        let mut put = |name: &str, shape: Vec<usize>, data: Vec<f32>| {
            all.insert(name.to_string(), HostTensor { shape, data, origin: name.into() });
        };
        for part in ["down", "up"] {
            put(&format!("x.open.{part}"), vec![open.len(), 1, 1], open.to_vec());
        }
        for part in ["down_offset", "up_offset"] {
            put(&format!("x.open.{part}"), vec![open.len(), 1], open.to_vec());
        }
        if !frozen.is_empty() {
            for part in ["down", "down_offset", "up", "up_offset"] {
                put(&format!("x.past.{part}.fixed"), vec![frozen.len(), 1, 1], frozen.to_vec());
            }
            let past = &routers[..routers.len() - 1];
            let experts = frozen.len() + open.len();
            put("x.past.routers.fixed", vec![past.len(), 1, experts], past.concat());
            put("x.past.reach.fixed", vec![reach.len(), experts], reach.concat());
        }
        put("x.router", vec![1, frozen.len() + open.len()], routers[routers.len() - 1].to_vec());
        let count = routers.len();
        put("means.fixed", vec![count, 1], vec![0.5; count]);
        put("directions.fixed", vec![count, 1, 1], vec![1.0; count]);
        put("slopes.fixed", vec![count], vec![2.0; count]);
        all
    }

    #[test]
    fn the_most_used_are_frozen_and_routers_keep_their_experts() {
        assert_eq!(most_used(&[3.0, 5.0, 3.0, 1.0], 2), (vec![0, 1], vec![2, 3]));
        let out = MoeAdapters::OUT;
        let before = block(&[], &[10.0, 11.0, 12.0], &[&[0.1, 0.2, 0.3]], &[]);
        let uses = BTreeMap::from([("x".to_string(), vec![1.0, 2.0, 5.0])]);
        // Fresh experts are 90, 91 and 92; one is frozen in each experience.
        let fresh = |frozen: usize| {
            let none = vec![0.0; frozen + 3];
            let rows: Vec<&[f32]> = vec![&none; frozen + 1];
            block(&vec![7.0; frozen], &[90.0, 91.0, 92.0], &rows, &rows[..frozen])
        };
        let mut second = fresh(1);
        carried(&before, &uses, &mut second, 1).expect("it fits");
        for part in ["down", "down_offset", "up", "up_offset"] {
            assert_eq!(second[&format!("x.past.{part}.fixed")].data, [12.0]);
            assert_eq!(second[&format!("x.open.{part}")].data, [10.0, 11.0, 92.0]);
        }
        assert_eq!(second["x.past.routers.fixed"].data, [0.3, 0.1, 0.2, 0.0]);
        assert_eq!(second["x.past.reach.fixed"].data, [0.0, 0.0, 0.0, out]);
        assert_eq!(second["x.router"].data, [0.0; 4]);
        assert_eq!(second["slopes.fixed"].data, [2.0, 2.0]);

        let trained = HostTensor { data: vec![1.0, 2.0, 3.0, 4.0], ..second["x.router"].clone() };
        second.insert("x.router".into(), trained);
        let uses = BTreeMap::from([("x".to_string(), vec![0.0, 9.0, 8.0])]);
        let mut third = fresh(2);
        carried(&second, &uses, &mut third, 1).expect("it fits");
        assert_eq!(third["x.past.down.fixed"].data, [12.0, 11.0]);
        assert_eq!(third["x.open.up"].data, [10.0, 92.0, 92.0]);
        assert_eq!(third["x.past.routers.fixed"].data, [0.3, 0.2, 0.1, 0.0, 0.0, 1.0, 3.0, 2.0, 4.0, 0.0]);
        assert_eq!(third["x.past.reach.fixed"].data, [0.0, 0.0, 0.0, out, out, 0.0, 0.0, 0.0, 0.0, out]);
        // Of other settings they do not fit.
        assert!(carried(&second, &uses, &mut fresh(1), 1).is_none());
    }
}
