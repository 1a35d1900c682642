//! The uniform object API.

use super::{ApiState, Refusal, apply, delete, validate, view};
use crate::secrets::redact;
use std::sync::Arc;
use strata_proto::{
    cluster::{
        ApplyRequest, ApplyResponse, DeleteRequest, DeleteResponse, GetRequest, ListRequest, ListResponse,
        WatchRequest, WatchResponse, objects_server::Objects,
    },
    types::Object,
};
use strata_store::Key;
use strata_telemetry::TRACE_PARENT_KEY;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, info_span};

pub(super) struct ObjectsService(pub Arc<ApiState>);

#[tonic::async_trait]
impl Objects for ObjectsService {
    type ListStream = view::BoxStream<ListResponse>;
    type WatchStream = view::BoxStream<WatchResponse>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let parent =
            request.metadata().get(TRACE_PARENT_KEY).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let request = request.into_inner();
        let span = info_span!("apply", object = request.object.as_ref().map(|o| Key::of(o).to_string()));
        strata_telemetry::continue_trace(&span, &parent);
        let mut trace = strata_telemetry::trace_parent(&span);
        if trace.is_empty() && strata_telemetry::is_trace_parent(&parent) {
            // This process exports no spans; the next may.
            trace = parent;
        }
        let mut answer = apply::apply(&self.0, request, &trace).instrument(span).await?;
        answer.object.iter_mut().for_each(redact);
        Ok(Response::new(answer))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let request = request.into_inner();
        let key = validate::key(request.kind, &request.namespace, &request.name)?;
        let snapshot = self.0.store.snapshot();
        let object = snapshot.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
        Ok(Response::new(view::Shown::new(&snapshot, key.kind, &key.namespace).of(&object)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Ok(Response::new(view::list(&self.0, request.get_ref())?))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(view::watch(&self.0, request.get_ref())?))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let mut answer = delete::delete(&self.0, request.into_inner()).await?;
        answer.object.iter_mut().for_each(redact);
        Ok(Response::new(answer))
    }
}
