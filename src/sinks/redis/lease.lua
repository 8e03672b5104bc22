-- Whether the run of the engine with this generation is the latest that asked, as far as anybody knows; notes it if it is. Whoever
-- had the lease before watches its key, so their next transaction comes to nothing.
--
-- KEYS: the lease, the mark. ARGV: generation.

local generation = tonumber(ARGV[1])
local holder = tonumber(call('GET', KEYS[1]) or 0)
local _, shown = held.h(KEYS[2])
if holder > generation or (shown or 0) > generation then return 0 end
call('SET', KEYS[1], generation)
return 1
