//! Changing an object that was read: if somebody else was faster, it is read again.

use crate::{exit::Failure, kind::parse_kind, session::Session};
use strata_client::{ApplyMode, ClientError, ErrorKind};
use strata_proto::types::{Kind, Node, NodeSpec, Object, Workload, WorkloadSpec, object};

/// Attempts against others who change the object at the same time.
const ATTEMPTS_MAX: u32 = 8;

/// The name of a workload, given as NAME or workload/NAME.
pub fn workload_name(text: &str) -> Result<&str, Failure> {
    match text.split_once('/') {
        None => Ok(text),
        Some((kind, name)) if parse_kind(kind) == Ok(Kind::Workload) => Ok(name),
        Some(_) => Err(Failure::usage(format!("{text:?}: only workloads are rolled out"))),
    }
}

/// Changes the spec of a workload; answers it as it is then.
pub async fn workload(
    session: &Session,
    name: &str,
    change: impl Fn(&mut WorkloadSpec) -> Result<(), Failure>,
) -> Result<Object, Failure> {
    edit(session, Kind::Workload, name, |object| match &mut object.kind {
        Some(object::Kind::Workload(Workload { spec, .. })) => change(spec.get_or_insert_default()),
        _ => Err(Failure::failed(format!("workload {name}: the answer is of another kind"))),
    })
    .await
}

/// Changes the spec of a node; answers it as it is then.
pub async fn node(session: &Session, name: &str, change: impl Fn(&mut NodeSpec)) -> Result<Object, Failure> {
    edit(session, Kind::Node, name, |object| match &mut object.kind {
        Some(object::Kind::Node(Node { spec, .. })) => {
            change(spec.get_or_insert_default());
            Ok(())
        }
        _ => Err(Failure::failed(format!("node {name}: the answer is of another kind"))),
    })
    .await
}

async fn edit(
    session: &Session,
    kind: Kind,
    name: &str,
    change: impl Fn(&mut Object) -> Result<(), Failure>,
) -> Result<Object, Failure> {
    let mut conflict: Option<ClientError> = None;
    for _ in 0..ATTEMPTS_MAX {
        let mut object = session.client.get(kind, session.namespace_of(kind), name).await?;
        change(&mut object)?;
        match session.client.apply(object, ApplyMode::Apply).await {
            Ok(applied) => return Ok(applied.object),
            Err(error) if error.kind == ErrorKind::Conflict => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| Failure::failed("not tried"), Failure::from))
}
