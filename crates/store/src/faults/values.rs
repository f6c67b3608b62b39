//! The values that files of faults are written with: answers, places, times, numbers, names.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};

use super::action::{Action, Answer, Pairs, Place, RefuseKeys, Side};
use super::rule::Per;

/// Names and values.
pub(super) type Map = BTreeMap<String, String>;

pub(super) fn pairs(map: Map) -> Pairs {
    map.into_iter().collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerFile {
    status: u16,
    #[serde(default)]
    code: String,
    message: Option<String>,
    #[serde(default)]
    elements: Map,
    #[serde(default)]
    headers: Map,
    body: Option<String>,
    #[serde(default = "yes")]
    read_body: bool,
    #[serde(default)]
    applied: bool,
}

fn yes() -> bool {
    true
}

impl AnswerFile {
    pub(super) fn meant(self) -> Answer {
        let default = Answer::new(self.status, &self.code);
        Answer {
            message: self.message.unwrap_or(default.message),
            status: default.status,
            code: default.code,
            elements: pairs(self.elements),
            headers: pairs(self.headers),
            body: self.body,
            read_body: self.read_body,
            applied: self.applied,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CutFile {
    at: PlaceFile,
    bytes: Option<u64>,
    #[serde(default)]
    reset: bool,
}

impl CutFile {
    pub(super) fn meant(self) -> Result<Action, String> {
        Ok(Action::Cut { at: self.at.place("cut", self.bytes)?, reset: self.reset })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefuseKeysFile {
    keys: Vec<String>,
    code: String,
}

impl RefuseKeysFile {
    pub(super) fn meant(self) -> RefuseKeys {
        RefuseKeys { keys: self.keys, code: self.code }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StallFile {
    at: PlaceFile,
    bytes: Option<u64>,
    time: Option<Time>,
}

impl StallFile {
    pub(super) fn meant(self) -> Result<Action, String> {
        let at = self.at.place("stall", self.bytes)?;
        Ok(Action::Stall { at, time: self.time.map(|time| time.0) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlipFile {
    body: SideFile,
    byte: u64,
    #[serde(default)]
    bit: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrickleFile {
    time: Time,
    every: Option<Time>,
}

impl FlipFile {
    pub(super) fn meant(self) -> Action {
        Action::Flip { body: self.body.into(), byte: self.byte, bit: self.bit }
    }
}

impl TrickleFile {
    pub(super) fn meant(self) -> Action {
        let every = self.every.map_or(Duration::from_millis(100), |every| every.0);
        Action::Trickle { time: self.time.0, every }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlaceFile {
    RequestBody,
    RequestEnd,
    Response,
    ResponseBody,
}

impl PlaceFile {
    pub(super) fn place(self, key: &str, bytes: Option<u64>) -> Result<Place, String> {
        match (self, bytes) {
            (Self::RequestBody, bytes) => Ok(Place::RequestBody(bytes.unwrap_or(0))),
            (Self::ResponseBody, bytes) => Ok(Place::ResponseBody(bytes.unwrap_or(0))),
            (Self::RequestEnd, None) => Ok(Place::RequestEnd),
            (Self::Response, None) => Ok(Place::Response),
            _ => Err(format!(
                "`{key}.bytes` goes only with at = \"request-body\" or \"response-body\""
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SideFile {
    Request,
    Response,
}

impl From<SideFile> for Side {
    fn from(side: SideFile) -> Self {
        match side {
            SideFile::Request => Self::Request,
            SideFile::Response => Self::Response,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PerFile {
    Rule,
    Key,
    Part,
    AccessKey,
}

impl From<PerFile> for Per {
    fn from(per: PerFile) -> Self {
        match per {
            PerFile::Rule => Self::Rule,
            PerFile::Key => Self::Key,
            PerFile::Part => Self::Part,
            PerFile::AccessKey => Self::AccessKey,
        }
    }
}

/// A name, or a list of names.
pub(super) struct OneOrMany(Vec<String>);

impl OneOrMany {
    pub(super) fn names(self) -> Vec<String> {
        self.0.into_iter().filter(|name| name != "*").collect()
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an operation, or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![name.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, names: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(names)).map(OneOrMany)
            }
        }
        from.deserialize_any(Names)
    }
}

/// A number, or two with a hyphen between them: `3` or `"2-9"`.
pub(super) struct Span(pub(super) RangeInclusive<u64>);

impl Span {
    pub(super) fn numbers(&self, key: &str) -> Result<RangeInclusive<u32>, String> {
        let number = |number: u64| {
            u32::try_from(number).map_err(|_| format!("`{key}` is {number}, which is too large"))
        };
        Ok(number(*self.0.start())?..=number(*self.0.end())?)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl Visitor<'_> for Numbers {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 such as 3, or two such as \"2-9\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Span, E> {
                let unsigned = u64::try_from(number)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                Ok(Span(unsigned..=unsigned))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) if first <= last => Ok(Span(first..=last)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_any(Numbers)
    }
}

/// A time with its unit: `"250ms"`, `"2s"` or `"1m"`.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number = digits.parse::<u32>().ok().map(u64::from);
        let time = match (number, &text[digits.len()..]) {
            (Some(number), "ms") => Some(Duration::from_millis(number)),
            (Some(number), "s") => Some(Duration::from_secs(number)),
            (Some(number), "m") => Some(Duration::from_secs(number * 60)),
            _ => None,
        };
        let expected = "a time with its unit, such as \"250ms\", \"2s\" or \"1m\"";
        time.map(Self).ok_or_else(|| de::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}
