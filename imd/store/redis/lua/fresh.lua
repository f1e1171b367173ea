-- Whether a document that a node has read may still change Redis.
--
-- A document that was read before a change cannot undo it. In the same run Redis has that change still, with a higher
-- version, since it keeps each for longer than FRESH_MS. In another run the document is refused.
local FRESH_MS = 30000

-- `read_in`: the run of Redis that the reader knew; `read_at`: the time in ms. Both are of before the document was read.
local function is_fresh(read_in, read_at)
  return format('%.0f', read_in) == run_text and math.abs(now_ms - read_at) <= FRESH_MS
end
