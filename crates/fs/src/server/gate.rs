//! Order between the lanes. Changes are applied one after another; a question about something with a change before it
//! waits here for that change. Also answers whether the first so many changes have been applied.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use remotely_proto::fs::{File, Node, Tag};
use tokio::sync::watch;

use super::{pool::Task, service::Hold};

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Node(Node),
    File(File),
}

/// How far the changes have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    applied: Tag,
    ended: bool,
}

/// See the file's head.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct State {
    received: Tag,
    applied: Tag,
    /// Last change about each subject, of those not applied yet.
    pending: HashMap<Subject, Tag>,
    parked: BTreeMap<Tag, Vec<Task>>,
}

impl Gate {
    /// A change has come in. Returns its number.
    pub(super) fn receive(&self, subjects: &[Subject]) -> Tag {
        let mut state = self.state.hold();
        state.received += 1;
        let tag = state.received;
        state.pending.extend(subjects.iter().map(|subject| (*subject, tag)));
        tag
    }

    /// Gives the task back if nothing it is about has a change pending; keeps it until then otherwise.
    pub(super) fn admit(&self, subjects: &[Subject], task: Task) -> Option<Task> {
        let mut state = self.state.hold();
        let last = subjects.iter().filter_map(|subject| state.pending.get(subject)).max().copied();
        park(&mut state, last, task)
    }

    /// The same for a task that must come after all changes received so far.
    pub(super) fn admit_after_all(&self, task: Task) -> Option<Task> {
        let mut state = self.state.hold();
        let last = (state.received > state.applied).then_some(state.received);
        park(&mut state, last, task)
    }

    /// A change was applied, or failed for good. Returns the tasks that waited for it.
    pub(super) fn apply(&self, tag: Tag, subjects: &[Subject]) -> Vec<Task> {
        let mut state = self.state.hold();
        state.applied = tag;
        for subject in subjects {
            if state.pending.get(subject) == Some(&tag) {
                state.pending.remove(subject);
            }
        }
        let later = state.parked.split_off(&(tag + 1));
        let released = std::mem::replace(&mut state.parked, later);
        drop(state);
        self.progress.send_modify(|progress| progress.applied = tag);
        released.into_values().flatten().collect()
    }

    /// No more changes will be applied.
    pub(super) fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Waits until the first `tag` changes have been applied; false if that will not happen. Cancel safe.
    pub(super) async fn applied(&self, tag: Tag) -> bool {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.applied >= tag || progress.ended).await;
        reached.is_ok_and(|progress| progress.applied >= tag)
    }

    /// Waits until no more changes will be applied. Cancel safe.
    pub(super) async fn ended(&self) {
        // The sender is `self`, so it cannot go away meanwhile.
        let _ = self.progress.subscribe().wait_for(|progress| progress.ended).await;
    }
}

fn park(state: &mut State, after: Option<Tag>, task: Task) -> Option<Task> {
    match after {
        Some(tag) => {
            state.parked.entry(tag).or_default().push(task);
            None
        }
        None => Some(task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Box::new(|_| {})
    }

    #[test]
    fn a_question_waits_for_the_last_change_before_it() {
        let gate = Gate::default();
        let subject = [Subject::Node(Node(7))];
        assert!(gate.admit(&subject, task()).is_some());
        let (first, second) = (gate.receive(&subject), gate.receive(&subject));
        assert!(gate.admit(&subject, task()).is_none());
        assert!(gate.admit(&[Subject::Node(Node(8))], task()).is_some());
        assert!(gate.apply(first, &subject).is_empty());
        assert_eq!(gate.apply(second, &subject).len(), 1);
        assert!(gate.admit(&subject, task()).is_some());
        assert!(gate.admit_after_all(task()).is_some());
    }
}
