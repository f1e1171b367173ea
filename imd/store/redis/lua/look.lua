#!lua flags=allow-oom
-- Sees users, and notes that a node watches them.
-- Items: {user, address of the node}. Reply: {now_ms, run, outcomes}: {how many ms the last lease still lasts, or 0; is staff}.
return reply(each(function(item)
  watch(item[1], item[2])
  local ends, staff = seen_until(item[1])
  return {math.max(0, 1000 * ends - now_ms), staff}
end))
