//! Random numbers (xoshiro256++, seeded by splitmix64) and the distributions drawn from them: what is drawn follows from the seed
//! alone, by `libm`, so that every machine draws the same bits.

/// A generator.
#[derive(Clone)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The numbers of a seed for these keys: others for every other key, in each place.
    pub fn of(seed: u64, keys: [u64; 2]) -> Self {
        let mut state = seed;
        for key in keys {
            state = mixed(state) ^ key;
        }
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        }))
    }

    fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let drawn = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        drawn
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (libm::sqrt(2.0 * self.exponential()), std::f64::consts::TAU * self.unit());
        radius * libm::cos(angle)
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }

    /// Pareto from 0 on: many little, few great.
    pub fn pareto(&mut self, shape: f64) -> f64 {
        libm::exp(self.exponential() / shape) - 1.0
    }

    /// A distribution over `into`; all equal in expectation, and the more uneven the smaller `alpha`.
    pub fn dirichlet(&mut self, alpha: f64, into: &mut [f32]) {
        let mut sum = 0.0;
        for share in into.iter_mut() {
            *share = self.gamma(alpha) as f32;
            sum += *share;
        }
        let least = f32::MIN_POSITIVE;
        match sum > least {
            true => into.iter_mut().for_each(|share| *share /= sum),
            false => into[0] = 1.0,
        }
    }

    /// Beta: a rate of which `a` hits and `b` misses are known.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (hits, misses) = (self.gamma(a), self.gamma(b));
        if hits + misses > 0.0 { hits / (hits + misses) } else { 0.5 }
    }

    /// Gamma by Marsaglia and Tsang; below 1 by the boost `gamma(a) = gamma(a + 1) * u^(1/a)`.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::exp(-self.exponential() / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
            if v > 0.0 && self.exponential() > d * (v - 1.0 - libm::log(v)) - 0.5 * x * x {
                return d * v;
            }
        }
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(n: u32, mut draw: impl FnMut() -> f64) -> f64 {
        (0..n).map(|_| draw()).sum::<f64>() / f64::from(n)
    }

    #[test]
    fn the_moments_are_those_of_the_distributions() {
        let mut rng = Rng::of(7, [6, 0]);
        assert!((mean(100_000, || rng.unit()) - 0.5).abs() < 0.01);
        assert!(mean(100_000, || rng.normal()).abs() < 0.02);
        assert!((mean(100_000, || rng.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(100_000, || rng.exponential()) - 1.0).abs() < 0.02);
        assert!((mean(100_000, || rng.gamma(2.5)) - 2.5).abs() < 0.05);
        assert!((mean(100_000, || rng.gamma(0.15)) - 0.15).abs() < 0.01);
        assert!((mean(100_000, || f64::from(rng.below(9))) - 4.0).abs() < 0.05);
        for (a, b) in [(1.0, 19.0), (0.5, 0.5), (30.0, 90.0)] {
            let (of, variance) = (a / (a + b), a * b / ((a + b) * (a + b) * (a + b + 1.0)));
            assert!((mean(100_000, || rng.beta(a, b)) - of).abs() < 0.005, "the mean of beta({a}, {b})");
            let spread = mean(100_000, || (rng.beta(a, b) - of).powi(2));
            assert!((spread / variance - 1.0).abs() < 0.05, "the variance of beta({a}, {b}): {spread}, not {variance}");
        }
    }

    #[test]
    fn a_small_alpha_is_uneven_and_sums_to_one() {
        let mut theta = [0.0; 32];
        let mut rng = Rng::of(7, [4, 0]);
        let peak = mean(2_000, || {
            rng.dirichlet(0.15, &mut theta);
            assert!((theta.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            f64::from(theta.iter().copied().fold(0.0, f32::max))
        });
        assert!((0.31..0.35).contains(&peak), "{peak}");
    }
}
