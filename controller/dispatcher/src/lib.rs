//! Assignment sets and frames, leases, purely
