-- Whether the run of the engine that asks is the latest, as far as anybody knows; notes it if it is. Whoever had the lease before
-- watches its key, so their next transaction comes to nothing.
--
-- A run is the later one if it begins at a later epoch, and of two that begin at the same epoch by its generation. A mark of
-- somebody else at an epoch that is ours to write says that a later run was here, though its lease is gone.
--
-- KEYS: the lease, the mark. ARGV: the first epoch that no run before has written, generation.

local since, generation = tonumber(ARGV[1]), tonumber(ARGV[2])
local its_since, its_generation = match(call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
its_since, its_generation = tonumber(its_since) or 0, tonumber(its_generation) or 0
if its_since > since or its_since == since and its_generation > generation then return 0 end
local epoch, shown_by = held.h(KEYS[2])
if epoch and epoch >= since and shown_by ~= generation then return 0 end
call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1
