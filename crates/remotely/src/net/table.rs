//! From the words of the command line to what is captured: names looked up, files read, everything in order.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use remotely_net::dial::Dialer;
use remotely_net::subnet::{Caution, Rule, Subnet, SubnetError, Table, parse, read};

use crate::report;

/// What is to be captured, as it was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Subnets.
    pub(crate) include: Vec<String>,
    /// Files of them.
    pub(crate) include_from: Vec<PathBuf>,
    /// Subnets that are left out.
    pub(crate) exclude: Vec<String>,
    /// Files of them.
    pub(crate) exclude_from: Vec<PathBuf>,
}

impl Wishes {
    /// Whether nothing was named that is to be captured.
    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.include_from.is_empty()
    }

    /// What they mean now. Names are looked up here. Must be called in a runtime.
    pub(crate) async fn table(&self, dialer: &Dialer) -> Result<Table, SubnetError> {
        let (wishes, dialer, runtime) = (self.clone(), dialer.clone(), tokio::runtime::Handle::current());
        let looked_up = tokio::task::spawn_blocking(move || {
            wishes.resolved(&mut |name| {
                let found = runtime.block_on(dialer.addresses(name));
                if found.is_empty() { Err(io::Error::other("it has no address here")) } else { Ok(found) }
            })
        });
        match looked_up.await {
            Ok(table) => table,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn resolved(&self, resolve: &mut dyn FnMut(&str) -> io::Result<Vec<IpAddr>>) -> Result<Table, SubnetError> {
        let mut cautions: Vec<Caution> = Vec::new();
        let mut rules = Vec::new();
        let sides = [
            (&self.include, &self.include_from, Rule::include as fn(Subnet) -> Rule),
            (&self.exclude, &self.exclude_from, Rule::exclude),
        ];
        for (texts, files, rule) in sides {
            for text in texts {
                rules.extend(parse(text, resolve, &mut cautions)?.into_iter().map(rule));
            }
            for file in files {
                rules.extend(read(file, resolve, &mut cautions)?.into_iter().map(rule));
            }
        }
        cautions.iter().for_each(|caution| report::note(&caution.to_string()));
        Ok(Table::new(rules))
    }
}
