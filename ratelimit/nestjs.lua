-- Decides on a hit as @nestjs/throttler does; see throttle.go.
-- KEYS: a hash of what is blocked until when and what the Reset headers show,
-- then a sorted set for each tier, as in together.lua.
-- ARGV: cost, most entries, limit and length in µs of each tier, the shortest
-- first, then for each how long a block is.
local meta, M = KEYS[1], 2 ^ 50
local cost, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local n = #KEYS - 1
local life = 0
for i = 1, n do life = math.max(life, tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[2 + 2 * n + i])) end
local function text(n) return string.format('%.0f', n) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function touch(key) redis.call('PEXPIRE', key, text(math.ceil(life / 1000) + 1)) end

local function hit(key, limit, per) -- counts if there is room, returns the hits
	local total, lastAt = 0, 0
	local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
	if last[1] then
		total, lastAt = tonumber(last[1]), tonumber(last[2])
		if lastAt > now then -- the clock was put back: move all by as much
			local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
			for i = 1, #all, 2 do
				redis.call('ZADD', key, text(tonumber(all[i + 1]) - lastAt + now), all[i])
			end
			lastAt = now
		end
	end
	local gone = redis.call('ZREVRANGEBYSCORE', key, text(now - per), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
	local hits = (total - tonumber(gone[1] or 0)) % M + cost
	if hits > limit or cost == 0 then return hits end
	if gone[1] then redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. gone[2]) end
	if lastAt == now then redis.call('ZREM', key, last[1]) end
	local entries = redis.call('ZCARD', key)
	if entries >= most then -- thin, as log.go does; the first may be what totals are differences to
		local all = redis.call('ZRANGE', key, 1, -1, 'WITHSCORES')
		local cell, gone = math.max(1, math.floor(per * 2 / most * n)), {}
		for i = 1, #all - 2, 2 do
			local at, after = tonumber(all[i + 1]), tonumber(all[i + 3])
			if math.floor(at / cell) == math.floor(after / cell) then gone[#gone + 1] = all[i] end
		end
		for i = 1, #gone, 1000 do redis.call('ZREM', key, unpack(gone, i, math.min(i + 999, #gone))) end
	end
	redis.call('ZADD', key, text(now), text((total + cost) % M))
	touch(key)
	return hits
end

local report = { 1, 0 }
for i = 1, n do
	local key = KEYS[1 + i]
	local limit, per, block = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[2 + 2 * n + i])
	-- A clock put back makes nothing longer than it can be.
	local shown = math.min(tonumber(redis.call('HGET', meta, 's' .. i) or 0), now + per)
	local blocked = math.min(tonumber(redis.call('HGET', meta, 'b' .. i) or 0), now + block)
	if shown <= now then shown = now + per end
	redis.call('HSET', meta, 's' .. i, text(shown))
	if blocked > now then
		redis.call('HSET', meta, 'b' .. i, text(blocked))
		report[1], report[2] = 0, text(blocked - now)
	else
		if blocked > 0 then -- it is over: begin empty
			redis.call('DEL', key)
			redis.call('HDEL', meta, 'b' .. i)
		end
		local hits = hit(key, limit, per)
		if hits > limit then
			redis.call('DEL', key)
			redis.call('HSET', meta, 'b' .. i, text(now + block))
			report[1], report[2] = 0, text(block)
		else
			for _, v in ipairs({ 0, text(limit - hits), text(shown - now) }) do report[#report + 1] = v end
		end
	end
	touch(meta)
	if report[1] == 0 then
		for _, v in ipairs({ 1, 0, report[2] }) do report[#report + 1] = v end
		break
	end
end
return table.concat(report, ' ')
