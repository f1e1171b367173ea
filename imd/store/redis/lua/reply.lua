-- The script's reply.

-- The text of an error that pcall caught.
local function error_text(why)
  return type(why) == 'table' and why.err or tostring(why)
end

-- The outcome of each item. An item whose keys are broken fails alone: its outcome is a text that says why.
local function each(work)
  local outcomes = {}
  for i, item in ipairs(items) do
    local ok, outcome = pcall(work, item)
    if not ok then outcome = error_text(outcome) end
    outcomes[i] = outcome
  end
  return outcomes
end

-- Called last: shared messages that are in no inbox any more are deleted here.
local function reply(...)
  for member, times in pairs(released) do
    if redis.call('HINCRBY', shared_key(member), 'left', -times) <= 0 then
      redis.call('DEL', shared_key(member))
    end
  end
  return cmsgpack.pack({now_ms, run, ...})
end
