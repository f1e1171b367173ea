#!lua flags=no-writes
-- Reply: {age, name, row, name, row, …}.
return live(age_ms())
