-- Admit k of n messages through all limits at once, or only look.
--
-- KEYS: generation, rebuilt-at, allowances (hash), rates (hash)
-- ARGV: "take" or "peek", n, then per limit: "day", field, "", "" or "rate", field, interval_us, burst
-- Returns {"ok", k, wait_us, index of the limit that binds (0: none)}, or {"stale"} when this
-- server is not the one that the limits were built on (restarted, or emptied): nothing passes.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[1]) ~= run_id then return {'stale'} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local rebuilt = tonumber(redis.call('GET', KEYS[2]))
local k, wait, binding = tonumber(ARGV[2]), 0, 0
local tats = {}

for i = 3, #ARGV, 4 do
  local room, ready = 0, 0
  if ARGV[i] == 'day' then
    room = tonumber(redis.call('HGET', KEYS[3], ARGV[i + 1]) or '0')
  else
    local interval, burst = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    -- A rate that is not there restarts empty, counted from when the limits were rebuilt.
    local tat = tonumber(redis.call('HGET', KEYS[4], ARGV[i + 1]) or (rebuilt + burst * interval))
    if tat < now then tat = now end
    tats[i] = tat
    room = math.floor((now + burst * interval - tat) / interval)
    ready = tat + interval - burst * interval - now
  end
  if room < 0 then room = 0 end
  if room < k then k, wait, binding = room, ready, (i + 1) / 4 end
end

if ARGV[1] == 'take' and k > 0 then
  for i = 3, #ARGV, 4 do
    if ARGV[i] == 'day' then
      redis.call('HINCRBY', KEYS[3], ARGV[i + 1], -k)
    else
      local tat = tats[i] + k * tonumber(ARGV[i + 2])
      redis.call('HSET', KEYS[4], ARGV[i + 1], string.format('%.0f', tat))
      if binding == (i + 1) / 4 then
        wait = tat + tonumber(ARGV[i + 2]) * (1 - tonumber(ARGV[i + 3])) - now
      end
    end
  end
end
if wait < 0 then wait = 0 end
return {'ok', k, string.format('%.0f', wait), binding}
