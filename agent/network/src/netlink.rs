//! A route netlink connection (rtnetlink(7)) with a bound on each wait and errors that say what was being done.
//!
//! A netlink socket belongs to the network namespace of the thread that opens it, for ever; whoever uses it later.

use std::{
    future::Future,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use futures::{Stream, TryStreamExt};
use rtnetlink::{
    Handle,
    packet_route::link::{LinkAttribute, LinkMessage},
};
use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::{runtime, sync::oneshot, task::JoinHandle, time::timeout};

use crate::NetworkError;

/// How long one answer of the kernel is waited for. Requests queue behind the kernel's one rtnl lock.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection into one network namespace; it ends when this is dropped.
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Connects in the calling thread's network namespace.
    pub(crate) fn open_here() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| cannot("open netlink", source))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Connects in the network namespace behind `netns`, on a thread that exists for that only: no thread of the runtime is ever
    /// in a foreign namespace.
    pub(crate) async fn open_in(netns: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        let netns: OwnedFd = netns.try_clone_to_owned().map_err(|source| NetworkError::Namespace { source })?;
        let runtime = runtime::Handle::current();
        let (done, opened) = oneshot::channel();
        let enter = move || {
            let _runtime = runtime.enter();
            let opened = move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
                .and_then(|()| rtnetlink::new_connection());
            // The receiver is gone only if the caller has been cancelled.
            done.send(opened).ok();
        };
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn(enter)
            .map_err(|source| cannot("start a thread for a network namespace", source))?;
        let opened = opened.await.map_err(|_| NetworkError::Namespace { source: Errno::CANCELED.into() })?;
        let (connection, handle, _) = opened.map_err(|source| NetworkError::Namespace { source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The connection, to make requests with.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The link of this name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<LinkMessage>, NetworkError> {
        let request = self.handle.link().get().match_name(name).execute();
        match collect(|| format!("look for link {name}"), request).await {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links.
    pub(crate) async fn links(&self) -> Result<Vec<LinkMessage>, NetworkError> {
        collect(|| "list links".to_owned(), self.handle.link().get().execute()).await
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Waits for the kernel's answer to one request.
pub(crate) async fn perform<T>(
    action: impl Fn() -> String,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetworkError> {
    match timeout(ANSWER_TIMEOUT, request).await {
        Err(_) => Err(NetworkError::NoAnswer { action: action(), limit: ANSWER_TIMEOUT }),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(cannot(&action(), message.to_io())),
        Ok(Err(other)) => Err(cannot(&action(), io::Error::other(other.to_string()))),
    }
}

/// Waits for all parts of an answer.
pub(crate) async fn collect<T>(
    action: impl Fn() -> String,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetworkError> {
    perform(action, answers.try_collect()).await
}

/// The name of a link.
pub(crate) fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The MTU of a link.
pub(crate) fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The index of the bridge that a link is attached to.
pub(crate) fn bridge_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

/// The index of a link's other end, in the other end's namespace.
pub(crate) fn peer_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

fn cannot(action: &str, source: io::Error) -> NetworkError {
    NetworkError::Kernel { action: action.to_owned(), source }
}
