//! The guestbook example: a small web server that keeps its entries in redis.
//!
//! `GET /` is the page, `POST /` adds `message=...`, `GET /entries` is one entry a line, `/healthz` says that the server runs, `/readyz` that
//! redis answers. `GUESTBOOK_REDIS` is HOST:PORT, `GUESTBOOK_TITLE_FILE` has the title; the password of redis is in the file that
//! `REDIS_PASSWORD_FILE` names, else in `REDIS_PASSWORD`.

mod http;
mod redis;

use http::{Answer, Request};
use redis::Redis;
use std::{env, fs, io, net::TcpListener, thread};

/// The list that holds the entries.
const LIST: &str = "guestbook";
/// Entries shown, the newest ones.
const SHOWN_MAX: usize = 100;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "0.0.0.0:8080".into());
    let listener = TcpListener::bind(&address)?;
    println!("listening on {address}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(128 << 10).spawn(move || {
            if let Err(error) = http::serve(&stream, answer) {
                eprintln!("request failed: {error}");
            }
        })?;
    }
    Ok(())
}

fn answer(request: &Request) -> Answer {
    let result = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/healthz") => Ok(Answer::text("ok\n")),
        ("GET", "/readyz") => redis().and_then(|mut redis| redis.call(&["PING"])).map(|_| Answer::text("ready\n")),
        ("GET", "/entries") => entries().map(|entries| Answer::text(entries.join("\n") + "\n")),
        ("GET", "/") => entries().map(|entries| Answer::page(page(&entries))),
        ("POST", "/") => add(&request.body).map(|()| Answer::see("/")),
        _ => return Answer::error(404, "not found"),
    };
    result.unwrap_or_else(|error| Answer::error(503, &format!("redis: {error}")))
}

fn redis() -> io::Result<Redis> {
    let address = env::var("GUESTBOOK_REDIS").unwrap_or_else(|_| "redis:6379".into());
    let password = match env::var("REDIS_PASSWORD_FILE") {
        Ok(path) => fs::read_to_string(path)?.trim().to_owned(),
        Err(_) => env::var("REDIS_PASSWORD").unwrap_or_default(),
    };
    Redis::connect(&address, &password)
}

fn entries() -> io::Result<Vec<String>> {
    let from = format!("-{SHOWN_MAX}");
    redis()?.call(&["LRANGE", LIST, &from, "-1"])
}

fn add(form: &str) -> io::Result<()> {
    let message = form.split('&').find_map(|field| field.strip_prefix("message=")).unwrap_or_default();
    let message = http::decode(message).replace(['\r', '\n'], " ");
    if message.trim().is_empty() {
        return Ok(());
    }
    redis()?.call(&["RPUSH", LIST, message.trim()]).map(|_| ())
}

fn page(entries: &[String]) -> String {
    let title = env::var("GUESTBOOK_TITLE_FILE").ok().and_then(|path| fs::read_to_string(path).ok());
    let title = http::escape(title.as_deref().unwrap_or("Guestbook").trim());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let list: String = entries.iter().map(|entry| format!("<li>{}</li>", http::escape(entry))).collect();
    format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><form method=post><input name=message autofocus>\
         <button>sign</button></form><ul>{list}</ul><p>served by {}</p>\n",
        http::escape(host.trim())
    )
}
