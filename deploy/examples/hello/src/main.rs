//! The demo: a very small static web server that says which pod answered.
//!
//! `GET /` answers with the page at `/srv/www/index.html` with `{host}` and `{address}` filled in; `/healthz` answers `ok`, `/client`
//! with the address that the request came from; anything else is a file below `/srv/www`.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    thread,
    time::Duration,
};

const ROOT: &str = "/srv/www";
/// Bytes of a request's head that are read at the most.
const HEAD_BYTES_MAX: u64 = 16 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "0.0.0.0:8080".into());
    let listener = TcpListener::bind(&address)?;
    println!("listening on {address}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            if let Err(error) = answer(&stream) {
                eprintln!("request failed: {error}");
            }
        })?;
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = BufReader::new(stream.take(HEAD_BYTES_MAX)).lines();
    let request = head.next().transpose()?.unwrap_or_default();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, kind, body) = match path {
        "/healthz" => ("200 OK", "text/plain", b"ok\n".to_vec()),
        "/" => ("200 OK", "text/html", page(stream)),
        "/client" => ("200 OK", "text/plain", format!("{}\n", stream.peer_addr()?.ip()).into_bytes()),
        other => match fs::read(file(other)) {
            Ok(body) => ("200 OK", "application/octet-stream", body),
            Err(_) => ("404 Not Found", "text/plain", b"not found\n".to_vec()),
        },
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    println!("{request} {status}");
    Ok(())
}

fn page(stream: &TcpStream) -> Vec<u8> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let address = stream.local_addr().map(|a| a.ip().to_string()).unwrap_or_default();
    fs::read_to_string(Path::new(ROOT).join("index.html"))
        .unwrap_or_else(|_| "hello from {host} ({address})\n".into())
        .replace("{host}", host.trim())
        .replace("{address}", &address)
        .into_bytes()
}

/// The file a path names, never outside of the root.
fn file(path: &str) -> PathBuf {
    let below = Path::new(path).components().filter(|c| matches!(c, Component::Normal(_)));
    below.fold(PathBuf::from(ROOT), |file, part| file.join(part))
}
