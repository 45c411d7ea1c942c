-- Put packed rows, except where a newer one is. Only what Redis 6.2 has.
-- KEYS: the rows' keys. ARGV: the view's TTL (0: none), how long a row is kept after that, and how long a row is kept
-- at all (0: no bound), in milliseconds; then the rows. A row that comes too late for its TTL is kept as one that
-- reached it now. Returns how many were put.
-- A row begins with its event and created timestamps: int64, little-endian, microseconds. Lua's numbers are doubles,
-- so each is compared as a signed high and an unsigned low half; comparing strings would follow the server's locale.
local ttl, kept_after, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local put = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i + 3]
  local event_low, event_high, created_low, created_high = struct.unpack('<I4i4I4i4', row)
  local standing = redis.call('GETRANGE', key, 0, 15)
  local older = false
  if #standing == 16 then
    local el, eh, cl, ch = struct.unpack('<I4i4I4i4', standing)
    if event_high ~= eh then older = event_high < eh
    elseif event_low ~= el then older = event_low < el
    elseif created_high ~= ch then older = created_high < ch
    else older = created_low < cl end
  end
  if not older then
    local expiry = longest > 0 and now + longest or 0
    if ttl > 0 then
      local outlived = math.floor((event_high * 4294967296 + event_low) / 1000) + ttl
      local own = math.max(outlived, now) + kept_after
      if expiry == 0 or own < expiry then expiry = own end
    end
    if expiry > 0 then
      redis.call('SET', key, row, 'PXAT', string.format('%.0f', expiry))
    else
      redis.call('SET', key, row)
    end
    put = put + 1
  end
end
return put
