//! Keys as numbers, so that one can be guessed that lies some pages further on.
//!
//! Most keys are written by programs: counters, dates, hashes. In each place of such keys stand few characters,
//! and those are learned from the keys that came. They are the digits of a number then, in which ten
//! follow each other where there are decimals, sixteen in a hash, and none where all keys have the same
//! letter; a number that is a little larger is a key that is a little further on. What is guessed need not
//! exist: a listing can begin anywhere.

/// Places of a key that are looked at: enough for a date, a hash or two counters.
const PLACES: usize = 96;

/// Numbers stay below this, so that sums of them are numbers too.
const LIMIT: u128 = 1 << 100;

/// What stands in the places of keys.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    prefix: String,
    places: Vec<Place>,
}

/// What stands in one place.
#[derive(Debug, Default, Clone)]
struct Place {
    /// The characters of ASCII that were seen, a bit each.
    seen: u128,
    /// Some of the others.
    others: Vec<char>,
    /// Whether keys end here.
    ends: bool,
    /// The digits, in order; [`END`] for an end.
    digits: Vec<char>,
}

/// Before all characters that are guessed.
const END: char = '\0';

/// Characters beyond ASCII that are told apart in one place.
const MAX_OTHERS: usize = 64;

impl Ranks {
    /// Of keys that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), places: Vec::new() }
    }

    /// Looks at a key.
    pub(super) fn learn(&mut self, key: &str) {
        let Some(rest) = key.strip_prefix(self.prefix.as_str()) else { return };
        let characters = rest.chars().map(Some).chain([None]);
        for (at, character) in characters.take(PLACES).enumerate() {
            if self.places.len() == at {
                self.places.push(Place::default());
            }
            self.places[at].learn(character);
        }
    }

    /// The number of a key. Those of two keys are in their order, or alike.
    pub(super) fn of(&self, key: &str) -> u128 {
        let mut rest = key.strip_prefix(self.prefix.as_str()).unwrap_or_default().chars();
        let (mut number, mut bound) = (0, None);
        for place in self.counted() {
            let digit = match bound {
                Some(bound) => bound,
                None => place.digit_of(rest.next()).unwrap_or_else(|(digit, onward)| {
                    bound = Some(onward);
                    digit
                }),
            };
            number = number * place.base() + digit.min(place.base() - 1);
        }
        number
    }

    /// A key with about that number, which need not exist.
    pub(super) fn key(&self, number: u128) -> String {
        let places: Vec<&Place> = self.counted().collect();
        let (mut number, mut backwards) = (number, Vec::with_capacity(places.len()));
        for place in places.iter().rev() {
            let digit = usize::try_from(number % place.base()).unwrap_or(0);
            backwards.push(place.digits.get(digit).copied().unwrap_or(END));
            number /= place.base();
        }
        let text = backwards.into_iter().rev().take_while(|character| *character != END);
        let mut key = self.prefix.clone();
        key.extend(text);
        key
    }

    /// The places that a number has room for.
    fn counted(&self) -> impl Iterator<Item = &Place> {
        let mut room = LIMIT;
        self.places.iter().take_while(move |place| {
            room /= place.base();
            room > 0
        })
    }
}

impl Place {
    fn learn(&mut self, character: Option<char>) {
        match character {
            None if self.ends => return,
            None => self.ends = true,
            Some(' '..='~') => {
                let bit = 1 << u32::from(character.unwrap_or(END));
                if self.seen & bit != 0 {
                    return;
                }
                self.seen |= bit;
            }
            Some('\u{80}'..) => {
                let Some(other) = character else { return };
                if self.others.len() >= MAX_OTHERS || self.others.contains(&other) {
                    return;
                }
                self.others.push(other);
                self.others.sort_unstable();
            }
            // Control characters are not guessed.
            Some(_) => return,
        }
        let has = |character: char| self.seen & (1 << u32::from(character)) != 0;
        // What was not seen may come: counters go on, and so do hashes. Words do as well, but not
        // where all have the same letter.
        let (is_number, letters) =
            (('0'..='9').any(has), ('a'..='z').filter(|letter| has(*letter)).count());
        let is_hash = is_number && ('a'..='f').any(has);
        let is_word = letters > 1 && ('g'..='z').any(has);
        let ascii = (' '..='~').filter(|it| {
            has(*it)
                || is_number && it.is_ascii_digit()
                || is_hash && ('a'..='f').contains(it)
                || is_word && it.is_ascii_lowercase()
        });
        let end = self.ends.then_some(END);
        self.digits = end.into_iter().chain(ascii).chain(self.others.iter().copied()).collect();
    }

    fn base(&self) -> u128 {
        self.digits.len().max(1) as u128
    }

    /// The digit of a character, or of the end; for another one, the digit beside it and that of all places
    /// behind, the lowest or the highest.
    fn digit_of(&self, character: Option<char>) -> Result<u128, (u128, u128)> {
        match self.digits.binary_search(&character.unwrap_or(END)) {
            Ok(digit) => Ok(digit as u128),
            Err(at) if at == self.digits.len() => Err((self.base() - 1, u128::MAX)),
            Err(at) => Err((at as u128, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranks<'a>(prefix: &str, keys: impl IntoIterator<Item = &'a str>) -> Ranks {
        let mut ranks = Ranks::new(prefix);
        keys.into_iter().for_each(|key| ranks.learn(key));
        ranks
    }

    #[test]
    fn counters_go_on() {
        let keys: Vec<String> = (0..1000).map(|at| format!("p/d000001/f{at:03}.gz")).collect();
        let ranks = ranks("p/", keys.iter().map(String::as_str));
        let number = ranks.of("p/d000001/f500.gz");
        assert_eq!(ranks.key(number + 250), "p/d000001/f750.gz");
        assert_eq!(ranks.key(number + 8_500), "p/d000010/f000.gz");
        assert_eq!(ranks.of("p/d000042/f000.gz") - number, 40_500);
    }

    #[test]
    fn words_and_hashes_go_on() {
        let hashes = ranks("", ["03af", "7b1c", "9ee0"]);
        assert_eq!(hashes.key(hashes.of("7b1c") + 0x1000), "8b1c");
        let words = ranks("", ["sun", "moon"]);
        assert_eq!(words.key(words.of("moon") + 1), "mop");
    }

    proptest! {
        #[test]
        fn numbers_are_in_the_order_of_their_keys(
            learned in prop::collection::vec("[ab19/\u{1}ü]{0,5}", 0..20),
            one in "[ab19z/\u{1}ü]{0,6}",
            other in "[ab19z/\u{1}ü]{0,6}",
        ) {
            let ranks = ranks("", learned.iter().map(String::as_str));
            let (low, high) = if one < other { (one, other) } else { (other, one) };
            prop_assert!(ranks.of(&low) <= ranks.of(&high));
            // And what is guessed of a number is not before it.
            let _ = ranks.key(ranks.of(&low) + 1);
        }
    }
}
