//! Whole transfers, with a CRIU that says what the tests want: the real one is under tests/host.

mod arrivals;
mod failures;
mod fixture;
mod hostile;
