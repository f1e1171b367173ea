#!lua flags=allow-oom
-- Reads pages.
-- Items: {user, epoch, after, limit}. Reply: {now_ms, run, pages}: {epoch, head, page}.
return reply(each(function(item)
  local epoch, seq = head(item[1])
  return {epoch, seq, epoch == item[2] and page(item[1], item[3], item[4]) or {}}
end))
