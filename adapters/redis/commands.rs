//! The commands by which a member of a consumer group reads, claims, renews and acknowledges.

use std::time::Duration;

use ::redis::{Cmd, RedisWrite, cmd};

use super::entry::EntryId;

/// How many entries one command lists or renews at most.
pub(super) const PAGE: usize = 500;

/// Removes consumers of a group, at once or not at all: those whose name begins with the second argument, that were silent
/// for as many milliseconds as the third says, and that have nothing pending. Consumers with something pending stay, for
/// their entries would be lost with them.
const TIDY: &str = "\
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for at = 1, #consumer, 2 do is[consumer[at]] = consumer[at + 1] end
  if is.pending == 0 and is.idle >= tonumber(ARGV[3]) and string.sub(is.name, 1, #ARGV[2]) == ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  end
end";

/// A member of a consumer group: the stream, the group, and the name that no other member has.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) consumer: String,
}

impl Member {
    /// Makes the group, and the stream if it is missing, to read what comes after `start`.
    pub(super) fn create_group(&self, start: EntryId) -> Cmd {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(start.to_string()).arg("MKSTREAM");
        command
    }

    /// Gives the group its position after an entry or, with `$`, after all there are: by `CREATE` if it is not there, by `SETID` if it is.
    pub(super) fn begin_at(&self, how: &str, after: &str) -> Cmd {
        let mut command = cmd("XGROUP");
        command.arg(how).arg(&self.stream).arg(&self.group).arg(after);
        command
    }

    /// Asks about the group, which fails when it or the stream is missing.
    pub(super) fn look_up_group(&self) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group);
        command
    }

    /// Reads what no member was handed out yet, waiting for it up to `wait`. With `forget`, nothing is pending afterwards.
    pub(super) fn read_new(&self, count: usize, wait: Duration, forget: bool) -> Cmd {
        let mut command = self.read(count);
        command.arg("BLOCK").arg(milliseconds(wait).max(1));
        if forget {
            command.arg("NOACK");
        }
        command.arg("STREAMS").arg(&self.stream).arg(">");
        command
    }

    /// Reads again what this member was handed out and has not acknowledged.
    pub(super) fn read_own(&self, count: usize, after: EntryId) -> Cmd {
        let mut command = self.read(count);
        command.arg("STREAMS").arg(&self.stream).arg(after.to_string());
        command
    }

    fn read(&self, count: usize) -> Cmd {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        command
    }

    /// Lists what this member has pending after `after` and up to `last`, idle for `idle` at least.
    pub(super) fn list_own(&self, idle: Duration, after: EntryId, last: Option<EntryId>, count: usize) -> Cmd {
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

    /// Lists what any member has pending, idle for `idle` at least.
    pub(super) fn list_idle(&self, idle: Duration, count: usize) -> Cmd {
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("IDLE").arg(milliseconds(idle)).arg("-").arg("+").arg(count);
        command
    }

    /// Asks whether this member has that entry pending.
    pub(super) fn look_up(&self, id: EntryId) -> Cmd {
        let mut command = cmd("XPENDING");
        let id = id.to_string();
        command.arg(&self.stream).arg(&self.group).arg(&id).arg(&id).arg(1).arg(&self.consumer);
        command
    }

    /// Sets how long these entries have been idle, without counting a delivery.
    pub(super) fn set_idle(&self, ids: &[EntryId], idle: Duration) -> Cmd {
        let mut command = cmd("XCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(0);
        for id in ids {
            command.write_arg_fmt(id);
        }
        command.arg("IDLE").arg(milliseconds(idle)).arg("JUSTID");
        command
    }

    /// Takes over what any member has been silent about for `idle`.
    pub(super) fn claim(&self, idle: Duration, from: EntryId, count: usize) -> Cmd {
        let mut command = cmd("XAUTOCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(milliseconds(idle));
        command.arg(from.to_string()).arg("COUNT").arg(count);
        command
    }

    /// Acknowledges.
    pub(super) fn acknowledge(&self, ids: impl ExactSizeIterator<Item = EntryId>) -> Cmd {
        // An id of today takes 15 bytes.
        let mut command = Cmd::with_capacity(3 + ids.len(), 16 * ids.len() + self.stream.len() + self.group.len() + 4);
        command.arg("XACK").arg(&self.stream).arg(&self.group);
        let mut text = [0; EntryId::LENGTH];
        for id in ids {
            command.write_arg(id.write(&mut text));
        }
        command
    }

    /// Removes consumers with that beginning of their name that have nothing pending and were silent for `idle`.
    pub(super) fn tidy(&self, names: &str, idle: Duration) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(TIDY).arg(1).arg(&self.stream).arg(&self.group).arg(names).arg(milliseconds(idle));
        command
    }
}

/// Ends the waiting of another connection.
pub(super) fn unblock(client: i64) -> Cmd {
    let mut command = cmd("CLIENT");
    command.arg("UNBLOCK").arg(client);
    command
}

/// Reads what comes after an entry, without a group.
pub(super) fn read_after(stream: &str, after: EntryId, count: usize, wait: Duration) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(milliseconds(wait).max(1));
    command.arg("STREAMS").arg(stream).arg(after.to_string());
    command
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
