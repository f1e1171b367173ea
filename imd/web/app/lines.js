// A room's events in words, and the line that a message has in lists and quotes.
import { quoteOf } from "../lib/quotes.js";
import { t } from "../lib/text.js";
import { nameFor, namesFor, shownName } from "./names.js";

function settingsWords(event, who) {
  const { name, posting, joining, history } = event;
  const words = [];
  if (name !== undefined) words.push(t("line.set.name", { who, name }));
  if (posting !== undefined) words.push(t(`line.set.posting.${posting}`, { who }));
  if (joining !== undefined) words.push(t(`line.set.joining.${joining}`, { who }));
  if (history !== undefined) words.push(t("line.set.history", { who }));
  return words.length ? words.join(" ") : t("line.set", { who });
}

/** A room's event in a sentence. */
export function lineOf(event, me) {
  const { action, users = [], userId, count } = event;
  const who = nameFor(userId, me);
  if (action === "set") return settingsWords(event, who);
  const others = users.filter((user) => user.userId !== userId || (action !== "create" && action !== "add"));
  const named = others.map((user) => (user.userId === me ? t("name.you.object") : shownName(user.userId)));
  const names = namesFor(named, action === "create" && count > users.length + 1 ? count - 1 : named.length);
  if (action === "create") return named.length ? t("line.create", { who, names }) : t("line.create.alone", { who });
  if (action === "role") return t(`line.role.${others[0]?.role ?? "member"}`, { who, names });
  return t(`line.${action}`, { who, names });
}

/** A message or event in one line. */
export function excerpt(message, me) {
  if (message.kind === "room") return lineOf(message, me);
  return quoteOf(message, t);
}
