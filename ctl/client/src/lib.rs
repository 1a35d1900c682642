//! The typed client of a Strata cluster
