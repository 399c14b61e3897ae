-- Decides on an event under all tiers together; see log.go for the idea.
-- KEYS: a sorted set. Its members are the totals of all costs up to an event,
-- modulo 2^50, its scores are when that was, in µs. Of what no window sees any
-- more the last entry stays: the windows' totals are differences to it.
-- ARGV: cost, most entries, then limit and length in µs of each tier, the
-- shortest first.
local key, M = KEYS[1], 2 ^ 50
local cost, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local tiers, longest = {}, 0
for i = 3, #ARGV, 2 do
	tiers[#tiers + 1] = { limit = tonumber(ARGV[i]), per = tonumber(ARGV[i + 1]) }
	longest = tonumber(ARGV[i + 1])
end
local function text(n) return string.format('%.0f', n) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local total, lastAt = 0, 0
local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
if last[1] then
	total, lastAt = tonumber(last[1]), tonumber(last[2])
	if lastAt > now then -- the clock was put back: move all by as much
		local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
		for i = 1, #all, 2 do
			redis.call('ZADD', key, text(tonumber(all[i + 1]) - lastAt + now), all[i])
		end
		redis.call('PEXPIRE', key, text(math.ceil(longest / 1000) + 1))
		lastAt = now
	end
end

local ok, wait, report = 1, 0, {}
for i, t in ipairs(tiers) do
	local edge = text(now - t.per)
	local base = tonumber(redis.call('ZREVRANGEBYSCORE', key, edge, '-inf', 'LIMIT', 0, 1)[1] or 0)
	local first = redis.call('ZRANGEBYSCORE', key, '(' .. edge, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
	local used = (total - base) % M
	t.left, t.reset, t.refused = math.max(0, t.limit - used), 0, 0
	if first[1] then t.reset = tonumber(first[2]) + t.per - now end
	if cost > 0 and used + cost > t.limit then
		ok, t.refused = 0, 1
		-- The first entry with which enough will have left.
		local low, high = redis.call('ZCOUNT', key, '-inf', edge), redis.call('ZCARD', key) - 1
		while low < high do
			local middle = math.floor((low + high) / 2)
			local e = redis.call('ZRANGE', key, middle, middle)
			if (tonumber(e[1]) - base) % M < used + cost - t.limit then low = middle + 1 else high = middle end
		end
		local enough = redis.call('ZRANGE', key, low, low, 'WITHSCORES')
		wait = math.max(wait, tonumber(enough[2]) + t.per - now)
	end
end

if ok == 1 and cost > 0 then
	local gone = redis.call('ZREVRANGEBYSCORE', key, text(now - longest), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
	if gone[1] then redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. gone[2]) end
	if lastAt == now then redis.call('ZREM', key, last[1]) end -- one entry for one instant
	local n = redis.call('ZCARD', key)
	if n >= most then -- thin, as log.go does; the first may be what totals are differences to
		local all = redis.call('ZRANGE', key, 1, -1, 'WITHSCORES')
		local tier, gone = #tiers, {}
		for i = 1, #all - 2, 2 do
			local at, after = tonumber(all[i + 1]), tonumber(all[i + 3])
			while tier > 1 and at > now - tiers[tier - 1].per do tier = tier - 1 end
			local cell = math.max(1, math.floor(tiers[tier].per * 2 / most * #tiers))
			local inside = tier > 1 and after > now - tiers[tier - 1].per -- of the next shorter window
			if not inside and math.floor(at / cell) == math.floor(after / cell) then gone[#gone + 1] = all[i] end
		end
		for i = 1, #gone, 1000 do redis.call('ZREM', key, unpack(gone, i, math.min(i + 999, #gone))) end
	end
	redis.call('ZADD', key, text(now), text((total + cost) % M))
	redis.call('PEXPIRE', key, text(math.ceil(longest / 1000) + 1))
	for _, t in ipairs(tiers) do
		t.left = t.left - cost
		if t.reset == 0 then t.reset = t.per end
	end
end
report[1], report[2] = ok, text(wait)
for _, t in ipairs(tiers) do
	report[#report + 1] = t.refused
	report[#report + 1] = text(t.left)
	report[#report + 1] = text(t.reset)
end
return table.concat(report, ' ')
