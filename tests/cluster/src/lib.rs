//! Tests of a running three-node cluster
