#!lua flags=allow-oom
-- Tells the parts of users in rooms. It writes, so a primary that is cut off does not answer.
-- Items: {room, user}. Reply: {now_ms, run, outcomes}: {role, joined, history, closed, members} | {0}: no copy
-- | {1, members}: the user is none.
return reply(each(function(item)
  local copy = copy_of(item[1])
  if not copy then return {0} end
  local n = place_in(copy, item[2])
  if not n then return {1, #copy.users} end
  return {string.sub(copy.roles, n, n), copy.joined[n], copy.history, copy.closed, #copy.users}
end))
