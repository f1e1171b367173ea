#!lua flags=allow-oom
-- No items: says which run of Redis this is. Reply: {now_ms, run}, as every reply begins.
return reply()
