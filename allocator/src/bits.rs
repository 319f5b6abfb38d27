//! Sets of client ordinals.

/// A set of small numbers, one bit each; grows as needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn get(&self, at: u32) -> bool {
        let word = self.0.get(at as usize / 64).copied().unwrap_or(0);
        word >> (at % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, at: u32) {
        let word = at as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (at % 64);
    }

    pub(crate) fn unset(&mut self, at: u32) {
        if let Some(word) = self.0.get_mut(at as usize / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Whether `other` has all that this has.
    pub(crate) fn is_within(&self, other: &Bits) -> bool {
        let mut words = self.0.iter().enumerate();
        words.all(|(at, word)| word & !other.0.get(at).copied().unwrap_or(0) == 0)
    }

    /// The only member that `other` does not have; `None` unless there is exactly one.
    pub(crate) fn only_one_besides(&self, other: &Bits) -> Option<u32> {
        let mut found = None;
        for (at, word) in self.0.iter().enumerate() {
            let rest = word & !other.0.get(at).copied().unwrap_or(0);
            if rest == 0 {
                continue;
            }
            if found.is_some() || rest & (rest - 1) != 0 {
                return None;
            }
            found = Some(at as u32 * 64 + rest.trailing_zeros());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_is_found_across_words() {
        let (mut all, mut some) = (Bits::default(), Bits::default());
        assert!(all.is_within(&some));
        all.set(3);
        all.set(70);
        assert_eq!(all.only_one_besides(&some), None);
        some.set(3);
        assert!(!all.is_within(&some));
        assert_eq!(all.only_one_besides(&some), Some(70));
        some.set(70);
        assert!(all.is_within(&some) && all.get(70));
        assert_eq!(all.only_one_besides(&some), None);
        some.unset(70);
        assert!(!some.get(70) && some.get(3));
        some.clear();
        assert!(!some.get(3));
    }
}
