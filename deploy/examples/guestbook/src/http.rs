//! As much of HTTP/1.1 as a guestbook needs: one request per connection.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Bytes of a request's head and of its body that are read at the most.
const HEAD_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: u64 = 16 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What was asked.
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
}

/// What is answered.
pub struct Answer {
    status: &'static str,
    header: String,
    body: String,
}

impl Answer {
    pub fn text(body: impl Into<String>) -> Self {
        Self { status: "200 OK", header: "Content-Type: text/plain; charset=utf-8".into(), body: body.into() }
    }

    pub fn page(body: String) -> Self {
        Self { status: "200 OK", header: "Content-Type: text/html; charset=utf-8".into(), body }
    }

    /// Look there.
    pub fn see(path: &str) -> Self {
        Self { status: "303 See Other", header: format!("Location: {path}"), body: String::new() }
    }

    pub fn error(code: u16, why: &str) -> Self {
        let status = if code == 404 { "404 Not Found" } else { "503 Service Unavailable" };
        Self { status, ..Self::text(format!("{why}\n")) }
    }
}

/// Reads one request and answers it.
pub fn serve(mut stream: &TcpStream, answer: impl FnOnce(&Request) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(HEAD_BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or("/"));
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let method = method.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.get_mut().set_limit(BODY_BYTES_MAX);
    reader.take(BODY_BYTES_MAX.min(length)).read_to_end(&mut body)?;
    let request = Request { method, path, body: String::from_utf8_lossy(&body).into_owned() };
    let Answer { status, header, body } = answer(&request);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    println!("{} {} {status}", request.method, request.path);
    Ok(())
}

/// A form's value: `+` is a blank, `%41` a byte.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[i], hex) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', None) => out.push(b' '),
            (byte, None) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
