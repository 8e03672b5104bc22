-- Deletes keys whose epoch is before a given one. What has no fence is somebody else's, and a deleted key stays as it is.
--
-- KEYS: the keys. ARGV: the epoch; the lifetime in milliseconds of what stays of a deleted key, and what that is: the value, the member
-- of a sorted set; then the sort of each key.

local before, ttl, value, member = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]

local gone, bury = {}, {}

function gone.v(key) return string.byte(call('GETRANGE', key, 3, 3)) % 2 == 1 end
function gone.h(key) return call('HEXISTS', key, 'deleted') == 1 end
function gone.z(key) return call('ZCARD', key) == 1 end

function bury.v(key)
  call('SET', key, value, 'PX', ttl)
end

function bury.h(key)
  call('DEL', key)
  call('HSET', key, 'deleted', 1, 'epoch', ARGV[1], 'generation', 0)
  call('PEXPIRE', key, ttl)
end

function bury.z(key)
  call('DEL', key)
  call('ZADD', key, '-inf', member)
  call('PEXPIRE', key, ttl)
end

for i, key in ipairs(KEYS) do
  local sort = ARGV[4 + i]
  local epoch = held[sort](key)
  if epoch and epoch < before and not gone[sort](key) then bury[sort](key) end
end
