//! One topic: a folder with the journal of its messages and the files of its groups.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use traced_broker::driver::Outbound;
use traced_broker::{Receipt, Start};

use crate::group::{Group, Member};
use crate::journal::Journal;
use crate::record;

/// The key of a group of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupKey {
    /// A group with a name, and thus with a file.
    Named(Arc<str>),
    /// A reader without a group; it ends with its subscription, whose number this is.
    Reader(u64),
}

#[derive(Debug)]
pub(crate) struct Topic {
    folder: PathBuf,
    journal: Journal,
    /// The number of the next message.
    next: u64,
    groups: BTreeMap<GroupKey, Group>,
}

impl Topic {
    /// Opens the topic in this folder; returns `None` if it is missing and must not be created.
    pub(crate) fn open(folder: &Path, create: bool, sync: bool) -> io::Result<Option<Self>> {
        let path = folder.join("journal");
        if !create && !path.exists() {
            return Ok(None);
        }
        fs::create_dir_all(folder.join("groups"))?;
        let mut next = 0;
        let journal = Journal::open(&path, sync, |_, _| next += 1)?;
        Ok(Some(Self { folder: folder.to_owned(), journal, next, groups: BTreeMap::new() }))
    }

    /// Appends a message; [`flush`](Self::flush) writes it.
    pub(crate) fn publish(&mut self, message: &Outbound) -> Receipt {
        self.journal.append(&record::encode(message, SystemTime::now()));
        self.next += 1;
        Receipt::confirmed().with_offset(i64::try_from(self.next - 1).unwrap_or(i64::MAX))
    }

    /// Writes the published messages.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.journal.flush()
    }

    /// Adds a member to a group, which begins at `start` if it is new. Returns the number of the
    /// oldest unsettled message.
    pub(crate) fn join(&mut self, key: GroupKey, start: Start, member: Member) -> io::Result<u64> {
        if self.group(&key)?.is_none() {
            self.begin(&key, start)?;
        }
        let Some(group) = self.groups.get_mut(&key) else { return Ok(self.next) };
        group.join(member);
        Ok(group.low())
    }

    /// Moves a group, created if it is missing.
    pub(crate) fn reposition(&mut self, key: &GroupKey, start: Start) -> io::Result<()> {
        let (number, position) = self.find(start)?;
        match self.group(key)? {
            Some(group) => group.reposition(number, position),
            None => self.begin(key, start)?,
        }
        Ok(())
    }

    /// Returns the group with this key, restored from its file if it has one.
    pub(crate) fn group(&mut self, key: &GroupKey) -> io::Result<Option<&mut Group>> {
        if let (false, Some(path)) = (self.groups.contains_key(key), self.path_of(key))
            && path.exists()
            && let Some(group) = Group::restore(&path, &mut self.journal, self.next)?
        {
            self.groups.insert(key.clone(), group);
        }
        Ok(self.groups.get_mut(key))
    }

    /// Returns the group if it is open; a group with messages that are out is.
    pub(crate) fn open_group(&mut self, key: &GroupKey) -> Option<&mut Group> {
        self.groups.get_mut(key)
    }

    pub(crate) fn leave(&mut self, key: &GroupKey, member: u64) {
        if let Some(group) = self.groups.get_mut(key) {
            group.leave(member);
        }
        if matches!(key, GroupKey::Reader(_)) {
            self.groups.remove(key);
        }
    }

    pub(crate) fn release(&mut self, connection: u64) {
        self.groups.values_mut().for_each(|group| group.release(connection));
        self.groups.retain(|key, group| matches!(key, GroupKey::Named(_)) || group.has_members());
    }

    /// Hands out messages, and writes the events of the groups.
    pub(crate) fn hand_out(&mut self) -> io::Result<()> {
        for group in self.groups.values_mut() {
            group.hand_out(&mut self.journal)?;
            group.flush()?;
        }
        Ok(())
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.groups.values().filter(|group| group.has_members()).filter_map(Group::next_due).min()
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.groups.values().any(Group::is_in_use)
    }

    fn begin(&mut self, key: &GroupKey, start: Start) -> io::Result<()> {
        let (number, position) = self.find(start)?;
        let path = self.path_of(key);
        if let Some(folder) = path.as_deref().and_then(Path::parent) {
            fs::create_dir_all(folder)?;
        }
        let file = path.map(|path| Journal::open(&path, false, |_, _| {})).transpose()?;
        self.groups.insert(key.clone(), Group::begin(file, number, position));
        Ok(())
    }

    /// Returns the number and the position of the message to begin at. There is no index: it reads
    /// the written part of the journal.
    fn find(&mut self, start: Start) -> io::Result<(u64, u64)> {
        let (mut number, mut position) = (0, 0);
        if start == Start::Latest {
            return Ok((self.next, self.journal.end()));
        }
        while let Some((record, next)) = self.journal.read(position)? {
            let found = match start {
                Start::Time(time) => record::time_of(&record).is_some_and(|stored| stored >= time),
                Start::Offset(offset) => number >= offset,
                _ => true,
            };
            if found {
                break;
            }
            (number, position) = (number + 1, next);
        }
        Ok((number, position))
    }

    fn path_of(&self, key: &GroupKey) -> Option<PathBuf> {
        match key {
            GroupKey::Named(name) => Some(self.folder.join("groups").join(&**name).join("events")),
            GroupKey::Reader(_) => None,
        }
    }
}
