#!lua flags=allow-oom
-- Items: {user}. Reply: {now_ms, run, outcomes}: the user's live channels with the feature `state`, in one text in a list.
return reply(each(function(item) return {with_state(item[1])} end))
