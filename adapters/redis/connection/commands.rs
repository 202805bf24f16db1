//! Commands with which a member of a consumer group reads, claims, renews and acknowledges.

use std::time::{Duration, SystemTime};

use ::redis::{Cmd, RedisWrite, cmd};

use super::entry::EntryId;
use super::scripts::{TIDY, TRIM};

/// Maximum number of entries that one command lists or renews.
pub(crate) const PAGE: usize = 500;

/// Maximum number of entries that are removed at a time, about: the server does nothing else
/// meanwhile.
pub(crate) const TRIM_AT_ONCE: u64 = 100_000;

/// Seconds for which the failed attempts and trials of a group are kept after the last of them, so
/// that a group that is gone leaves none.
const KEPT: u64 = 7 * 24 * 60 * 60;

/// The consumer to which entries are given back. Members look at it often, which costs the server
/// little, because it has entries only until a member claims them.
const RETURNED: &str = "traced-broker-returned";

/// A member of a consumer group: the stream, the group, and a name that no other member has.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) stream: String,
    pub(crate) group: String,
    pub(crate) consumer: String,
}

impl Member {
    /// Creates the group, and the stream if it is missing, to read the entries after `start`.
    pub(crate) fn create_group(&self, start: EntryId) -> Cmd {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(start.to_string()).arg("MKSTREAM");
        command
    }

    /// Sets the position of the group to after an entry or, with `$`, after all existing ones: by
    /// `CREATE` if the group is missing, by `SETID` if it exists.
    pub(crate) fn begin_at(&self, how: &str, after: &str) -> Cmd {
        let mut command = cmd("XGROUP");
        command.arg(how).arg(&self.stream).arg(&self.group).arg(after);
        command
    }

    /// Looks up the group, which fails if it or the stream is missing.
    pub(crate) fn look_up_group(&self) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group);
        command
    }

    /// Lists the groups of the stream.
    pub(crate) fn list_groups(&self) -> Cmd {
        let mut command = cmd("XINFO");
        command.arg("GROUPS").arg(&self.stream);
        command
    }

    /// Removes what all groups have settled, if it was stored before `until`: from a stream that
    /// was created here, or from `any`. Returns the number of removed entries, and another group
    /// that keeps entries although it was without members for the time `unattended`.
    pub(crate) fn trim(&self, until: SystemTime, any: bool, unattended: Duration) -> Cmd {
        let until = EntryId::last_before(until).milliseconds + 1;
        let mut command = cmd("EVAL");
        command.arg(TRIM).arg(2).arg(&self.stream).arg(mark(&self.stream)).arg(until).arg(u8::from(any));
        command.arg(TRIM_AT_ONCE).arg(milliseconds(unattended)).arg(&self.group);
        command
    }

    /// Reads entries that were not delivered to any member yet, and waits for them up to `wait`.
    /// With `forget`, they do not become pending.
    pub(crate) fn read_new(&self, count: usize, wait: Duration, forget: bool) -> Cmd {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(milliseconds(wait).max(1));
        if forget {
            command.arg("NOACK");
        }
        command.arg("STREAMS").arg(&self.stream).arg(">");
        command
    }

    /// Lists a page of the pending entries of this member after `after`.
    pub(crate) fn list_own(&self, after: EntryId) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg(format!("({after}")).arg("+").arg(PAGE).arg(&self.consumer);
        command
    }

    /// Lists entries that were given back.
    pub(crate) fn list_returned(&self, count: usize) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("-").arg("+").arg(count).arg(RETURNED);
        command
    }

    /// Lists the pending entries of all members, idle for at least `idle`.
    pub(crate) fn list_idle(&self, idle: Duration, count: usize) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("IDLE").arg(milliseconds(idle)).arg("-").arg("+").arg(count);
        command
    }

    /// Looks up an entry among the pending ones of this member.
    pub(crate) fn look_up(&self, id: EntryId) -> Cmd {
        let mut command = cmd("XPENDING");
        let id = id.to_string();
        command.arg(&self.stream).arg(&self.group).arg(&id).arg(&id).arg(1).arg(&self.consumer);
        command
    }

    /// Renews these entries of this member, if they were idle for `at_least`: another member that
    /// claimed one of them in the meantime keeps it.
    pub(crate) fn renew(&self, ids: &[EntryId], at_least: Duration) -> Cmd {
        let mut command = self.transfer(&self.consumer, ids, at_least);
        command.arg("IDLE").arg(0).arg("JUSTID");
        command
    }

    /// Gives these entries back: they look as if they were idle for `idle`. The server's count of
    /// hand-outs becomes `deliveries`, if it is given.
    pub(crate) fn give_back(&self, ids: &[EntryId], idle: Duration, deliveries: Option<u32>) -> Cmd {
        let mut command = self.transfer(RETURNED, ids, Duration::ZERO);
        command.arg("IDLE").arg(milliseconds(idle));
        if let Some(deliveries) = deliveries {
            command.arg("RETRYCOUNT").arg(deliveries);
        }
        command.arg("JUSTID");
        command
    }

    /// Takes over entries that were idle for `idle`, and reads them.
    pub(crate) fn claim(&self, ids: &[EntryId], idle: Duration) -> Cmd {
        self.transfer(&self.consumer, ids, idle)
    }

    /// Reads entries that are this member's again, without counting a hand-out.
    pub(crate) fn read_again(&self, ids: &[EntryId], deliveries: u32) -> Cmd {
        let mut command = self.transfer(&self.consumer, ids, Duration::ZERO);
        command.arg("RETRYCOUNT").arg(deliveries);
        command
    }

    fn transfer(&self, consumer: &str, ids: &[EntryId], at_least: Duration) -> Cmd {
        let mut command = cmd("XCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(consumer).arg(milliseconds(at_least));
        for id in ids {
            command.write_arg_fmt(id);
        }
        command
    }

    /// Reads an entry of the stream.
    pub(crate) fn find(&self, id: EntryId) -> Cmd {
        let mut command = cmd("XRANGE");
        command.arg(&self.stream).arg(id.to_string()).arg(id.to_string());
        command
    }

    /// Acknowledges entries.
    pub(crate) fn acknowledge(&self, ids: impl ExactSizeIterator<Item = EntryId>) -> Cmd {
        // A present-day id takes 15 bytes.
        let mut command = Cmd::with_capacity(3 + ids.len(), 16 * ids.len() + self.stream.len() + self.group.len() + 4);
        command.arg("XACK").arg(&self.stream).arg(&self.group);
        let mut text = [0; EntryId::LENGTH];
        for id in ids {
            command.write_arg(id.write(&mut text));
        }
        command
    }

    /// Returns the key of the group's failed attempts and trials: a hash of numbers. The entry's id
    /// is the field of its failed attempts, and another one has its trials. A server of a cluster
    /// keeps it where the stream is, because the tag in braces is the stream's name.
    fn attempts(&self) -> String {
        format!("{{{}}}:{}:attempts", self.stream, self.group)
    }

    /// Stores numbers of failed attempts.
    pub(crate) fn store_attempts(&self, counts: &[(EntryId, u32)]) -> Cmd {
        let mut command = cmd("HSET");
        command.arg(self.attempts());
        for (id, count) in counts {
            command.arg(id.to_text()).arg(count);
        }
        command
    }

    /// Notes one trial of an entry more, or one less. Each change is one by itself: another member
    /// may have taken the entry over, and note its own trial.
    pub(crate) fn note_trial(&self, id: EntryId, more: bool) -> Cmd {
        let mut command = cmd("HINCRBY");
        command.arg(self.attempts()).arg(trials_field(id)).arg(if more { 1 } else { -1 });
        command
    }

    /// Keeps the failed attempts and trials for a while.
    pub(crate) fn keep_attempts(&self) -> Cmd {
        let mut command = cmd("EXPIRE");
        command.arg(self.attempts()).arg(KEPT);
        command
    }

    /// Reads numbers of failed attempts and of trials, two for each entry.
    pub(crate) fn read_attempts(&self, ids: &[EntryId]) -> Cmd {
        self.with_fields_of("HMGET", ids)
    }

    /// Removes the failed attempts and trials of entries that are done with.
    pub(crate) fn forget_attempts(&self, ids: &[EntryId]) -> Cmd {
        self.with_fields_of("HDEL", ids)
    }

    fn with_fields_of(&self, name: &str, ids: &[EntryId]) -> Cmd {
        let mut command = cmd(name);
        command.arg(self.attempts());
        for id in ids {
            command.arg(id.to_text()).arg(trials_field(*id));
        }
        command
    }

    /// Lists a page of the failed attempts and trials.
    pub(crate) fn list_attempts(&self, cursor: u64) -> Cmd {
        let mut command = cmd("HSCAN");
        command.arg(self.attempts()).arg(cursor).arg("COUNT").arg(PAGE);
        command
    }

    /// Looks up an entry among the pending ones of all members.
    pub(crate) fn look_up_any(&self, id: EntryId) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg(id.to_string()).arg(id.to_string()).arg(1);
        command
    }

    /// Creates the consumer, which the server otherwise does with the first entry.
    pub(crate) fn join(&self) -> Cmd {
        let mut command = cmd("XGROUP");
        command.arg("CREATECONSUMER").arg(&self.stream).arg(&self.group).arg(&self.consumer);
        command
    }

    /// Removes consumers whose name begins with `names`, that have no pending entries and were
    /// silent for `idle`.
    pub(crate) fn tidy(&self, names: &str, idle: Duration) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(TIDY).arg(1).arg(&self.stream).arg(&self.group).arg(names).arg(milliseconds(idle));
        command
    }
}

