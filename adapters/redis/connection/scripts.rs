//! Scripts that the server runs, each as one step.

/// A script that removes consumers of a group, all or none: those whose name begins with the second
/// argument, that were silent for the number of milliseconds in the third, and that have no pending
/// entries. Consumers with pending entries stay, because these would be lost with them.
pub(super) const TIDY: &str = "\
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for at = 1, #consumer, 2 do is[consumer[at]] = consumer[at + 1] end
  if is.pending == 0 and is.idle >= tonumber(ARGV[3]) and string.sub(is.name, 1, #ARGV[2]) == ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  end
end";

/// A script that removes from a stream what each of its groups has settled: the entries before the
/// oldest that is pending, or up to the position of a group without any, but none from the time in
/// the first argument on, and about as many as the third says. It does so if the second argument is
/// `1`, or the second key exists.
///
/// It returns the number of removed entries, and the group that keeps the oldest of the others,
/// except for the one in the fifth argument: if that entry is older than the first argument by the
/// milliseconds in the fourth, and no consumer of the group was heard of for as long.
pub(super) const TRIM: &str = "\
if ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[2]) == 0 then return {0, ''} end
local function named(list)
  local is = {}
  for at = 1, #list, 2 do is[list[at]] = list[at + 1] end
  return is
end
local function number(text) return string.rep('0', 20 - #text) .. text end
local function order(id)
  local milliseconds, sequence = string.match(id, '^(%d+)-(%d+)$')
  return number(milliseconds) .. number(sequence)
end
local least, oldest, keeper, from = ARGV[1] .. '-0', ARGV[1] .. '-0', '', ''
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return {0, ''} end
for _, group in ipairs(groups) do
  local is = named(group)
  local id, first = is['last-delivered-id'], '('
  if is.pending > 0 then id, first = redis.call('XPENDING', KEYS[1], is.name)[2], '' end
  if order(id) < order(least) then least = id end
  if is.name ~= ARGV[5] and order(id) < order(oldest) then oldest, keeper, from = id, is.name, first end
end
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', least, 'LIMIT', ARGV[3])
if keeper == '' or oldest ~= least then return {removed, ''} end
local kept = redis.call('XRANGE', KEYS[1], from .. oldest, '+', 'COUNT', 1)[1]
if not kept or tonumber(string.match(kept[1], '^%d+')) > ARGV[1] - ARGV[4] then return {removed, ''} end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], keeper)
if consumers.err then return {removed, ''} end
for _, consumer in ipairs(consumers) do
  if named(consumer).idle < tonumber(ARGV[4]) then return {removed, ''} end
end
return {removed, keeper}";
