// Times, names and links for people.
import { h } from "./dom.js";

const formats = new Map();

function format(language, options) {
  const key = language + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language, options));
  return formats.get(key);
}

export const clockTime = (ms, language) => format(language, { hour: "numeric", minute: "2-digit" }).format(ms);

export const fullTime = (ms, language) => format(language, { dateStyle: "full", timeStyle: "short" }).format(ms);

/** The day as a number that grows by 1 each midnight. */
export function dayNumber(ms) {
  const date = new Date(ms);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86400000);
}

/** Today, Yesterday, Monday, 3 March, 3 March 2024. */
export function dayName(ms, language, t, now = Date.now()) {
  const ago = dayNumber(now) - dayNumber(ms);
  if (ago === 0) return t("day.today");
  if (ago === 1) return t("day.yesterday");
  if (ago > 1 && ago < 7) return format(language, { weekday: "long" }).format(ms);
  const thisYear = new Date(ms).getFullYear() === new Date(now).getFullYear();
  return format(language, { day: "numeric", month: "long", ...(thisYear ? {} : { year: "numeric" }) }).format(ms);
}

/** For lists: the time today, else the day, short. */
export function shortTime(ms, language, t, now = Date.now()) {
  const ago = dayNumber(now) - dayNumber(ms);
  if (ago <= 0) return clockTime(ms, language);
  if (ago === 1) return t("day.yesterday");
  if (ago < 7) return format(language, { weekday: "short" }).format(ms);
  const thisYear = new Date(ms).getFullYear() === new Date(now).getFullYear();
  return format(language, thisYear ? { day: "numeric", month: "short" } : { dateStyle: "short" }).format(ms);
}

/** 40 s, 3 min, 2 h. */
export function duration(ms, language) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [value, unit] =
    seconds < 60 ? [seconds, "second"] : seconds < 3600 ? [Math.floor(seconds / 60), "minute"] : [Math.floor(seconds / 3600), "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short" }).format(value);
}

const LINK = /\bhttps?:\/\/[^\s<>"“”]+/gi;
const AFTER_A_LINK = /[.,;:!?'’)\]}>。，；：！？）】》]+$/;

/** Text as nodes: web addresses become links, everything else stays text. `plain` makes nodes of the text between them. */
export function linked(text, plain = (between) => [between]) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(LINK)) {
    let address = match[0];
    const tail = AFTER_A_LINK.exec(address)?.[0] ?? "";
    // A closing bracket belongs to the address if the address has the opening one.
    const keep = tail.startsWith(")") && address.includes("(") ? 1 : 0;
    address = address.slice(0, address.length - tail.length + keep);
    if (!URL.canParse(address)) continue;
    if (match.index > from) nodes.push(...plain(text.slice(from, match.index)));
    nodes.push(h("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, address));
    from = match.index + address.length;
  }
  if (from < text.length) nodes.push(...plain(text.slice(from)));
  return nodes;
}

export const isVisitor = (name) => name.startsWith("visitor-");

/** One of eight tints, always the same for a name. */
export function tint(name) {
  let sum = 7;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return sum % 8;
}

/** The first letter or sign of a name. */
export const initial = (name) => [...name.trim()][0]?.toUpperCase() ?? "?";
