#!lua flags=allow-oom
-- Items: {user, epoch, after, limit}. Reply: {now_ms, pages}: {epoch, head, page}.
local pages = {}
for i, item in ipairs(items) do
  local epoch, seq = head(item[1])
  pages[i] = {epoch, seq, epoch == item[2] and page(item[1], item[3], item[4]) or {}}
end
return reply(pages)
