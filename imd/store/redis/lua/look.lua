#!lua flags=allow-oom
-- Sees users, and notes that a node watches them.
-- Items: {user, address of the node}. Reply: {now_ms, run, outcomes}: {end of the last lease in s or 0, is staff}.
return reply(each(function(item)
  watch(item[1], item[2])
  return {seen_until(item[1])}
end))
