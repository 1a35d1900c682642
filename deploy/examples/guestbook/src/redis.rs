//! As much of redis' protocol (RESP2) as a guestbook needs.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read at the most.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A connection.
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Connects, and says the password unless it is "".
    pub fn connect(address: &str, password: &str) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    stream.set_write_timeout(Some(TIMEOUT))?;
                    let mut redis = Self { stream: BufReader::new(stream) };
                    if !password.is_empty() {
                        redis.call(&["AUTH", password])?;
                    }
                    return Ok(redis);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a command; the answer's texts, one for a simple answer.
    pub fn call(&mut self, words: &[&str]) -> io::Result<Vec<String>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        let line = self.line()?;
        let Some(rest) = line.strip_prefix('*') else { return Ok(vec![self.text(&line)?]) };
        let count: usize = rest.parse().map_err(|_| bad(&line))?;
        let mut texts = Vec::new();
        for _ in 0..count {
            let line = self.line()?;
            texts.push(self.text(&line)?);
        }
        Ok(texts)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(ANSWER_BYTES_MAX).read_line(&mut line)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// What a line says, with the bytes that follow it.
    fn text(&mut self, line: &str) -> io::Result<String> {
        let (kind, rest) = line.split_at_checked(1).unwrap_or((line, ""));
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "-" => Err(io::Error::other(rest.to_owned())),
            "$" => {
                let length: u64 = rest.parse().map_err(|_| bad(line))?;
                if length > ANSWER_BYTES_MAX {
                    return Err(bad(line));
                }
                let mut bytes = Vec::new();
                (&mut self.stream).take(length + 2).read_to_end(&mut bytes)?;
                bytes.truncate(usize::try_from(length).unwrap_or_default());
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => Err(bad(line)),
        }
    }
}

fn bad(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} is no answer"))
}
