//! The five fields of cron(8), read by the clock of a time zone.
//!
//! A time that a change of the clock leaves out is left out; one that it repeats counts once, unless the hour field is `*`.

use alloc::{
    format,
    string::{String, ToString as _},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// How far ahead a time is looked for, minutes: over every leap day.
const AHEAD_MAX_MINUTES: u64 = 9 * 366 * 24 * 60;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A clock on a wall.
#[derive(Debug, Clone)]
pub struct Clock(TimeZone);

impl Clock {
    /// The clock of an IANA time zone; "" = UTC.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn of(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Ok(Self(TimeZone::UTC));
        }
        let zone = TimeZone::get(name);
        zone.map(Self).map_err(|_| format!("time zone {name:?} is not known: write an IANA name, as in Europe/Berlin"))
    }

    fn at(&self, minute: u64) -> Option<DateTime> {
        let seconds = i64::try_from(minute.checked_mul(60)?).ok()?;
        Some(self.0.to_datetime(Timestamp::from_second(seconds).ok()?))
    }
}

/// Minutes, hours, days, months and weekdays as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_hour: bool,
    any_day: bool,
    any_weekday: bool,
}

impl Schedule {
    /// Reads five fields (`*`, `a`, `a-b`, `*/n`, `a-b/n`, lists, names of months and days) or `@hourly` … `@yearly`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => {
                return Err("is none of @hourly, @daily, @weekly, @monthly, @yearly".to_string());
            }
            text => text,
        };
        let mut fields = text.split_ascii_whitespace();
        let mut next = || fields.next().ok_or("has five fields: minute hour day month weekday");
        let (minute, hour, day, month, weekday) = (next()?, next()?, next()?, next()?, next()?);
        if fields.next().is_some() {
            return Err("has more than five fields: minute hour day month weekday".to_string());
        }
        let weekdays = bits("weekday", weekday, 0, 7, &DAYS, 0)?;
        let schedule = Self {
            minutes: bits("minute", minute, 0, 59, &[], 0)?,
            hours: bits("hour", hour, 0, 23, &[], 0)?,
            days: bits("day", day, 1, 31, &[], 0)?,
            months: bits("month", month, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (weekdays | (weekdays >> 7)) & 0x7f,
            any_hour: hour.starts_with('*'),
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        };
        match schedule.next_after(&Clock(TimeZone::UTC), 0) {
            Some(_) => Ok(schedule),
            None => Err("never comes: no such day is in any of these months".to_string()),
        }
    }

    /// The first time after this minute.
    #[must_use]
    pub fn next_after(&self, clock: &Clock, minute: u64) -> Option<u64> {
        let mut at = minute + 1;
        while at <= minute + AHEAD_MAX_MINUTES {
            let wall = clock.at(at)?;
            at += match self.misses(wall) {
                Miss::None if self.is_repeated(clock, at, wall) => 1,
                Miss::None => return Some(at),
                Miss::Hour => 60 - minute_of(wall),
                Miss::Minute => 1,
            };
        }
        None
    }

    /// The last time after `after` and not after `until`.
    #[must_use]
    pub fn latest(&self, clock: &Clock, after: u64, until: u64) -> Option<u64> {
        let mut at = until;
        while at > after && at + AHEAD_MAX_MINUTES > until {
            let wall = clock.at(at)?;
            let back = match self.misses(wall) {
                Miss::None if self.is_repeated(clock, at, wall) => 1,
                Miss::None => return Some(at),
                Miss::Hour => minute_of(wall) + 1,
                Miss::Minute => 1,
            };
            at = at.checked_sub(back)?;
        }
        None
    }

    fn misses(&self, wall: DateTime) -> Miss {
        let has = |bits: u64, n: i8| u32::try_from(n).is_ok_and(|n| bits & (1 << n) != 0);
        let weekday = has(self.weekdays, wall.weekday().to_sunday_zero_offset());
        let day = has(self.days, wall.day());
        // As cron has it: if both are restricted, one of them is enough.
        let day = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        if !day || !has(self.months, wall.month()) || !has(self.hours, wall.hour()) {
            return Miss::Hour;
        }
        if has(self.minutes, wall.minute()) { Miss::None } else { Miss::Minute }
    }

    /// Whether the clock showed the same an hour ago, and that was counted.
    fn is_repeated(&self, clock: &Clock, at: u64, wall: DateTime) -> bool {
        !self.any_hour && at.checked_sub(60).and_then(|before| clock.at(before)) == Some(wall)
    }
}

enum Miss {
    None,
    Hour,
    Minute,
}

fn minute_of(wall: DateTime) -> u64 {
    u64::try_from(wall.minute()).unwrap_or(0)
}

/// The values of a field as bits.
fn bits(field: &str, text: &str, min: u32, max: u32, names: &[&str], first: u32) -> Result<u64, String> {
    let number = |word: &str| -> Result<u32, String> {
        let named = names.iter().position(|n| word.eq_ignore_ascii_case(n)).and_then(|i| u32::try_from(i).ok());
        let value = named.map(|i| i + first).or_else(|| word.parse().ok());
        value.filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("{word:?} is no {field}: {min} to {max}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, 1),
            Some((range, step)) => {
                let step = step.parse().ok().filter(|s| (1..=max).contains(s));
                (range, step.ok_or_else(|| format!("{part:?}: a step is 1 to {max}"))?)
            }
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            // As cron has it: from here on.
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("{part:?}: a range goes upwards"));
        }
        let mut n = from;
        while n <= to {
            bits |= 1u64 << n;
            n += step;
        }
    }
    Ok(bits)
}
