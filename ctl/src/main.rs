//! The command line of Strata

fn main() {}
