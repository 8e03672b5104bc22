-- Shows how far the answers have come; neither half of the mark ever goes back. Answers what the mark said before: epoch,
-- tick_epoch, and 1 if it said rebuilding.
--
-- KEYS: the mark. ARGV: epoch, generation, tick_epoch, how many arguments follow for the epoch, and field, value, … of the
-- epoch, then field, value, … of the tick, whose names begin with `tick_`.

local key, call = KEYS[1], redis.call
local held = call('HMGET', key, 'epoch', 'generation', 'tick_epoch', 'rebuilding')
local epoch, generation, tick = tonumber(held[1]), tonumber(held[2]) or 0, tonumber(held[3]) or 0

-- As a whole: a partition that is read no more must not stay in it.
local function replace(of_tick, from, to)
  for _, field in ipairs(call('HKEYS', key)) do
    if (string.sub(field, 1, 5) == 'tick_') == of_tick then call('HDEL', key, field) end
  end
  for i = from, to, 2 do call('HSET', key, ARGV[i], ARGV[i + 1]) end
end

local to_epoch, to_generation, to_tick = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local middle = 4 + tonumber(ARGV[4])
if not epoch or to_epoch > epoch or to_epoch == epoch and to_generation >= generation then replace(false, 5, middle) end
if to_tick >= tick then replace(true, middle + 1, #ARGV) end
return { epoch or 0, tick, held[4] and 1 or 0 }
