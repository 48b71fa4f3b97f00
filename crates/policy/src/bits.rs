//! Sets of small numbers: of rules, and of what a question can offer.

/// A set of numbers below a size, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of numbers below `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    pub(crate) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(crate) fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.word(number / 64) >> (number % 64) & 1 == 1
    }

    /// The numbers from 64 × `index` on.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word |= other);
    }

    pub(crate) fn subtract(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word &= !other);
    }

    /// All numbers, from the lowest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| ones(*word).map(move |b| index * 64 + b))
    }
}

/// The numbers of the bits that are set, from the lowest.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

/// A set of rules: as a list while it is short, so that the sets of many services together take no
/// more than the rules do; else as bits, so that it is searched 64 rules at a time.
#[derive(Clone, Debug)]
pub(crate) enum RuleSet {
    /// In order.
    List(Vec<u32>),
    /// All of them.
    Bits(Bits),
}

impl RuleSet {
    /// Of a policy with `total` rules; `list` is in order.
    pub(crate) fn new(list: Vec<u32>, total: usize) -> Self {
        if list.len() <= (total / 64).max(8) {
            return Self::List(list);
        }
        let mut bits = Bits::new(total);
        list.iter().for_each(|rule| bits.insert(*rule as usize));
        Self::Bits(bits)
    }

    /// The first rule before `end` that `word` (64 rules at a time) has too.
    pub(crate) fn first(&self, end: usize, word: impl Fn(usize) -> u64) -> Option<usize> {
        match self {
            Self::List(list) => {
                let has = |rule: &usize| word(rule / 64) >> (rule % 64) & 1 == 1;
                list.iter().map(|rule| *rule as usize).take_while(|rule| *rule < end).find(has)
            }
            Self::Bits(bits) => (0..end.div_ceil(64)).find_map(|index| {
                let both = bits.word(index) & word(index);
                let rule = index * 64 + both.trailing_zeros() as usize;
                (both != 0 && rule < end).then_some(rule)
            }),
        }
    }

    /// Adds its rules to a set.
    pub(crate) fn add_to(&self, bits: &mut Bits) {
        match self {
            Self::List(list) => list.iter().for_each(|rule| bits.insert(*rule as usize)),
            Self::Bits(own) => bits.add(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bits, RuleSet};

    #[test]
    fn lists_and_bits_find_the_same_first_rule() {
        let list: Vec<u32> = (0..300).filter(|n| n % 7 == 3).collect();
        let mut bits = Bits::new(300);
        list.iter().for_each(|n| bits.insert(*n as usize));
        let (short, long) = (RuleSet::List(list), RuleSet::Bits(bits));
        let mut wanted = Bits::new(300);
        wanted.insert(4);
        wanted.insert(150);
        for end in [0, 4, 150, 151, 300] {
            let first = short.first(end, |index| wanted.word(index));
            assert_eq!(first, long.first(end, |index| wanted.word(index)));
            assert_eq!(first, (end > 150).then_some(150), "before {end}");
        }
    }

    #[test]
    fn what_was_inserted_is_there_until_it_is_removed() {
        let mut bits = Bits::new(130);
        [0, 63, 64, 129, 500].into_iter().for_each(|n| bits.insert(n));
        bits.remove(63);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert!(bits.contains(129) && !bits.contains(63) && !bits.contains(500));
    }
}
