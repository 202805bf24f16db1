//! Commands with which a member of a consumer group reads, claims, renews and acknowledges.

use std::time::Duration;

use ::redis::{Cmd, RedisWrite, cmd};

use super::entry::EntryId;

/// Maximum number of entries that one command lists or renews.
pub(crate) const PAGE: usize = 500;

/// A script that removes consumers of a group, all or none: those whose name begins with the second
/// argument, that were silent for the number of milliseconds in the third, and that have no pending
/// entries. Consumers with pending entries stay, because these would be lost with them.
const TIDY: &str = "\
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for at = 1, #consumer, 2 do is[consumer[at]] = consumer[at + 1] end
  if is.pending == 0 and is.idle >= tonumber(ARGV[3]) and string.sub(is.name, 1, #ARGV[2]) == ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  end
end";

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

    /// Reads entries that were not delivered to any member yet, and waits for them up to `wait`.
    /// With `forget`, they do not become pending.
    pub(crate) fn read_new(&self, count: usize, wait: Duration, forget: bool) -> Cmd {
        let mut command = self.read(count);
        command.arg("BLOCK").arg(milliseconds(wait).max(1));
        if forget {
            command.arg("NOACK");
        }
        command.arg("STREAMS").arg(&self.stream).arg(">");
        command
    }

    /// Reads again the entries that were delivered to this member and are not acknowledged.
    pub(crate) fn read_own(&self, count: usize, after: EntryId) -> Cmd {
        let mut command = self.read(count);
        command.arg("STREAMS").arg(&self.stream).arg(after.to_string());
        command
    }

    fn read(&self, count: usize) -> Cmd {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        command
    }

    /// Lists the pending entries of this member after `after` and up to `last`, idle for at least
    /// `idle`.
    pub(crate) fn list_own(&self, idle: Duration, after: EntryId, last: Option<EntryId>, count: usize) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("IDLE").arg(milliseconds(idle));
        command.arg(format!("({after}"));
        match last {
            Some(last) => command.arg(last.to_string()),
            None => command.arg("+"),
        };
        command.arg(count).arg(&self.consumer);
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

    /// Sets the idle time of these entries, without counting a delivery.
    pub(crate) fn set_idle(&self, ids: &[EntryId], idle: Duration) -> Cmd {
        let mut command = cmd("XCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(0);
        for id in ids {
            command.write_arg_fmt(id);
        }
        command.arg("IDLE").arg(milliseconds(idle)).arg("JUSTID");
        command
    }

    /// Takes over entries about which a member has been silent for `idle`.
    pub(crate) fn claim(&self, idle: Duration, from: EntryId, count: usize) -> Cmd {
        let mut command = cmd("XAUTOCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(milliseconds(idle));
        command.arg(from.to_string()).arg("COUNT").arg(count);
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

    /// Removes consumers whose name begins with `names`, that have no pending entries and were
    /// silent for `idle`.
    pub(crate) fn tidy(&self, names: &str, idle: Duration) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(TIDY).arg(1).arg(&self.stream).arg(&self.group).arg(names).arg(milliseconds(idle));
        command
    }
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

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
