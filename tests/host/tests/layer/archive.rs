//! A tar builder that can also build what no sane program would.

/// An archive in the making.
#[derive(Default, Clone)]
pub struct Archive(pub Vec<u8>);

/// One header, with all its fields open.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn new(name: &str, kind: u8, size: u64) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, name.as_bytes());
        header.put(100, b"0000644\0");
        header.put(108, b"0000000\0");
        header.put(116, b"0000000\0");
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(136, b"00000000001\0");
        header.put(257, b"ustar\x0000");
        header.put(329, b"0000000\0");
        header.put(337, b"0000000\0");
        header.0[156] = kind;
        header
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    pub fn sealed(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn body(self, bytes: &[u8]) -> Self {
        let padding = bytes.len().next_multiple_of(512) - bytes.len();
        self.raw(bytes).raw(&vec![0; padding])
    }

    pub fn entry(self, header: Header, data: &[u8]) -> Self {
        self.raw(&header.sealed()).body(data)
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(Header::new(name, b'0', data.len() as u64), data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(Header::new(name, b'5', 0).with(100, b"0000755\0"), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name, b'2', 0).with(157, target.as_bytes()), b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name, b'1', 0).with(157, target.as_bytes()), b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub fn extended(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(Header::new("pax", kind, body.len() as u64), &body)
    }

    pub fn long(self, kind: u8, text: &[u8]) -> Self {
        let text = [text, b"\0"].concat();
        self.entry(Header::new("././@LongLink", kind, text.len() as u64), &text)
    }

    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}
