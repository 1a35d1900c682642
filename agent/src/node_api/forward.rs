//! One TCP connection to a port of a pod, relayed.

use super::{NodeApi, Out, STREAM_WAITING_MAX};
use crate::world::Network as _;
use std::{net::SocketAddr, time::Duration};
use strata_model::limits::CHUNK_BYTES;
use strata_proto::node::{DataChunk, PortForwardInput, port_forward_input::Message as In};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How long the first message may take.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long the pod may take to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<Result<DataChunk, Status>>;

impl NodeApi {
    /// Connects to the pod's address from the node; the answer comes when the pod has accepted.
    pub(super) async fn forward_stream(
        &self,
        mut input: Streaming<PortForwardInput>,
    ) -> Result<Out<DataChunk>, Status> {
        let permit = self.begin()?;
        let first = timeout(START_WAIT, input.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the port to connect to did not come"))??;
        let Some(In::Start(start)) = first.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("the first message names the port to connect to"));
        };
        let port = u16::try_from(start.port).ok().filter(|p| *p > 0);
        let port = port.ok_or_else(|| Status::invalid_argument("port: 1 to 65535"))?;
        let assignment = self.pods.assignment(&start.pod_uid);
        let address = assignment.and_then(|a| self.node.pod_address(a.address_index));
        let address = address.ok_or_else(|| Status::not_found(format!("pod {} is not on this node", start.pod_uid)))?;
        let to = SocketAddr::from((address, port));
        let connected = timeout(CONNECT_WAIT, TcpStream::connect(to)).await;
        let stream = connected
            .map_err(|_| Status::unavailable(format!("{to} did not accept within {} s", CONNECT_WAIT.as_secs())))?
            .map_err(|e| Status::failed_precondition(format!("cannot connect to {to}: {e}")))?;
        let (reader, writer) = stream.into_split();
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            let closed = sender.clone();
            let relay = async { tokio::join!(feed(input, writer), drain(reader, sender)) };
            tokio::select! {
                _ = relay => {}
                // Whoever asked has gone.
                () = closed.closed() => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// To the pod. The client's end of sending is passed on; what it still receives goes on.
async fn feed(mut input: Streaming<PortForwardInput>, mut writer: OwnedWriteHalf) {
    while let Ok(Some(message)) = input.message().await {
        match message.message {
            Some(In::Data(data)) => {
                if writer.write_all(&data).await.is_err() {
                    return;
                }
            }
            Some(In::End(_)) => break,
            Some(In::Start(_)) | None => {}
        }
    }
    // A pod that has closed already need not be told.
    writer.shutdown().await.ok();
}

/// From the pod.
async fn drain(mut reader: OwnedReadHalf, sender: Sender) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let chunk = match reader.read(&mut buffer).await {
            Ok(0) => return,
            Ok(count) => Ok(DataChunk { data: buffer[..count].to_vec() }),
            Err(e) => Err(Status::aborted(format!("the pod broke the connection: {e}"))),
        };
        let broken = chunk.is_err();
        if sender.send(chunk).await.is_err() || broken {
            return;
        }
    }
}
