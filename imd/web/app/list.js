// The list of conversations: names, last messages, unread counts; at the desk, waiting visitors.
import { batched, h, icon } from "../lib/dom.js";
import { duration, fullTime, shortTime } from "../lib/format.js";
import { language, t } from "../lib/text.js";
import { excerpt } from "./lines.js";
import { avatar, nameFor, titleOf } from "./names.js";
import { withPending } from "../lib/pending.js";

const TICK_MS = 15_000;
const MOST = 200; // rows drawn at first, and added each time

const ROOM = "#room:"; // a colon in a name is written as %3A

/** The address of a conversation: #alice, #alice,bob for a group, #room:r-… */
export function addressOf({ room, others }, me) {
  if (room) return ROOM + room;
  return `#${(others.length ? others : [me]).map(encodeURIComponent).join(",")}`;
}

/** The conversation that an address names, {room} or {others}; null if there is none. */
export function placeAt(address, me) {
  if (address.startsWith(ROOM)) return { room: address.slice(ROOM.length) };
  try {
    const names = address.replace(/^#/, "").split(",").filter(Boolean).map(decodeURIComponent);
    if (!names.length) return null;
    return { others: [...new Set(names)].filter((name) => name !== me).sort() };
  } catch {
    return null;
  }
}

export class List {
  /** `begin` is called to start a conversation. */
  constructor(session, begin) {
    this.session = session;
    this.begin = begin;
    this.words = "";
    this.most = MOST;
    this.drawSoon = batched(() => this.draw());
    this.element = h("nav", { class: "list", "aria-label": t("list.label"), onkeydown: (event) => this.#key(event) });
    this.ticking = setInterval(this.drawSoon, TICK_MS);
  }

  close() {
    this.closed = true;
    clearInterval(this.ticking);
  }

  search(words) {
    this.words = words.trim().toLocaleLowerCase();
    this.draw();
  }

  #entries() {
    const { session } = this;
    const { store } = session;
    // The last message of each conversation in the outbox, in one pass.
    const waiting = new Map();
    for (const entry of session.outbox) waiting.set(session.keyOfOutgoing(entry), entry);
    const { pending } = session;
    const entries = [];
    for (const conversation of store.conversations.values()) {
      const draft = conversation.key === store.open ? "" : store.draft(conversation.key);
      const out = waiting.get(conversation.key);
      const isOpen = conversation.key === store.open;
      const newest = session.counts.last(conversation);
      if (conversation.room ? !isOpen && (conversation.gone || !conversation.about) : !newest && !session.counts.get(conversation) && !out && !draft && !isOpen) continue;
      if (!isOpen && !out && !draft && session.counts.isHidden(conversation)) continue;
      const title = titleOf(conversation);
      if (this.words && !title.toLocaleLowerCase().includes(this.words)) continue;
      const last = out
        ? { ...out, userId: session.me, time: out.queuedAt }
        : { ...withPending(newest, pending.get(newest?.id), session.me), time: newest?.sendTime };
      const marks = session.counts.marks(conversation);
      const time = last.time ?? (timeOf(session.counts.newest(conversation)) || (conversation.room ? 0 : session.now()));
      entries.push({ conversation, title, draft, last, unread: session.counts.unread(conversation), marks, time });
    }
    return entries.sort((a, b) => Number(b.marks?.pinned ?? false) - Number(a.marks?.pinned ?? false) || b.time - a.time);
  }

  draw() {
    if (this.closed) return;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const entries = this.#entries();
    const parts = this.session.who.mode === "desk" ? this.#desk(entries) : this.#chat(entries);
    if (this.session.older || entries.length > this.most) {
      parts.push(h("button", { class: "button-quiet", type: "button", onclick: () => this.#more(entries.length) }, t("list.more")));
    }
    const top = this.element.scrollTop;
    this.element.replaceChildren(...parts);
    this.element.scrollTop = top;
    if (focused) this.element.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  async #more(there) {
    this.most += MOST;
    if (there < this.most && this.session.older) await this.session.readOlderConversations().catch(() => {});
    this.drawSoon();
  }

  #chat(entries) {
    if (entries.length) return [this.#rows(entries)];
    if (this.words) return [h("p", { class: "list-empty" }, t("list.none"))];
    const begin = h("button", { class: "button", type: "button", onclick: this.begin }, t("list.begin"));
    return [h("div", { class: "list-empty" }, h("p", { class: "strong" }, t("list.empty")), h("p", {}, t("list.empty.hint")), begin)];
  }

  /** Waiting visitors first, the longest wait at the top; then the others. */
  #desk(entries) {
    const isWaiting = ({ conversation, last }) => conversation.isVisitors && last.userId === conversation.others[0];
    const waiting = entries.filter(isWaiting);
    for (const entry of waiting) entry.since = waitsSince(entry.conversation, this.session.now());
    waiting.sort((a, b) => a.since - b.since);
    const visitors = entries.filter((entry) => entry.conversation.isVisitors && !isWaiting(entry));
    const rooms = entries.filter((entry) => entry.conversation.room);
    const people = entries.filter((entry) => !entry.conversation.isVisitors && !entry.conversation.room);
    const nobody = h("div", { class: "list-empty" }, h("p", { class: "strong" }, t("desk.waiting.none")), h("p", {}, t("desk.waiting.hint")));
    return [
      ...this.#section(t("desk.waiting"), waiting, nobody),
      ...this.#section(t("desk.visitors"), visitors),
      ...this.#section(t("desk.rooms"), rooms),
      ...this.#section(t("desk.people"), people),
    ];
  }

  #section(name, entries, otherwise = null) {
    if (!entries.length && !otherwise) return [];
    const heading = h("h2", { class: "list-heading" }, name, entries.length ? h("span", { class: "count" }, String(entries.length)) : null);
    return [heading, entries.length ? this.#rows(entries) : otherwise];
  }

  #rows(entries) {
    return h("ul", {}, entries.slice(0, this.most).map((entry) => this.#row(entry)));
  }

  #row({ conversation, title, draft, last, unread, marks, time, since }) {
    const { store, me } = this.session;
    const open = conversation.key === store.open;
    const isLine = last.kind === "room" || last.recalled;
    const isMine = last.userId === me;
    const from = draft ? t("list.draft") : isLine || !last.userId ? "" : isMine ? t("list.you") : conversation.isGroup ? `${nameFor(last.userId, me)}: ` : "";
    const isMuted = this.session.counts.isMuted(conversation);
    const failed = last.state === "failed";
    const preview = draft ? draft.slice(0, 200) : last.userId ? excerpt(last, me) : "";
    const named = unread > 0 && conversation.isGroup && this.session.counts.isNamed(conversation);
    return h(
      "li",
      {},
      h(
        "a",
        { class: `row${unread || marks?.marked ? " unread" : ""}`, href: addressOf(conversation, me), "aria-current": open ? "true" : undefined },
        avatar(conversation),
        h(
          "span",
          { class: "row-text" },
          h(
            "span",
            { class: "row-top" },
            h("span", { class: "row-title" }, title),
            since
              ? h("span", { class: "waits" }, t("desk.wait", { time: duration(this.session.now() - since, language()) }))
              : last.time > 0 && h("time", { class: "row-time", title: fullTime(time, language()) }, shortTime(time, language(), t)),
          ),
          h(
            "span",
            { class: "row-bottom" },
            h(
              "span",
              { class: `row-preview${failed ? " failed" : ""}${isLine && !draft ? " quiet" : ""}` },
              from && h("span", { class: draft ? "draft" : "from" }, from),
              preview,
            ),
            marks?.pinned && sign("pin"),
            isMuted && sign("mute"),
            named ? h("span", { class: "badge named", role: "img", "aria-label": t("mention.badge") }, "@") : null,
            marks?.marked && !unread && h("span", { class: "badge dotted", role: "img", "aria-label": t("list.marked") }),
            unread ? h("span", { class: `badge${isMuted ? " muted" : ""}`, role: "img", "aria-label": t("list.unread", { n: unread > 99 ? "99+" : unread }) }, unread > 99 ? "99+" : String(unread)) : null,
          ),
        ),
      ),
    );
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = [...this.element.querySelectorAll("a.row")];
    const next = rows[rows.indexOf(document.activeElement) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
}

const sign = (name) => h("span", { class: "row-sign", role: "img", "aria-label": t(`list.${name}`), title: t(`list.${name}`) }, icon(name));

/** The time of an id, which begins with it. */
const timeOf = (id) => parseInt(id.slice(0, 12) || "0", 16);

/** The time of a visitor's first unanswered message. */
function waitsSince(conversation, now) {
  let since = now;
  for (let i = conversation.messages.length - 1; i >= 0; i--) {
    const message = conversation.messages[i];
    if (message.userId !== conversation.others[0]) break;
    since = message.sendTime;
  }
  return since;
}
