// Edits, recalls and reactions that the node has not answered: messages are shown as they will be.

/** Entries of the outbox by the id of the message that they are about. */
export function pendingIn(outbox) {
  const found = new Map();
  for (const entry of outbox) if (entry.of) found.set(entry.of, [...(found.get(entry.of) ?? []), entry]);
  return found;
}

/** A message with what waits for it: `busy` while something waits, `trouble`: the entry that failed. */
export function withPending(message, entries = [], me) {
  let shown = message;
  for (const entry of entries) {
    if (entry.state === "failed") {
      shown = { ...shown, trouble: entry };
    } else if (entry.kind === "edit" && !shown.recalled) {
      shown = { ...shown, busy: true, msg: entry.msg, mentions: entry.mentions, edited: { id: entry.clientMsgId, time: entry.queuedAt } };
    } else if (entry.kind === "recall") {
      shown = { ...shown, busy: true, msg: "", mentions: undefined, recalled: entry.queuedAt };
    } else if (entry.kind === "react") {
      shown = { ...shown, reactions: reacted(shown.reactions ?? [], entry, me) };
    }
  }
  return shown;
}

function reacted(reactions, { reaction, on }, me) {
  const { count, users } = reactions.find((one) => one.reaction === reaction) ?? { count: 0, users: [] };
  if (users.includes(me) === on) return reactions;
  const changed = { reaction, count: count + (on ? 1 : -1), users: on ? [...users, me] : users.filter((user) => user !== me) };
  const all = count ? reactions.map((one) => (one.reaction === reaction ? changed : one)) : [...reactions, changed];
  return all.filter((one) => one.count > 0);
}
