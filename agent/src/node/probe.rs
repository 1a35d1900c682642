//! Asking a container: a command in it, or a connection from the node to the pod's address.

mod exec;

use super::Node;
use crate::world::{Network, PodSpec, Probing};
use std::{error::Error, net::Ipv4Addr, time::Duration};
use strata_model::{Check, ContainerName, Labels};
use strata_reconciler::Answer;
use tokio::{net::TcpStream, time::timeout};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Characters of an answer that are kept.
const MESSAGE_CHARS_MAX: usize = 256;

impl Probing for Node {
    async fn probe(&self, pod: &PodSpec, container: &ContainerName, check: &Check, wait: Duration) -> Answer {
        let asked = async {
            match check {
                Check::Exec(command) => {
                    let shim = self.shim(&pod.uid).ok_or_else(|| "the pod's sandbox is gone".to_owned())?;
                    exec::ask(&shim, container, command).await
                }
                Check::Http { path, port, https, headers } => {
                    http(self.address(pod)?, *port, path, *https, headers).await
                }
                Check::Tcp { port } => {
                    let address = self.address(pod)?;
                    let connected = TcpStream::connect((address, *port)).await;
                    connected.map(|_| String::new()).map_err(|e| format!("connecting to {address}:{port}: {e}"))
                }
                Check::Grpc { port, service } => grpc(self.address(pod)?, *port, service).await,
            }
        };
        // Dropped at the timeout: connections close, a command is killed.
        let found =
            timeout(wait, asked).await.unwrap_or_else(|_| Err(format!("no answer within {} s", wait.as_secs())));
        let cut = |text: String| text.chars().take(MESSAGE_CHARS_MAX).collect();
        match found {
            Ok(message) => Answer { good: true, message: cut(message) },
            Err(message) => Answer { good: false, message: cut(message) },
        }
    }
}

impl Node {
    fn address(&self, pod: &PodSpec) -> Result<Ipv4Addr, String> {
        self.pod_address(pod.address_index).ok_or_else(|| "the pod has no address yet".to_owned())
    }
}

async fn http(address: Ipv4Addr, port: u16, path: &str, https: bool, headers: &Labels) -> Result<String, String> {
    let scheme = if https { "https" } else { "http" };
    let url = format!("{scheme}://{address}:{port}{path}");
    let client = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent("strata-probe")
        .build()
        .map_err(|e| format!("making an HTTP client: {}", chain(&e)))?;
    let request = headers.iter().fold(client.get(&url), |request, (name, value)| request.header(name, value));
    let answer = request.send().await.map_err(|e| format!("GET {url}: {}", chain(&e)))?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() { Ok(String::new()) } else { Err(format!("GET {url}: {status}")) }
}

async fn grpc(address: Ipv4Addr, port: u16, service: &str) -> Result<String, String> {
    let at = format!("{address}:{port}");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}")).map_err(|e| chain(&e))?;
    let channel = endpoint.connect().await.map_err(|e| format!("connecting to {at}: {}", chain(&e)))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    match answer.map(|a| a.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(String::new()),
        Ok(status) => Err(format!("the health of {service:?} at {at} is {}", status.as_str_name())),
        Err(status) => Err(format!("asking {at} for the health of {service:?}: {}", status.message())),
    }
}

/// The last cause says what happened: the ones before it only what was being done.
fn chain(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
