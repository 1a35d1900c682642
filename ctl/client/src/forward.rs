//! TCP connections to pods.

use crate::{Client, ClientError, limits, objects::describe, unary};
use strata_proto::{
    cluster::{PodRequest, PortForwardRequest},
    node::{DataChunk, PortForwardInput, port_forward_input::Message},
    types::Kind,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

/// The writing half of a forwarded connection.
#[derive(Debug, Clone)]
pub struct ForwardInput(mpsc::Sender<PortForwardRequest>);

impl ForwardInput {
    /// Sends data to the pod. False when the connection is over.
    pub async fn data(&self, data: Vec<u8>) -> bool {
        self.send(Message::Data(data)).await
    }

    /// Says that no more comes. False when the connection is over.
    pub async fn end(&self) -> bool {
        self.send(Message::End(true)).await
    }

    async fn send(&self, message: Message) -> bool {
        let input = Some(PortForwardInput { message: Some(message) });
        self.0.send(PortForwardRequest { input, ..PortForwardRequest::default() }).await.is_ok()
    }
}

impl Client {
    /// Opens one TCP connection to a port of a pod; answers when the pod has accepted it.
    ///
    /// # Errors
    /// By kind.
    pub async fn forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<(ForwardInput, Streaming<DataChunk>), ClientError> {
        let doing = format!("connect to port {port} of {}", describe(Kind::Pod, namespace, pod));
        let (input, outgoing) = mpsc::channel(limits::OUTGOING_MAX);
        let target = PodRequest { namespace: namespace.into(), pod: pod.into(), container: String::new() };
        let first = PortForwardRequest { pod: Some(target), port: port.into(), input: None };
        // The queue is empty and its receiver alive, so this cannot fail.
        drop(input.try_send(first));
        let mut cluster = self.cluster.clone();
        let output = unary(&doing, limits::STREAM_START_TIMEOUT, ReceiverStream::new(outgoing), |r| async move {
            cluster.port_forward(Request::new(r.into_inner())).await
        });
        Ok((ForwardInput(input), output.await?))
    }
}
