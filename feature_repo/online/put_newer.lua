-- Put packed rows, except where a newer one is stored; return how many were put. Needs Redis 6.2.
-- KEYS: the keys of the rows.
-- ARGV: three durations in milliseconds, then the rows:
--   1  the view's TTL; 0: none
--   2  how long a row is kept after its TTL
--   3  how long any row is kept after it is written; 0: no limit
-- A row that is written after its TTL is kept as if its TTL ended now.
-- A row begins with its event and created timestamps: int64, little-endian, microseconds. Lua's numbers are doubles,
-- so a timestamp is compared as a signed high and an unsigned low half. (String comparison depends on the server's
-- locale.)
local ttl, stale_period, max_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i + 3]
  local event_low, event_high, created_low, created_high = struct.unpack('<I4i4I4i4', row)
  local stored = redis.call('GETRANGE', key, 0, 15)
  local is_older = false
  if #stored == 16 then
    local el, eh, cl, ch = struct.unpack('<I4i4I4i4', stored)
    if event_high ~= eh then is_older = event_high < eh
    elseif event_low ~= el then is_older = event_low < el
    elseif created_high ~= ch then is_older = created_high < ch
    else is_older = created_low < cl end
  end
  if not is_older then
    local expiry = max_ttl > 0 and now + max_ttl or 0
    if ttl > 0 then
      local ttl_end = math.floor((event_high * 4294967296 + event_low) / 1000) + ttl
      local view_expiry = math.max(ttl_end, now) + stale_period
      if expiry == 0 or view_expiry < expiry then expiry = view_expiry end
    end
    if expiry > 0 then
      redis.call('SET', key, row, 'PXAT', string.format('%.0f', expiry))
    else
      redis.call('SET', key, row)
    end
    count = count + 1
  end
end
return count
