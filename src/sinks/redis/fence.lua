-- What all scripts begin with: the (epoch, generation) that a key holds, by its sort.
--
--   v   in the header of a binary value
--   h   in the fields `epoch` and `generation` of a hash
--   z   in the member of a sorted set that has the lowest score; m likewise

local call, pcall, tonumber, type = redis.call, redis.pcall, tonumber, type
local sub, match, whole = string.sub, string.match, struct.unpack

-- What a key holds of another sort has no fence and is replaced. Any other error (a user who may not look) ends the call: what cannot
-- be looked at must not be written.
local function look(...)
  local answer = pcall(...)
  if type(answer) == 'table' and answer.err then
    if sub(answer.err, 1, 9) ~= 'WRONGTYPE' then error(answer) end
    return {}
  end
  return answer
end

local held = {}

function held.v(key)
  local head = look('GETRANGE', key, 0, 15)
  if type(head) == 'string' and #head == 16 and sub(head, 1, 2) == 'OD' then return whole('>I8I4', head, 5) end
end

function held.h(key)
  local fields = look('HMGET', key, 'epoch', 'generation')
  return tonumber(fields[1]), tonumber(fields[2])
end

function held.z(key)
  local lowest = look('ZRANGE', key, 0, 0)[1]
  if not lowest then return end
  local epoch, generation = match(lowest, '^%zfence:(%d+):(%d+)$')
  return tonumber(epoch), tonumber(generation), lowest
end

held.m = held.z

-- Whether a key has this word or a newer one, and the member in which a sorted set holds its fence.
local function has(sort, key, epoch, generation)
  local its_epoch, its_generation, fence = held[sort](key)
  return its_epoch and (its_epoch > epoch or its_epoch == epoch and (its_generation or 0) >= generation), fence
end

