//! Asking the controller which node has a layer or an image.

use futures::future::BoxFuture;
use strata_peer::AskController;
use strata_proto::cluster::{LocateRequest, LocateResponse, cluster_client::ClusterClient};
use strata_transport::{CONTROLLER_SERVER_NAME, Identity, TransportError, client};
use tonic::{Status, transport::Channel};

/// The controller, asked over a channel of its own that connects when it is first used.
pub struct ViaController(Channel);

impl ViaController {
    /// Makes the channel.
    ///
    /// # Errors
    /// If address or identity are malformed.
    pub fn new(controller: &str, identity: &Identity) -> Result<Self, TransportError> {
        client::channel_lazy(controller, identity, CONTROLLER_SERVER_NAME).map(Self)
    }
}

impl AskController for ViaController {
    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateResponse, Status>> {
        let mut client = ClusterClient::new(self.0.clone());
        Box::pin(async move { client.locate(request).await.map(tonic::Response::into_inner) })
    }
}