/// Looks up the stream.
pub(crate) fn look_up_stream(stream: &str) -> Cmd {
    let mut command = cmd("XINFO");
    command.arg("STREAM").arg(stream);
    command
}

/// Marks the stream as one that is created here.
pub(crate) fn mark_created(stream: &str) -> Cmd {
    let mut command = cmd("SET");
    command.arg(mark(stream)).arg(1);
    command
}

/// Returns the key that tells that a stream was created here.
fn mark(stream: &str) -> String {
    format!("{{{stream}}}:created")
}

/// Waits until so many replicas have everything that was written over this connection, or for a
/// time.
pub(crate) fn wait(replicas: usize, timeout: Duration) -> Cmd {
    let mut command = cmd("WAIT");
    command.arg(replicas).arg(milliseconds(timeout).max(1));
    command
}

/// Ends a blocking read on another connection.
pub(crate) fn unblock(client: i64) -> Cmd {
    let mut command = cmd("CLIENT");
    command.arg("UNBLOCK").arg(client);
    command
}

/// Reads the entries after an entry, without a group.
pub(crate) fn read_after(stream: &str, after: EntryId, count: usize, wait: Duration) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(milliseconds(wait).max(1));
    command.arg("STREAMS").arg(stream).arg(after.to_string());
    command
}

/// The end of the name of a field that has the trials of an entry; its id comes before.
const TRIALS: &str = "/trials";

fn trials_field(id: EntryId) -> String {
    id.to_text() + TRIALS
}

/// Returns the entry that a field of the group's failed attempts and trials belongs to.
pub(crate) fn entry_of_field(field: &[u8]) -> Option<EntryId> {
    EntryId::parse(field.strip_suffix(TRIALS.as_bytes()).unwrap_or(field))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
