//! Failed attempts and noted trials, which a hash beside the group keeps for the next member.

use std::collections::HashMap;

use ::redis::{Pipeline, RedisError, Value};

use crate::error::Result;

use super::super::connection::commands::{Member, entry_of_field};
use super::super::connection::entry::{EntryId, Pending, list};
use super::super::connection::{Connection, answered};
use super::super::error::command_failed;
use super::trials::Change;

/// Stores numbers of failed attempts. A server that refuses them costs the next member the count,
/// which is logged.
pub(super) async fn store(connection: &mut Connection, member: &Member, counts: &[(EntryId, u32)]) -> Result<()> {
    let mut commands = Pipeline::with_capacity(2);
    commands.add_command(member.store_attempts(counts));
    commands.add_command(member.keep_attempts());
    let answers = connection.call_all(&commands).await;
    for answer in answers.map_err(|error| command_failed("store failed attempts", error))? {
        if let Err(error) = answered(answer) {
            let (stream, group) = (&member.stream, &member.group);
            tracing::warn!(stream, group, %error, "failed attempts are not stored: they are counted anew after a restart");
            break;
        }
    }
    Ok(())
}

/// Notes trials and withdraws notes. Those that the server has answered are taken out; `refused`
/// learns of each note that it does not take.
///
/// After an error it is unknown which of them it has carried out. A note that is then withdrawn
/// twice is better than a lost trial that was none.
pub(super) async fn note(
    connection: &mut Connection,
    member: &Member,
    changes: &mut Vec<Change>,
    mut refused: impl FnMut(EntryId),
) -> Result<()> {
    let mut commands = Pipeline::with_capacity(changes.len() + 1);
    for change in &*changes {
        commands.add_command(member.note_trial(change.id, change.begins));
    }
    commands.add_command(member.keep_attempts());
    let failed = |error| command_failed("note trials", error);
    let answers = connection.call_all(&commands).await.map_err(failed)?;
    for (Change { id, begins, confirmer }, answer) in changes.drain(..).zip(answers) {
        let noted = answered(answer).map(drop).map_err(failed);
        if noted.is_err() && begins {
            refused(id);
        }
        if let Some(confirmer) = confirmer {
            confirmer.confirm(noted);
        }
    }
    Ok(())
}

/// The numbers that are kept of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) failed: u32,
    pub(super) trials: u32,
}

/// Reads the numbers of failed attempts and trials of these entries from an answer. Without
/// permission to read them there are none.
pub(super) fn counts_of(ids: &[EntryId], answer: Value) -> HashMap<EntryId, Counts> {
    let Ok(Value::Array(counts)) = answered(answer) else { return HashMap::new() };
    let number = |value: &Value| -> Option<i64> {
        match value {
            Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    };
    // A note that was withdrawn twice leaves a number below zero.
    let count = |value: Option<&Value>| value.and_then(number).map_or(0, |number| u32::try_from(number).unwrap_or(0));
    let pairs = counts.chunks(2).map(|pair| Counts { failed: count(pair.first()), trials: count(pair.get(1)) });
    ids.iter().copied().zip(pairs).filter(|(_, counts)| *counts != Counts::default()).collect()
}

/// A walk through the failed attempts of a group, a page at a time.
#[derive(Debug, Default)]
pub(super) struct Scan {
    cursor: u64,
}

impl Scan {
    /// Removes from the next page the failed attempts of entries that are no longer pending: they
    /// were trimmed, or settled by a member that could not remove them.
    pub(super) async fn next(&mut self, connection: &mut Connection, member: &Member) -> Result<()> {
        let ids = match connection.call(&member.list_attempts(self.cursor)).await {
            Ok(answer) => {
                let (cursor, ids) = page(answer).unwrap_or_default();
                self.cursor = cursor;
                ids
            }
            Err(error) => return refused(error),
        };
        if ids.is_empty() {
            return Ok(());
        }
        let failed = |error| command_failed("remove failed attempts", error);
        let mut commands = Pipeline::with_capacity(ids.len());
        for id in &ids {
            commands.add_command(member.look_up_any(*id));
        }
        let answers = connection.call_all(&commands).await.map_err(failed)?;
        let mut gone = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            if Pending::of_answer(answered(answer).map_err(failed)?)?.is_empty() {
                gone.push(id);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        connection.call(&member.forget_attempts(&gone)).await.map(drop).or_else(refused)
    }
}

/// Passes over a refusal: this is housekeeping.
fn refused(error: RedisError) -> Result<()> {
    if error.code().is_none() {
        return Err(command_failed("remove failed attempts", error));
    }
    tracing::debug!(%error, "failed attempts of messages that are gone were not removed");
    Ok(())
}

/// Reads the next cursor and the ids in an answer to `HSCAN`.
fn page(answer: Value) -> Option<(u64, Vec<EntryId>)> {
    let mut parts = list(answer).ok()?.into_iter();
    let Some(Value::BulkString(cursor)) = parts.next() else { return None };
    let cursor = std::str::from_utf8(&cursor).ok()?.parse().ok()?;
    let fields = list(parts.next()?).ok()?;
    let mut ids: Vec<EntryId> = fields.iter().step_by(2).filter_map(entry).collect();
    ids.sort_unstable();
    ids.dedup();
    Some((cursor, ids))
}

fn entry(field: &Value) -> Option<EntryId> {
    if let Value::BulkString(text) = field { entry_of_field(text) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Value {
        ::redis::parse_redis_value(wire.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    fn id(milliseconds: u64) -> EntryId {
        EntryId { milliseconds, sequence: 0 }
    }

    #[test]
    fn reads_counts_and_passes_over_anything_else() {
        let ids = [id(1), id(2), id(3), id(4)];
        let counts = counts_of(&ids, parse("*8 $1 2 $-1 $-1 $1 3 $1 x $2 -1 $-1 $-1 "));
        let (failed, tried) = (Counts { failed: 2, trials: 0 }, Counts { failed: 0, trials: 3 });
        assert_eq!(counts, HashMap::from([(id(1), failed), (id(2), tried)]));
        assert!(counts_of(&ids, parse("-NOPERM ")).is_empty());
    }

    #[test]
    fn reads_a_page() {
        assert_eq!(page(parse("*2 $2 17 *4 $3 1-0 $1 2 $1 x $1 3 ")), Some((17, vec![id(1)])));
        let trials = "*2 $1 0 *6 $10 2-0/trials $1 1 $3 1-0 $1 2 $10 1-0/trials $1 1 ";
        assert_eq!(page(parse(trials)), Some((0, vec![id(1), id(2)])));
        assert_eq!(page(parse("*2 $1 0 *0 ")), Some((0, vec![])));
        assert_eq!(page(parse("*1 $1 x ")), None);
    }
}
