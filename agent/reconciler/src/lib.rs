//! What to do next on a node, purely: plan(assigned, observed, now) -> steps
