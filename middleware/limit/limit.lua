-- Decides about one request. All or nothing: it is counted by every rule or
-- by none.
--
-- KEYS: one for each rule. ARGV: the algorithm, and for each rule four whole
-- numbers: requests, and in ticks of 100 ns its period, interval and slack.
-- Returns: allowed (1 or 0), how long to wait before sending (allowed) or
-- asking again (refused), the rule that decided, what it has left and for how
-- long; times in ticks.
--
-- Times are since 2026 so that they stay whole in a double until 2054. What
-- is stored expires once it is as good as nothing; what is not of our making
-- counts as nothing.

local clock = redis.call('TIME')
local now = ((clock[1] - 1767225600) * 1000000 + clock[2]) * 10

local function store(key, value, ticks)
  redis.call('SET', key, value, 'PX', math.ceil(ticks / 10000) + 1000)
end

local bucket = {
  look = function(key, r)
    -- Never further ahead than one request can bring it: a clock that was set
    -- back must not lock anybody out.
    r.at = math.min(tonumber(redis.call('GET', key)) or 0, now + r.slack + r.interval)
    local ahead = math.max(r.at - now, 0)
    return ahead - r.slack, ahead
  end,
  take = function(key, r)
    r.at = math.max(r.at, now) + r.interval
    local ahead, left = r.at - now, 0
    if ahead <= r.slack then
      left = math.floor((r.slack - ahead) / r.interval) + 1
    end
    store(key, string.format('%.0f', r.at), ahead)
    return left, ahead
  end,
}

local fixed = {
  look = function(key, r)
    local start, count = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
    r.start, r.count = tonumber(start) or 0, tonumber(count) or 0
    local current = now - now % r.per
    if r.start < current or r.start > now + r.per then
      r.start, r.count = current, 0
    end
    if r.count < r.requests then
      return 0, 0
    end
    return r.start + r.per - now, 0
  end,
  take = function(key, r)
    r.count = r.count + 1
    local rest = r.start + r.per - now
    store(key, string.format('%.0f %d', r.start, r.count), rest)
    return r.requests - r.count, rest
  end,
}

local sliding = {
  look = function(key, r)
    r.oldest = tonumber(redis.call('LINDEX', key, 0))
    while r.oldest and r.oldest <= now - r.per do
      redis.call('LPOP', key)
      r.oldest = tonumber(redis.call('LINDEX', key, 0))
    end
    r.count = redis.call('LLEN', key)
    if r.count < r.requests then
      return 0, 0
    end
    return (r.oldest or now) + r.per - now, 0
  end,
  take = function(key, r)
    redis.call('RPUSH', key, string.format('%.0f', now))
    redis.call('PEXPIRE', key, math.ceil(r.per / 10000) + 1000)
    return r.requests - r.count - 1, (r.oldest or now) + r.per - now
  end,
}

local algorithms = {token_bucket = bucket, leaky_bucket = bucket, fixed_window = fixed, sliding_window = sliding}
local algorithm = algorithms[ARGV[1]]
local rules, wait, refused, by = {}, 0, 0, 0
for i, key in ipairs(KEYS) do
  local at = 4 * i - 2
  local r = {
    requests = tonumber(ARGV[at]), per = tonumber(ARGV[at + 1]),
    interval = tonumber(ARGV[at + 2]), slack = tonumber(ARGV[at + 3]),
  }
  local over, delay = algorithm.look(key, r)
  if over > refused then
    refused, by = over, i
  end
  if ARGV[1] == 'leaky_bucket' then
    wait = math.max(wait, delay)
  end
  rules[i] = r
end
if refused > 0 then
  return {0, refused, by, 0, refused}
end
local least, reset = nil, 0
for i, key in ipairs(KEYS) do
  local left, rest = algorithm.take(key, rules[i])
  if not least or left < least then
    least, reset, by = left, rest, i
  end
end
return {1, wait, by, least, reset}
