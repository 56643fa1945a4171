-- Bind the limits to this server: allowances are forfeited, rates restart empty.
-- KEYS as in admit.lua. Returns {run id, 1 when rebuilt now, 0 when it was bound already}.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[1]) == run_id then return {run_id, 0} end
local time = redis.call('TIME')
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('SET', KEYS[2], string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])))
redis.call('SET', KEYS[1], run_id)
return {run_id, 1}
