//! Two ends of a link in one process: a caller and a runner.

use std::sync::Once;

use remotely_call::{Caller, Doors, Pool, Runner};
use remotely_proto::call::Open;
use remotely_session::{Link, LinkBuilder, Pipe, Role, Service, Settings};
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) struct Ends {
    pub(crate) caller: Caller,
    link: Link,
}

impl Ends {
    pub(crate) fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(remotely_call::install_panic_hook);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
        let ((down_reader, down_writer), (up_reader, up_writer)) = (pipe(), pipe());
        let there = LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() });
        let pool = Pool::new();
        let others = pool.clone();
        let pipe = Pipe { reader: down_reader, writer: up_writer };
        let attached = there.attach_in_turns(pipe, bytes::Bytes::new(), move |job| others.run(job));
        let (there, mut incoming, turns) = attached.unwrap();
        let doors = Doors::new(there);
        let runner = Runner::new(doors.clone(), turns, pool, |_| 0);
        tokio::spawn(async move {
            while let Some(offer) = incoming.next().await {
                assert_eq!(offer.service, Service::CALL);
                match minicbor::decode(&offer.body).unwrap() {
                    Open::Calls { path, depth_limit } => {
                        runner.calls(path, depth_limit, offer.stream);
                    }
                    Open::Call { signature, name } => {
                        drop(tokio::spawn(runner.clone().call(name, signature, offer.stream)));
                    }
                    Open::Channel => doors.offer_channel(offer),
                    other => panic!("{other:?}"),
                }
            }
        });

        let here = LinkBuilder::new(Settings::default());
        let doors = Doors::new(here.link());
        let path = vec!["localhost".to_owned(), "there".to_owned()];
        let caller = Caller::new(doors.clone(), path, 2, tokio::sync::watch::channel(0).1).unwrap();
        let (link, mut incoming) = here.attach(Pipe { reader: up_reader, writer: down_writer }, bytes::Bytes::new());
        let answered = caller.clone();
        tokio::spawn(async move {
            while let Some(offer) = incoming.next().await {
                match minicbor::decode(&offer.body).unwrap() {
                    Open::Answer { call } => answered.take_answer(call, offer.stream),
                    Open::Channel => doors.offer_channel(offer),
                    other => panic!("{other:?}"),
                }
            }
        });
        Self { caller, link }
    }

    pub(crate) fn close(&self) {
        self.link.close();
    }
}
