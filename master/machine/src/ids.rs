//! The ids that a term makes (behaviour section 1): all carry the master id of the
//! birth, so that no two terms ever make the same one.

use tepui_model::id::{AgentId, FrameworkId, OfferId, Uuid};

/// Makes ids; nothing of it is replicated.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    master_id: String,
    seed: u64,
    frameworks: u64,
    agents: u64,
    offers: u64,
    uuids: u64,
}

impl Ids {
    pub(crate) fn new(master_id: &str, seed: u64) -> Ids {
        Ids {
            master_id: master_id.to_owned(),
            seed,
            frameworks: 0,
            agents: 0,
            offers: 0,
            uuids: 0,
        }
    }

    pub(crate) fn master_id(&self) -> &str {
        &self.master_id
    }

    /// `<master id>-NNNN`, four digits at least.
    pub(crate) fn framework(&mut self) -> FrameworkId {
        let id = format!("{}-{:04}", self.master_id, self.frameworks);
        self.frameworks += 1;
        FrameworkId::from(id)
    }

    /// `<master id>-S<n>`.
    pub(crate) fn agent(&mut self) -> AgentId {
        let id = format!("{}-S{}", self.master_id, self.agents);
        self.agents += 1;
        AgentId::from(id)
    }

    /// Number of the next offer or inverse offer.
    pub(crate) fn offer_number(&mut self) -> u64 {
        let number = self.offers;
        self.offers += 1;
        number
    }

    /// `<master id>-O<n>`.
    pub(crate) fn offer_id(&self, number: u64) -> OfferId {
        OfferId::from(format!("{}-O{number}", self.master_id))
    }

    /// The number in an offer id of this term; `None` for ids that this term never
    /// wrote (other spellings of the same number included).
    pub(crate) fn parse_offer(&self, id: &str) -> Option<u64> {
        let digits = id
            .strip_prefix(self.master_id.as_str())?
            .strip_prefix("-O")?;
        let canonical = digits == "0"
            || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
        if !canonical {
            return None;
        }
        digits.parse().ok().filter(|number| *number < self.offers)
    }

    /// A random-looking UUID (version 4 layout) drawn from the seed: container ids,
    /// operation uuids.
    pub(crate) fn uuid(&mut self) -> Uuid {
        self.uuids += 1;
        let high = mix(self.seed ^ mix(self.uuids));
        let low = mix(high ^ self.uuids.rotate_left(32));
        Uuid::from_random_bits(u128::from(high) << 64 | u128::from(low))
    }
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_have_the_mesos_forms() {
        let mut ids = Ids::new("m", 1);
        assert_eq!(ids.framework().as_str(), "m-0000");
        assert_eq!(ids.framework().as_str(), "m-0001");
        assert_eq!(ids.agent().as_str(), "m-S0");
        let number = ids.offer_number();
        assert_eq!(ids.offer_id(number).as_str(), "m-O0");
    }

    #[test]
    fn only_offers_of_this_term_parse() {
        let mut ids = Ids::new("m", 1);
        for _ in 0..11 {
            ids.offer_number();
        }
        assert_eq!(ids.parse_offer("m-O10"), Some(10));
        for other in [
            "m-O11",
            "m-O01",
            "m-O",
            "m-O+1",
            "n-O1",
            "m-O-1",
            "m-O99999999999999999999",
        ] {
            assert_eq!(ids.parse_offer(other), None, "{other}");
        }
    }

    #[test]
    fn uuids_do_not_repeat_and_follow_the_seed() {
        let mut ids = Ids::new("m", 7);
        let made: BTreeSet<Uuid> = (0..10_000).map(|_| ids.uuid()).collect();
        assert_eq!(made.len(), 10_000);
        assert_eq!(Ids::new("m", 7).uuid(), Ids::new("m", 7).uuid());
        assert_ne!(Ids::new("m", 7).uuid(), Ids::new("m", 8).uuid());
    }
}
