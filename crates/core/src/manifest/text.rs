//! Text of the operating system's in JSON: as it is where it is UTF-8, else its bytes in base64.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path or an argument, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(OsString);

impl Text {
    /// As the operating system takes it.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

impl From<OsString> for Text {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Utf8(std::borrow::Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => Written::Utf8(text.into()),
            None => Written::Bytes { base64: STANDARD.encode(self.0.as_bytes()) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Utf8(text) => text.into_owned().into(),
            Written::Bytes { base64 } => {
                OsString::from_vec(STANDARD.decode(base64).map_err(D::Error::custom)?)
            }
        }))
    }
}
