#!lua flags=allow-oom
-- Tells with whom of some users there is a block, in either direction.
-- Items: {user, others}. Reply: {now_ms, run, outcomes}: the others in question.
return reply(each(function(item)
  local user, others, found = item[1], item[2], {}
  if blocking.count(user) == 0 then return found end
  for _, other in ipairs(others) do
    if blocking.between(blocking.key(user), other) then found[#found + 1] = other end
  end
  return found
end))
