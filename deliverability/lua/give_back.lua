-- Give back admissions that were not used. KEYS and ARGV as in admit.lua, ARGV[1] is n.
-- After a loss there is nothing to give back to: what was granted is forfeited.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[1]) ~= run_id then return 0 end
local n = tonumber(ARGV[1])
for i = 2, #ARGV, 4 do
  if ARGV[i] == 'day' then
    redis.call('HINCRBY', KEYS[3], ARGV[i + 1], n)
  else
    local tat = redis.call('HGET', KEYS[4], ARGV[i + 1])
    if tat then
      redis.call('HSET', KEYS[4], ARGV[i + 1],
        string.format('%.0f', tonumber(tat) - n * tonumber(ARGV[i + 2])))
    end
  end
end
return n
