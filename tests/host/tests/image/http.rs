//! A small HTTP server whose answers a test decides: a registry that misbehaves.

use crate::fixture::Image;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use strata_image::{Registry, RegistrySettings};
use strata_model::ImageName;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
    /// Where a range request begins.
    pub fn offset(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Sends no more after so many bytes of the body, and waits until the client has gone.
    pub stall: Option<usize>,
    /// Leaves the length out: the body ends with the connection.
    pub endless: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    pub fn stall(mut self, after: usize) -> Self {
        self.stall = Some(after);
        self
    }
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

pub struct Server {
    /// `127.0.0.1:PORT`
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Clients that have left answers which stalled.
    pub left: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, asked) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        let gone = Arc::new(AtomicUsize::new(0));
        let left = gone.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log, gone) = (answer.clone(), log.clone(), gone.clone());
                tokio::spawn(async move { converse(stream, &*answer, &log, &gone).await });
            }
        });
        Self { address, asked, left, task }
    }

    /// A registry with one image under any name and tag.
    pub async fn registry(image: Image) -> Self {
        Self::start(move |asked| serve(&image, asked)).await
    }

    /// A name of this registry.
    pub fn name(&self) -> ImageName {
        ImageName::parse(&format!("{}/some/image:1", self.address)).unwrap()
    }

    /// A client to which this registry is declared insecure.
    pub fn client(&self) -> Registry {
        let insecure_registries = vec![self.address.clone()];
        Registry::new(&RegistrySettings { insecure_registries, ..RegistrySettings::default() }).unwrap()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often something was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

/// What a decent registry answers.
pub fn serve(image: &Image, asked: &Asked) -> Answer {
    if asked.path.contains("/manifests/") {
        return Answer::new(200, image.manifest.clone());
    }
    let digest = asked.path.rsplit('/').next().unwrap_or("");
    match image.blobs.get(digest) {
        Some(blob) if asked.offset() > 0 => {
            let (at, len) = (asked.offset(), blob.len());
            Answer::new(206, &blob[at..]).with("content-range", &format!("bytes {at}-{}/{len}", len - 1))
        }
        Some(blob) => Answer::new(200, blob.clone()),
        None => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}"#),
    }
}

async fn converse(
    stream: TcpStream,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
    log: &Mutex<Vec<Asked>>,
    gone: &AtomicUsize,
) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() || line.is_empty() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let asked = Asked { path, headers };
    log.lock().unwrap().push(asked.clone());
    let answer = answer(&asked);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    if !answer.endless {
        head += &format!("content-length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = &answer.body[..answer.cut.or(answer.stall).unwrap_or(answer.body.len())];
    // The client may have gone: that is its business.
    if stream.get_mut().write_all(head.as_bytes()).await.is_ok() {
        stream.get_mut().write_all(body).await.ok();
        if answer.stall.is_some() {
            // Its end of the connection, however it comes.
            stream.get_mut().read_u8().await.ok();
            gone.fetch_add(1, Ordering::SeqCst);
        }
        stream.get_mut().shutdown().await.ok();
    }
}
