// Names in a text that begin with @.
import { h } from "./dom.js";

const ALL = "@all";

/** A letter or digit behind a name: the name is a longer one. */
const GOES_ON = /^[\p{L}\p{N}_]/u;
/** A name is looked for behind a break, not within an address such as bob@example.org. */
const BEFORE = /[\p{L}\p{N}_.]$/u;

/** The places of `@name` for these names, in order: {from, to, name}. The longest name counts. */
export function places(text, names) {
  const marks = names.map((name) => ({ name, mark: name === ALL ? ALL : `@${name}` })).sort((a, b) => b.mark.length - a.mark.length);
  const found = [];
  for (let at = text.indexOf("@"); at >= 0; at = text.indexOf("@", at + 1)) {
    if (BEFORE.test(text.slice(0, at))) continue;
    const hit = marks.find(({ mark }) => text.startsWith(mark, at) && !GOES_ON.test(text.slice(at + mark.length)));
    if (!hit) continue;
    found.push({ from: at, to: at + hit.mark.length, name: hit.name });
    at += hit.mark.length - 1;
  }
  return found;
}

/** The ids that a text names: `["@all"]` if it names everybody. */
export function mentionsIn(text, names) {
  const named = [...new Set(places(text, names).map(({ name }) => name))];
  return named.includes(ALL) ? [ALL] : named;
}

/** Text as nodes, with the named people standing out; `me` most of all. */
export function withMentions(text, mentions, me) {
  const nodes = [];
  let from = 0;
  for (const place of places(text, mentions)) {
    if (place.from > from) nodes.push(text.slice(from, place.from));
    const isMe = place.name === me || place.name === ALL;
    nodes.push(h("span", { class: `mention${isMe ? " to-me" : ""}` }, text.slice(place.from, place.to)));
    from = place.to;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}
