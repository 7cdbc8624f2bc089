//! Values as bytes: CBOR by serde, which says what is what, so that every type that serde can carry arrives. While one is made
//! or read, the channels in it find the link that it travels on.

use std::cell::RefCell;
use std::sync::Arc;

use minicbor::data::Token;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::doors::Doors;

/// How deep arrays and maps may be nested. Reading is recursive, and the bytes are another machine's.
const DEPTH_MAX: usize = 128;

thread_local! {
    static DOORS: RefCell<Option<Arc<Doors>>> = const { RefCell::new(None) };
}

/// The link that the value travels on which is being made or read on this thread.
pub(crate) fn doors() -> Option<Arc<Doors>> {
    DOORS.with_borrow(Clone::clone)
}

pub(crate) fn encode<T: Serialize>(value: &T, doors: &Arc<Doors>) -> Result<Vec<u8>, String> {
    let _travelling = Travelling::on(doors);
    let mut serializer = minicbor_serde::Serializer::new(Vec::with_capacity(64));
    value.serialize(&mut serializer).map_err(|error| error.to_string())?;
    Ok(serializer.into_encoder().into_writer())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], doors: &Arc<Doors>) -> Result<T, String> {
    check_depth(bytes)?;
    let _travelling = Travelling::on(doors);
    let mut deserializer = minicbor_serde::Deserializer::new(bytes);
    let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    match deserializer.decoder().position() {
        end if end == bytes.len() => Ok(value),
        end => Err(format!("{} bytes follow it", bytes.len() - end)),
    }
}

fn check_depth(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() <= DEPTH_MAX {
        return Ok(());
    }
    // Items still to come on each level; `None` where a break ends it.
    let mut open: Vec<Option<u64>> = Vec::new();
    for token in minicbor::decode::Tokenizer::new(bytes) {
        let opened = match token.map_err(|error| error.to_string())? {
            Token::Array(items) => Some(Some(items)),
            Token::Map(pairs) => Some(Some(pairs.saturating_mul(2))),
            Token::BeginArray | Token::BeginMap | Token::BeginBytes | Token::BeginString => Some(None),
            Token::Tag(_) => Some(Some(1)),
            Token::Break => {
                open.pop();
                None
            }
            _ => None,
        };
        if let Some(items) = opened {
            open.push(items);
            if open.len() > DEPTH_MAX {
                return Err(format!("it is nested more than {DEPTH_MAX} deep"));
            }
            if items != Some(0) {
                continue;
            }
            open.pop();
        }
        // An item is complete, and with it whatever it was the last of.
        while let Some(Some(left)) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
    Ok(())
}

/// Puts things back when dropped.
struct Travelling(Option<Arc<Doors>>);

impl Travelling {
    fn on(doors: &Arc<Doors>) -> Self {
        Self(DOORS.replace(Some(doors.clone())))
    }
}

impl Drop for Travelling {
    fn drop(&mut self) {
        DOORS.set(self.0.take());
    }
}
