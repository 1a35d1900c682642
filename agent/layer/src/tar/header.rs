//! One 512-byte tar header (POSIX ustar, GNU tar's `oldgnu_header`, V7).

/// The size of all units of a tar, in bytes.
pub const BLOCK: usize = 512;

/// The fields of a header block, read in place.
#[derive(Clone, Copy)]
pub struct Header<'a>(&'a [u8; BLOCK]);

/// Why a header is refused.
pub type Fault = &'static str;

impl<'a> Header<'a> {
    /// Reads a block, checking the checksum (sum of all bytes, unsigned or, as some old programs did, signed).
    pub fn parse(block: &'a [u8; BLOCK]) -> Result<Self, Fault> {
        let stored = octal(&block[148..156]).map_err(|_| "header checksum is not a number")?;
        let mut unsigned = 0i64;
        let mut signed = 0i64;
        for (at, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == unsigned || stored == signed { Ok(Self(block)) } else { Err("header checksum is wrong") }
    }

    /// The type flag.
    pub fn kind(self) -> u8 {
        self.0[156]
    }

    /// Whether the POSIX `ustar` magic is there, which alone gives meaning to the prefix.
    fn is_posix(self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The path: prefix and name.
    pub fn path(self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = if self.is_posix() { until_nul(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The target of a link.
    pub fn link(self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// Permission bits, setuid, setgid and sticky included.
    pub fn mode(self) -> Result<u16, Fault> {
        let mode = number(&self.0[100..108]).map_err(|_| "mode is not a number")?;
        Ok((mode & 0o7777) as u16)
    }

    /// Owner.
    pub fn uid(self) -> Result<i64, Fault> {
        number(&self.0[108..116]).map_err(|_| "uid is not a number")
    }

    /// Group.
    pub fn gid(self) -> Result<i64, Fault> {
        number(&self.0[116..124]).map_err(|_| "gid is not a number")
    }

    /// Bytes of data that follow the header.
    pub fn size(self) -> Result<u64, Fault> {
        unsigned(&self.0[124..136]).ok_or("size is not a number from 0")
    }

    /// Seconds since 1970.
    pub fn mtime(self) -> Result<i64, Fault> {
        number(&self.0[136..148]).map_err(|_| "mtime is not a number")
    }

    /// Device numbers in the kernel's 32-bit encoding (`new_encode_dev`: 12 bits major, 20 bits minor).
    pub fn device(self) -> Result<u32, Fault> {
        let major = unsigned(&self.0[329..337]).filter(|&n| n < 1 << 12).ok_or("device major is not 0 to 4095")?;
        let minor = unsigned(&self.0[337..345]).filter(|&n| n < 1 << 20).ok_or("device minor is not 0 to 1048575")?;
        Ok(((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)) as u32)
    }

    /// The old GNU sparse header's own regions (4 places at 386), whether a continuation block follows, and the logical size.
    pub fn old_sparse(self) -> Result<(&'a [u8], bool, u64), Fault> {
        let real = unsigned(&self.0[483..495]).ok_or("sparse real size is not a number from 0")?;
        Ok((&self.0[386..482], self.0[482] != 0, real))
    }
}

/// The bytes before the first NUL.
pub fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

/// A number that must not be negative.
pub fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).ok().and_then(|n| u64::try_from(n).ok())
}

/// A numeric field: octal digits, or base 256 if the first bit is set (GNU tar, "Basic Tar Format").
pub fn number(field: &[u8]) -> Result<i64, ()> {
    let Some(&first) = field.first() else { return Ok(0) };
    if first & 0x80 == 0 {
        return octal(field);
    }
    // Two's complement of the field's width, less the marker bit; bit 6 is the sign.
    let negative = first & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = match (at, negative) {
            (0, false) => byte & 0x3f,
            (0, true) => byte | 0xc0,
            _ => byte,
        };
        value = value.checked_mul(256).and_then(|v| v.checked_add(i64::from(byte))).ok_or(())?;
        if at == 0 && negative {
            value = i64::from(byte.cast_signed());
        }
    }
    Ok(value)
}

/// Octal digits with leading blanks, ended by NUL, blank or the field's end. Blank means 0.
fn octal(field: &[u8]) -> Result<i64, ()> {
    let start = field.iter().position(|&b| b != b' ' && b != 0).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|&b| b == b' ' || b == 0).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|&b| b != b' ' && b != 0) {
        return Err(());
    }
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(()),
        _ => Err(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        for (field, expect) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"77777777", Ok(0o7777_7777)),
            (b"12 4    ", Err(())),
            (b"0000648\0", Err(())),
            (b"-1      ", Err(())),
            (b"\x80\0\0\0\0\0\x01\x02", Ok(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\x00", Ok(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(())),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(())),
        ] {
            assert_eq!(number(field), expect, "{field:?}");
        }
    }
}
