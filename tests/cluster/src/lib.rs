//! Tests of a running three-node cluster, made by `deploy/quickstart`: see `tests/run cluster`. One file per topic in `tests/`;
//! each test removes what it applied. They run one at a time.
