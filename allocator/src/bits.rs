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

    /// Takes over the members of `other`.
    pub(crate) fn copy_from(&mut self, other: &Bits) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
    }

    /// Adds all members of `other`.
    pub(crate) fn add_all(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Adds all of `these` that are not in `those`.
    pub(crate) fn add_those_besides(&mut self, these: &Bits, those: &Bits) {
        if self.0.len() < these.0.len() {
            self.0.resize(these.0.len(), 0);
        }
        for (at, word) in these.0.iter().enumerate() {
            self.0[at] |= word & !those.0.get(at).copied().unwrap_or(0);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|it| *it == 0)
    }

    /// The members that `other` does not have: whether there are none, one, or more.
    pub(crate) fn besides(&self, other: &Bits) -> Besides {
        let mut found = Besides::None;
        for (at, word) in self.0.iter().enumerate() {
            let rest = word & !other.0.get(at).copied().unwrap_or(0);
            if rest == 0 {
                continue;
            }
            if !matches!(found, Besides::None) || rest & (rest - 1) != 0 {
                return Besides::Several;
            }
            found = Besides::One(at as u32 * 64 + rest.trailing_zeros());
        }
        found
    }

    /// Collects the members that `other` does not have, rising: whether there are `most` at most.
    pub(crate) fn few_besides(&self, other: &Bits, most: usize, found: &mut Vec<u32>) -> bool {
        found.clear();
        for (at, word) in self.0.iter().enumerate() {
            let mut rest = word & !other.0.get(at).copied().unwrap_or(0);
            if found.len() + rest.count_ones() as usize > most {
                return false;
            }
            while rest != 0 {
                found.push(at as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        true
    }

    /// The members that `other` does not have, rising.
    pub(crate) fn iter_besides<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = word & !other.0.get(at).copied().unwrap_or(0);
            core::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

/// What a set has that another one has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Besides {
    None,
    One(u32),
    Several,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_besides_others_are_found_across_words() {
        let (mut all, mut some) = (Bits::default(), Bits::default());
        assert_eq!(all.besides(&some), Besides::None);
        all.set(3);
        all.set(70);
        assert_eq!(all.besides(&some), Besides::Several);
        some.set(3);
        assert_eq!(all.besides(&some), Besides::One(70));
        assert_eq!(all.iter_besides(&some).collect::<Vec<_>>(), [70]);
        some.set(70);
        assert_eq!(all.besides(&some), Besides::None);
        let mut few = Vec::new();
        assert!(all.few_besides(&Bits::default(), 2, &mut few));
        assert_eq!(few, [3, 70]);
        assert!(!all.few_besides(&Bits::default(), 1, &mut few));
        some.unset(70);
        assert!(!some.get(70) && some.get(3));
        let mut more = Bits::default();
        more.add_those_besides(&all, &some);
        assert!(more.get(70) && !more.get(3));
        more.add_all(&some);
        assert!(more.get(3));
        some.clear();
        assert!(some.is_empty() && !all.is_empty());
    }
}
