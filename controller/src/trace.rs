//! Handing a trace on from one control loop to the next, through the objects that they change: apply -> plan -> place -> what the node does.

use strata_proto::types::object::Kind;
use strata_store::{Change, Op};
use tracing::Span;

/// The part of a `traceparent` that names the trace.
fn trace_id(trace_parent: &str) -> Option<&str> {
    trace_parent.get(3..35)
}

/// Lets what follows from these changes of pods continue from `span`: those that belong to its trace. Without an exporter nothing changes.
pub(crate) fn hand_on(span: &Span, changes: &mut [Change]) {
    let here = strata_telemetry::trace_parent(span);
    if here.is_empty() {
        return;
    }
    for change in changes {
        if let Op::Put(object) = &mut change.op
            && matches!(object.kind, Some(Kind::Pod(_)))
            && let Some(meta) = &mut object.meta
            && trace_id(&meta.trace_parent) == trace_id(&here)
        {
            here.clone_into(&mut meta.trace_parent);
        }
    }
}
