//! Strata and Kubernetes manifests to objects, errors with line and column
