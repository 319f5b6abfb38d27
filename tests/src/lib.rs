//! What the tests of real processes share.
