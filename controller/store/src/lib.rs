//! Revisioned objects: one writer, group commit, pluggable backends
