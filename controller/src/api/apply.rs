//! Apply: what the object becomes is decided purely, then committed under the condition that nothing changed meanwhile.

mod marks;

use super::{ApiState, Refusal, act, limits, namespaces, services, storage, validate};
use strata_proto::{
    BadObject,
    cluster::{ApplyRequest, ApplyResponse, apply_response::Outcome},
    document::is_namespaced,
    timestamp_now,
    types::{Kind, Meta, NodeSpec, Object, PodSpec, WorkloadSpec, object, workload_spec::Mode},
};
use strata_store::{Change, Condition, Key, StoreError};
use tonic::Code;

/// What only the shell knows: randomness and time, for a new object.
pub(super) struct Birth {
    pub uid: String,
    pub created: pbjson_types::Timestamp,
}

/// `trace` is the `traceparent` of the call, "" = none; it is kept with what the call changes.
pub(super) async fn apply(state: &ApiState, request: ApplyRequest, trace: &str) -> Result<ApplyResponse, Refusal> {
    let object = request.object.ok_or_else(|| Refusal::invalid("object: is missing"))?;
    let wanted = validate::normalise(object)?;
    let key = Key::of(&wanted);
    let _turn = if key.kind == Kind::Service { Some(state.services.lock().await) } else { None };
    for _ in 0..limits::RETRIES {
        let snapshot = state.store.snapshot();
        let present = snapshot.get(&key);
        let completed = match key.kind {
            Kind::Service => Some(services::complete(&snapshot, state.service_range, &wanted, present.as_deref())?),
            _ => None,
        };
        let wanted = completed.as_ref().unwrap_or(&wanted);
        let mut changes = Vec::new();
        if is_namespaced(key.kind) {
            changes.push(namespaces::require(&snapshot, &key.namespace)?);
            storage::allowed(&snapshot, wanted)?;
        }
        if request.create_only && present.is_some() {
            return Err(Refusal::new(Code::AlreadyExists, "AlreadyExists", format!("{key} is there already")));
        }
        let birth = Birth { uid: uuid::Uuid::now_v7().to_string(), created: timestamp_now() };
        let mut wanted = wanted.clone();
        let uid = present.as_ref().map_or(&birth.uid, |p| &crate::objects::meta(p).uid);
        let sealed = state.vault.seal(&mut wanted, present.as_deref(), uid);
        sealed.map_err(|e| Refusal::new(Code::Internal, "NotSealed", format!("{key}: {e}")))?;
        let (mut object, outcome) = decide_apply(&wanted, present.as_deref(), birth)?;
        if request.dry_run || outcome == Outcome::Unchanged {
            return Ok(ApplyResponse { object: Some(object), outcome: outcome.into(), warnings: vec![] });
        }
        trace.clone_into(&mut object.meta.get_or_insert_default().trace_parent);
        let condition = match &present {
            Some(present) => Condition::Revision(revision(present)),
            None => Condition::Absent,
        };
        // Pods that were stopped with their workload start with it, too.
        changes.extend(present.as_ref().map(|p| act::started(&snapshot, p, &object)).unwrap_or_default());
        changes.push(Change::put(object, condition));
        match state.commit(changes).await {
            Ok(commit) => {
                let object = commit.objects.last().map(|o| (**o).clone());
                return Ok(ApplyResponse { object, outcome: outcome.into(), warnings: vec![] });
            }
            // Someone else was faster. A condition of the caller is looked at again above; without one the newer state is the base.
            Err(super::StoreErrorOrTimeout::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::conflict(format!("{key} was changed by others {} times meanwhile: try again", limits::RETRIES)))
}

pub(super) fn revision(object: &Object) -> u64 {
    object.meta.as_ref().map_or(0, |m| m.revision)
}

/// What the object becomes when `wanted` is applied to what is there.
pub(super) fn decide_apply(
    wanted: &Object,
    present: Option<&Object>,
    birth: Birth,
) -> Result<(Object, Outcome), Refusal> {
    let meta = wanted.meta.clone().unwrap_or_default();
    let key = Key::of(wanted);
    let Some(present) = present else {
        if meta.revision != 0 {
            return Err(Refusal::conflict(format!(
                "{key} is not there, but revision {} of it was expected",
                meta.revision
            )));
        }
        let kind = new_kind(wanted)?;
        let meta = Meta {
            uid: birth.uid,
            created: Some(birth.created),
            generation: 1,
            revision: 0,
            deleted: None,
            owner: String::new(),
            ..marks::noted(meta)
        };
        return Ok((Object { meta: Some(meta), kind: Some(kind) }, Outcome::Created));
    };
    let old = present.meta.clone().unwrap_or_default();
    if meta.revision != 0 && meta.revision != old.revision {
        return Err(Refusal::conflict(format!(
            "{key} is at revision {}, not at {}: read it again and repeat the change",
            old.revision, meta.revision
        )));
    }
    if !meta.uid.is_empty() && meta.uid != old.uid {
        return Err(Refusal::conflict(format!("{key} was deleted and made again since: it has another uid")));
    }
    if old.deleted.is_some() {
        return Err(Refusal::precondition(
            "BeingDeleted",
            format!("{key} is being deleted: apply it again when it is gone"),
        ));
    }
    let kind = changed_kind(wanted, present)?;
    let mut merged = marks::merged(&old, meta);
    let spec_changed = Some(&kind) != present.kind.as_ref();
    if !spec_changed && merged == old {
        return Ok((present.clone(), Outcome::Unchanged));
    }
    if spec_changed {
        merged.generation += 1;
    }
    Ok((Object { meta: Some(merged), kind: Some(kind) }, Outcome::Configured))
}

/// The spec of a new object with its defaults, and no status.
fn new_kind(wanted: &Object) -> Result<object::Kind, Refusal> {
    match wanted.kind.clone() {
        Some(object::Kind::Workload(mut w)) => {
            w.spec = w.spec.map(|s| default_workload(s, None));
            w.status = None;
            Ok(object::Kind::Workload(w))
        }
        Some(object::Kind::Pod(mut p)) => {
            validate::new_pod(p.spec.as_ref().unwrap_or(&PodSpec::default()))?;
            p.status = None;
            Ok(object::Kind::Pod(p))
        }
        Some(object::Kind::Namespace(mut n)) => {
            n.spec.get_or_insert_default();
            Ok(object::Kind::Namespace(n))
        }
        Some(object::Kind::Service(mut s)) => {
            s.status = None;
            Ok(object::Kind::Service(s))
        }
        Some(object::Kind::Volume(mut v)) => {
            v.status = None;
            Ok(object::Kind::Volume(v))
        }
        Some(kind @ (object::Kind::Config(_) | object::Kind::Secret(_))) => Ok(kind),
        Some(object::Kind::Node(_)) => Err(Refusal::precondition(
            "NodeNotJoined",
            "there is no such node: nodes appear when their agents join (`ctl token create`)",
        )),
        Some(object::Kind::Image(_)) => Err(Refusal::precondition(
            "ImageNotFound",
            "the cluster has no such image: get it with `ctl image pull` or `ctl image import`",
        )),
        _ => Err(Refusal::invalid("kind: cannot be applied")),
    }
}

/// The new spec with the status that is there.
fn changed_kind(wanted: &Object, present: &Object) -> Result<object::Kind, Refusal> {
    match (wanted.kind.clone(), present.kind.clone()) {
        (Some(object::Kind::Workload(new)), Some(object::Kind::Workload(mut old))) => {
            let replicas = old.spec.as_ref().and_then(|s| s.replicas);
            same_mode(new.spec.as_ref(), old.spec.as_ref())?;
            old.spec = new.spec.map(|s| default_workload(s, replicas));
            Ok(object::Kind::Workload(old))
        }
        (Some(object::Kind::Pod(new)), Some(object::Kind::Pod(mut old))) => {
            let spec = old.spec.get_or_insert_default();
            same_pod(&new.spec.unwrap_or_default(), spec).map(|desired| spec.desired = desired)?;
            Ok(object::Kind::Pod(old))
        }
        (Some(object::Kind::Node(new)), Some(object::Kind::Node(mut old))) => {
            let (new, spec) = (new.spec.unwrap_or_default(), old.spec.get_or_insert_default());
            let same = NodeSpec { unschedulable: spec.unschedulable, draining: spec.draining, ..new.clone() };
            if (new.index != 0 || !new.subnet.is_empty()) && same != *spec {
                return Err(
                    BadObject::new("spec", "index and subnet of a node are the controller's: leave them out").into()
                );
            }
            spec.unschedulable = new.unschedulable;
            spec.draining = new.draining;
            Ok(object::Kind::Node(old))
        }
        // Only labels and annotations of an image are people's.
        (Some(object::Kind::Image(_)), Some(old @ object::Kind::Image(_))) => Ok(old),
        (Some(new @ object::Kind::Namespace(_)), Some(object::Kind::Namespace(_))) => Ok(new),
        (Some(object::Kind::Config(new)), Some(object::Kind::Config(old))) => {
            storage::same_if_immutable(old.spec.as_ref().is_some_and(|s| s.immutable), new == old)?;
            Ok(object::Kind::Config(new))
        }
        (Some(object::Kind::Secret(new)), Some(object::Kind::Secret(old))) => {
            storage::same_if_immutable(old.spec.as_ref().is_some_and(|s| s.immutable), new == old)?;
            Ok(object::Kind::Secret(new))
        }
        (Some(object::Kind::Service(new)), Some(object::Kind::Service(mut old))) => {
            old.spec = new.spec;
            Ok(object::Kind::Service(old))
        }
        (Some(object::Kind::Volume(new)), Some(object::Kind::Volume(mut old))) => {
            old.spec = Some(storage::changed_volume(new.spec.unwrap_or_default(), old.spec.unwrap_or_default())?);
            Ok(object::Kind::Volume(old))
        }
        _ => Err(Refusal::invalid("kind: cannot be applied")),
    }
}

/// What a workload is stays; and what a job runs.
fn same_mode(new: Option<&WorkloadSpec>, old: Option<&WorkloadSpec>) -> Result<(), Refusal> {
    let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
    let immutable = |field: &str, why: &str| {
        Refusal::precondition("Immutable", format!("spec.{field}: {why}; delete the workload and apply it again"))
    };
    if new.mode != old.mode {
        let (now, then) = (old.mode().as_str_name(), new.mode().as_str_name());
        return Err(immutable("mode", &format!("it is {now} and cannot become {then}")));
    }
    if new.ordered != old.ordered {
        return Err(immutable("ordered", "its pods are named the one way or the other"));
    }
    if new.mode() == Mode::Job && new.template != old.template {
        return Err(immutable("template", "a job runs what it was made with"));
    }
    Ok(())
}

/// Of a pod only what is desired can be changed. Fields that are left out stay.
fn same_pod(new: &PodSpec, old: &PodSpec) -> Result<i32, Refusal> {
    let immutable = |field: &str| {
        Refusal::precondition(
            "Immutable",
            format!(
                "spec.{field}: a pod is bound to its template and node for life; delete it and apply it again, or change its workload"
            ),
        )
    };
    if new.template.is_some() && new.template != old.template {
        return Err(immutable("template"));
    }
    let kept = |new: &str, old: &str| new.is_empty() || new == old;
    let fields = [
        ("templateRevision", kept(&new.template_revision, &old.template_revision)),
        ("workload", kept(&new.workload, &old.workload)),
        ("node", kept(&new.node, &old.node)),
        ("predecessor", kept(&new.predecessor, &old.predecessor)),
        ("addressIndex", new.address_index == 0 || new.address_index == old.address_index),
        ("ordinal", new.ordinal == 0 || new.ordinal == old.ordinal),
    ];
    match fields.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(immutable(field)),
        None => Ok(new.desired),
    }
}

/// Fills what was left out: the present number of replicas, one pod above it in updates.
fn default_workload(mut spec: WorkloadSpec, present_replicas: Option<u32>) -> WorkloadSpec {
    spec.replicas = match spec.mode() {
        Mode::Replicated => Some(spec.replicas.or(present_replicas).unwrap_or(1)),
        Mode::Global | Mode::Job | Mode::Cron => None,
    };
    if spec.update.is_none_or(|u| u.max_surge == 0 && u.max_unavailable == 0) {
        spec.update.get_or_insert_default().max_surge = 1;
    }
    spec
}

/// Whether people may delete objects of this kind.
pub(super) fn is_internal(kind: Kind) -> bool {
    matches!(kind, Kind::Template | Kind::Event)
}
