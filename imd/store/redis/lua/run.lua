#!lua flags=allow-oom
-- Tells which run of Redis this is. No items. Reply: {now_ms, run}, as every reply begins.
return reply()
