// People and conversations as they are named and pictured.
import { h, icon } from "../lib/dom.js";
import { initial, isVisitor, tint } from "../lib/format.js";
import { t } from "../lib/text.js";

const NAMED = 5; // people named in a line

/** The name that people see. */
export const shownName = (name) => (isVisitor(name) ? t("name.visitor", { id: name.slice(8, 12).toUpperCase() }) : name);

/** “You” for this user. */
export const nameFor = (name, me) => (name === me ? t("name.you") : shownName(name));

/** Several names: bob, carol and 3 more. `count`: there are more than those given. */
export function namesFor(names, count = names.length) {
  const some = names.length > NAMED || count > names.length ? names.slice(0, NAMED) : names;
  const rest = count - some.length;
  return rest > 0 ? t("names.more", { names: some.join(t("names.comma")), n: rest }) : some.join(t("names.comma"));
}

export function titleOf(conversation) {
  if (conversation.room) return conversation.about?.name || t("room.unnamed");
  if (!conversation.others.length) return t("name.self");
  return conversation.others.map(shownName).join(", ");
}

export function avatar(conversation) {
  const { others, isGroup, room, key } = conversation;
  const [first = ""] = others;
  const face = room ? icon("room") : isGroup ? icon("people") : isVisitor(first) ? first.slice(8, 10).toUpperCase() : initial(first || "•");
  return h("span", { class: `avatar${room ? " square" : ""} tint-${tint(isGroup ? key : first)}`, "aria-hidden": "true" }, face);
}

export function face(name, size = "small") {
  return h("span", { class: `avatar ${size} tint-${tint(name)}`, "aria-hidden": "true" }, isVisitor(name) ? name.slice(8, 10).toUpperCase() : initial(name));
}
