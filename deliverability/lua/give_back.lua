-- Give back daily admissions that were not used. KEYS and ARGV as in admit.lua, ARGV[1] is n.
-- After a loss there is nothing to give back to: what was granted is forfeited.
-- A rate is not given back: time has made up for part of it meanwhile, and an hour that got both
-- would hold too many. It costs a minute's worth at most, since no more is admitted at once.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[1]) ~= run_id then return 0 end
local n = tonumber(ARGV[1])
for i = 2, #ARGV, 4 do
  if ARGV[i] == 'day' then
    redis.call('HINCRBY', KEYS[3], ARGV[i + 1], n)
  end
end
return n
