-- Shows how far the answers have come; neither half of the mark ever goes back. Answers what the mark said before: epoch,
-- tick_epoch, and 1 if it said rebuilding.
--
-- It comes on the heels of the writes it speaks of, before anybody knows whether they succeeded. A call of the other script
-- writes its keys in order, so one whose last key is there has written all: these keys are looked at first.
--
-- KEYS: the mark, then the last key of each call. ARGV: epoch, generation, tick_epoch; the epoch and tick_epoch that the mark
-- must say at least, and 1 if it is known to say rebuilding; how many arguments follow for the epoch; sort, epoch, generation of each last key; field, value, … of the
-- epoch; field, value, … of the tick, whose names begin with `tick_`.

local key = KEYS[1]
local to_epoch, to_generation, to_tick = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local said_epoch, said_tick = tonumber(ARGV[4]), tonumber(ARGV[5])

local first = 8
for i = 2, #KEYS do
  if not has(ARGV[first], KEYS[i], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])) then
    return redis.error_reply('MISSING ' .. KEYS[i] .. ' was written just now and is not there')
  end
  first = first + 3
end
local last = first - 1 + tonumber(ARGV[7])

local held = call('HMGET', key, 'epoch', 'generation', 'tick_epoch', 'rebuilding')
local epoch, generation, tick = tonumber(held[1]), tonumber(held[2]) or 0, tonumber(held[3]) or 0

-- As a whole: a partition that is read no more must not stay in it.
local function replace(of_tick, from, to)
  local old = {}
  for _, field in ipairs(call('HKEYS', key)) do
    if (sub(field, 1, 5) == 'tick_') == of_tick then old[#old + 1] = field end
  end
  for i = 1, #old, 1000 do call('HDEL', key, unpack(old, i, math.min(i + 999, #old))) end
  for i = from, to, 1000 do call('HSET', key, unpack(ARGV, i, math.min(i + 999, to))) end
end

if not epoch or to_epoch > epoch or to_epoch == epoch and to_generation >= generation then replace(false, first, last) end
if to_tick >= tick then replace(true, last + 1, #ARGV) end
-- What was lost is noted here, not by whoever reads the answer, which may never arrive.
local lost = (epoch or 0) < said_epoch or tick < said_tick
if lost or held[4] and ARGV[6] == '0' then call('HSET', key, 'rebuilding', 1) end
return { epoch or 0, tick, held[4] and 1 or 0 }
