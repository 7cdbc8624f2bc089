//! Channels whose ends can travel: an end in the arguments of a call, or in what it returns, goes on working there.
//!
//! Between the ends lie a queue here, a stream of the link with its credit, and a queue there: who sends faster than the other
//! side takes waits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use remotely_proto::call::item;
use remotely_session::{RecvStream, SendStream, Stream};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::doors::Doors;
use crate::wire;

/// Items that may wait on one side.
const QUEUE: usize = 64;
/// Items that are made into bytes at once.
const BATCH: usize = 256;
/// Most bytes of one item.
const ITEM_MAX: usize = 64 << 20;

/// What may be an item: it has to be written on one side and read on the other.
pub trait Item: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Item for T {}

type Queued<T> = Result<T, ChannelError>;

/// Makes a channel. Either end, or both, may then travel in the arguments or the value of a call.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Sender { queue: sender }, Receiver { queue: Mutex::new(Some(receiver)) })
}

/// The end that items are put into. Clones are the same end; the channel ends when all are dropped.
pub struct Sender<T> {
    queue: mpsc::Sender<Queued<T>>,
}

/// The end that items come out of.
pub struct Receiver<T> {
    /// `None` once this end has gone to the other side.
    queue: Mutex<Option<mpsc::Receiver<Queued<T>>>>,
}

/// A channel does not carry any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// The receiver is gone, for a sender also where that is because the link was lost.
    #[error("nobody receives from this channel any more")]
    Closed,
    /// The link was lost before the sender had ended. Receivers hear this.
    #[error("the link that this channel goes over was lost")]
    Lost,
    /// This end has travelled to the other side.
    #[error("this end of the channel is on the other side")]
    Gone,
    /// An item cannot be written, or what came is none.
    #[error("an item of the channel: {0}")]
    Item(String),
}

impl<T> Sender<T> {
    /// Puts an item in; waits while the queue is full. Cancel safe in that the item is then not sent.
    ///
    /// An item that has been put in may still be lost with the link: the receiver hears of that, not the sender. From then on there
    /// is no receiver for the sender either, which is [`ChannelError::Closed`].
    pub async fn send(&self, item: T) -> Result<(), ChannelError> {
        self.queue.send(Ok(item)).await.map_err(|_| ChannelError::Closed)
    }

    /// The same, for functions that are not async.
    ///
    /// # Panics
    /// Inside of async code.
    pub fn blocking_send(&self, item: T) -> Result<(), ChannelError> {
        self.queue.blocking_send(Ok(item)).map_err(|_| ChannelError::Closed)
    }

    /// Waits until nobody receives any more. Cancel safe.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when all senders are gone. Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<T>, ChannelError> {
        match self.mine()?.recv().await {
            None => Ok(None),
            Some(item) => item.map(Some),
        }
    }

    /// The same, for functions that are not async.
    ///
    /// # Panics
    /// Inside of async code.
    pub fn blocking_recv(&mut self) -> Result<Option<T>, ChannelError> {
        match self.mine()?.blocking_recv() {
            None => Ok(None),
            Some(item) => item.map(Some),
        }
    }

    /// All items to the end. Cancel safe in that items taken before are lost.
    pub async fn collect(mut self) -> Result<Vec<T>, ChannelError> {
        let mut items = Vec::new();
        while let Some(item) = self.recv().await? {
            items.push(item);
        }
        Ok(items)
    }

    fn mine(&mut self) -> Result<&mut mpsc::Receiver<Queued<T>>, ChannelError> {
        self.queue.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().ok_or(ChannelError::Gone)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sender").field("closed", &self.queue.is_closed()).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T: Item> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (doors, Stream { id, mut send, recv }) = open::<S>()?;
        send.finish();
        let queue = self.queue.clone();
        doors.runtime().spawn(receive(recv, queue, doors.clone()));
        serializer.serialize_u32(id)
    }
}

impl<'de, T: Item> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (doors, id) = named::<D>(deserializer)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        doors.clone().runtime().spawn(async move {
            let Some(stream) = doors.claim(id).await else { return };
            send(receiver, stream.send, doors).await;
        });
        Ok(Self { queue: sender })
    }
}

impl<T: Item> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let taken = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let queue = taken.ok_or_else(|| S::Error::custom(ChannelError::Gone))?;
        let (doors, stream) = open::<S>()?;
        doors.clone().runtime().spawn(send(queue, stream.send, doors));
        serializer.serialize_u32(stream.id)
    }
}

impl<'de, T: Item> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (doors, id) = named::<D>(deserializer)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        doors.clone().runtime().spawn(async move {
            match doors.claim(id).await {
                Some(Stream { mut send, recv, .. }) => {
                    send.finish();
                    receive(recv, sender, doors).await;
                }
                None => drop(sender.send(Err(ChannelError::Lost)).await),
            }
        });
        Ok(Self { queue: Mutex::new(Some(receiver)) })
    }
}

const NO_LINK: &str = "a channel travels in the arguments or the value of a call only";

fn open<S: Serializer>() -> Result<(Arc<Doors>, Stream), S::Error> {
    let doors = wire::doors().ok_or_else(|| S::Error::custom(NO_LINK))?;
    let stream = doors.open_channel().map_err(S::Error::custom)?;
    Ok((doors, stream))
}

fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Arc<Doors>, u32), D::Error> {
    let doors = wire::doors().ok_or_else(|| D::Error::custom(NO_LINK))?;
    Ok((doors, u32::deserialize(deserializer)?))
}

/// Takes items out of the queue and sends them, to the end of the queue or until nobody receives.
async fn send<T: Item>(mut queue: mpsc::Receiver<Queued<T>>, mut stream: SendStream, doors: Arc<Doors>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        let taken = tokio::select! {
            // Whoever waits for room is to hear at once that there is nobody to receive.
            _ = stream.stopped() => return,
            taken = queue.recv_many(&mut batch, BATCH) => taken,
        };
        if taken == 0 {
            return stream.finish();
        }
        let mut bytes = BytesMut::new();
        for item in batch.drain(..) {
            let item = item.and_then(|item| wire::encode(&item, &doors).map_err(ChannelError::Item));
            let Ok(item) = item else { return };
            bytes.put_u32_le(item.len() as u32);
            bytes.put_slice(&item);
        }
        if stream.send(bytes.freeze()).await.is_err() {
            return;
        }
    }
}

/// Puts what comes into the queue, to the end of the stream or until nobody takes it.
async fn receive<T: Item>(mut stream: RecvStream, queue: mpsc::Sender<Queued<T>>, doors: Arc<Doors>) {
    let mut received = BytesMut::new();
    loop {
        loop {
            let item = match item(&mut received, ITEM_MAX) {
                Ok(None) => break,
                Ok(Some(bytes)) => wire::decode(&bytes, &doors).map_err(ChannelError::Item),
                Err(error) => Err(ChannelError::Item(error.to_string())),
            };
            let last = item.is_err();
            if queue.send(item).await.is_err() || last {
                return;
            }
        }
        let chunk: Option<Bytes> = tokio::select! {
            () = queue.closed() => return,
            chunk = stream.recv() => match chunk {
                Ok(chunk) => chunk,
                Err(_) => return drop(queue.send(Err(ChannelError::Lost)).await),
            },
        };
        match chunk {
            Some(chunk) => received.extend_from_slice(&chunk),
            None if received.is_empty() => return,
            None => return drop(queue.send(Err(ChannelError::Lost)).await),
        }
    }
}
