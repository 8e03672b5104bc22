-- Writes whole values, each only if its (epoch, generation) is newer than what its key holds; answers how many were not.
--
-- KEYS: the keys. ARGV: for each key its sort, epoch, generation, lifetime in milliseconds, a number, how many arguments
-- follow, and those:
--   v   the value                         of a binary value, fence and all in its header
--   h   field, value, …                   of a hash, `epoch` and `generation` among them
--   z   score, member, …                  of a sorted set, all of it, the fence among them
--   m   score, member, …, member, …       of a sorted set, what changes: the number says how many arguments put members in
--                                         (the fence among them), the rest take members out

-- A call takes a few thousand arguments at most; this many fit, in pairs.
local ROOM = 4000

local function in_parts(command, key, from, to)
  for i = from, to, ROOM do
    call(command, key, unpack(ARGV, i, math.min(i + ROOM - 1, to)))
  end
end

local put = {}

function put.v(key, ttl, _, from)
  call('SET', key, ARGV[from], 'PX', ttl)
end

function put.h(key, ttl, _, from, to)
  call('DEL', key)
  in_parts('HSET', key, from, to)
  call('PEXPIRE', key, ttl)
end

function put.z(key, ttl, _, from, to)
  call('DEL', key)
  in_parts('ZADD', key, from, to)
  call('PEXPIRE', key, ttl)
end

function put.m(key, ttl, puts, from, to, fence)
  if fence then
    call('ZREM', key, fence)
  elseif call('TYPE', key).ok ~= 'zset' then
    call('DEL', key)
  end
  in_parts('ZADD', key, from, from + puts - 1)
  in_parts('ZREM', key, from + puts, to)
  call('PEXPIRE', key, ttl)
end

local refused, at = 0, 1
for i = 1, #KEYS do
  local key, sort, epoch, generation = KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local from = at + 6
  local to = from + tonumber(ARGV[at + 5]) - 1
  local newer, fence = has(sort, key, epoch, generation)
  if newer then
    refused = refused + 1
  else
    put[sort](key, ARGV[at + 3], tonumber(ARGV[at + 4]), from, to, fence)
  end
  at = to + 1
end
return refused
