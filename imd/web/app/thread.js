// One conversation on the screen: its messages, and the field to write in.
import { batched, h, icon } from "../lib/dom.js";
import { clockTime, dayName, dayNumber, fullTime, initial, isVisitor, linked, tint } from "../lib/format.js";
import { language, t } from "../lib/text.js";

const FIRST = 60; // messages drawn at first, and added each time
const NEAR_BOTTOM = 80; // pixels
const NEAR_TOP = 250;
const RUN_MS = 5 * 60_000; // messages of one sender within that time belong together
const DRAFT_MS = 300;

/** The name that people see. */
export const shownName = (name) => (isVisitor(name) ? t("name.visitor", { id: name.slice(8, 12).toUpperCase() }) : name);

export function titleOf(conversation) {
  if (!conversation.others.length) return t("name.self");
  return conversation.others.map(shownName).join(", ");
}

export function avatar(conversation) {
  const { others, isGroup, key } = conversation;
  const face = isGroup ? icon("people") : isVisitor(others[0] ?? "") ? others[0].slice(8, 10).toUpperCase() : initial(others[0] ?? "•");
  return h("span", { class: `avatar tint-${tint(isGroup ? key : (others[0] ?? ""))}`, "aria-hidden": "true" }, face);
}

/** The view of a conversation. `actions`: {back, announce}. Call `close` when it is removed. */
export class Thread {
  constructor(session, conversation, actions) {
    this.session = session;
    this.conversation = conversation;
    this.actions = actions;
    this.shown = FIRST;
    this.stick = true; // stay at the newest message
    this.below = 0; // messages that arrived below the visible part
    this.failed = false; // reading older messages has failed
    this.unreadFrom = session.store.firstUnread(conversation.key);
    this.drawSoon = batched(() => this.draw());
    this.#build();
    this.sizes = new ResizeObserver(() => this.stick && this.#toBottom());
    this.sizes.observe(this.scroller);
    this.onSeen = () => this.#seen();
    document.addEventListener("visibilitychange", this.onSeen);
    window.addEventListener("focus", this.onSeen);
  }

  close() {
    this.closed = true;
    this.#keepDraft();
    this.sizes.disconnect();
    document.removeEventListener("visibilitychange", this.onSeen);
    window.removeEventListener("focus", this.onSeen);
  }

  #build() {
    const { conversation } = this;
    const name = titleOf(conversation);
    const about = conversation.isGroup
      ? t("name.members", { n: conversation.others.length + 1, names: [...conversation.others.map(shownName), this.session.me].join(", ") })
      : conversation.isVisitors
        ? t("name.visitor.kind")
        : "";
    this.top = h("p", { class: "thread-top" });
    this.list = h("ol", { class: "messages" });
    // Focusable, so that the keyboard scrolls it.
    const log = { role: "log", "aria-live": "off", "aria-label": t("thread.label", { name }), tabindex: "0" };
    this.scroller = h("div", { class: "scroller", ...log, onscroll: () => this.#scrolled() }, this.top, this.list);
    this.jump = h(
      "button",
      { class: "jump", type: "button", hidden: true, title: t("thread.jump"), onclick: () => this.#toBottom() },
      icon("down"),
      h("span", {}),
    );
    this.input = h("textarea", {
      rows: 1,
      class: "compose-text",
      "aria-label": t("compose.label", { name }),
      placeholder: t("compose.placeholder"),
      enterkeyhint: "send",
      autocomplete: "off",
      oninput: () => this.#edited(),
      onkeydown: (event) => this.#key(event),
    });
    this.input.value = this.session.store.draft(conversation.key);
    this.button = h("button", { class: "send", type: "submit", title: t("compose.send"), "aria-label": t("compose.send") }, icon("send"));
    this.warning = h("p", { class: "compose-warning", role: "alert" });
    const form = h(
      "form",
      {
        class: "compose",
        onsubmit: (event) => {
          event.preventDefault();
          this.#send();
        },
      },
      this.warning,
      h("div", { class: "compose-row" }, this.input, this.button),
    );
    const back = h(
      "button",
      { class: "button-icon back", type: "button", title: t("thread.back"), "aria-label": t("thread.back"), onclick: this.actions.back },
      icon("back"),
    );
    const header = h(
      "header",
      { class: "bar" },
      back,
      avatar(conversation),
      h("div", { class: "bar-text" }, h("h2", { class: "bar-title" }, name), about && h("p", { class: "bar-about" }, about)),
    );
    this.element = h("section", { class: "thread", "aria-label": name }, header, h("div", { class: "thread-body" }, this.scroller, this.jump), form);
  }

  /** Call when the view is on the page. */
  begin(focus) {
    this.draw();
    const line = this.list.querySelector(".unread-line");
    if (line) {
      this.scroller.scrollTop = line.offsetTop - 60;
      this.stick = this.#atBottom();
    }
    this.#edited();
    if (focus) this.input.focus({ preventScroll: true });
    this.#older(() => this.session.readNewest(this.conversation));
  }

  // ---- drawing

  draw() {
    if (this.closed) return;
    const anchor = this.stick ? null : this.#anchor();
    const items = this.#items();
    const there = new Map([...this.list.children].map((element) => [element.dataset.key, element]));
    let place = this.list.firstElementChild;
    for (const item of items) {
      let element = there.get(item.key);
      there.delete(item.key);
      if (element?.dataset.look !== item.look) {
        const fresh = item.make();
        fresh.dataset.key = item.key;
        fresh.dataset.look = item.look;
        if (element) {
          const focused = element.contains(document.activeElement);
          if (element === place) place = fresh;
          element.replaceWith(fresh);
          if (focused) this.input.focus({ preventScroll: true });
        }
        element = fresh;
      }
      if (element === place) place = place.nextElementSibling;
      else this.list.insertBefore(element, place);
    }
    for (const element of there.values()) element.remove();
    this.#drawTop(items.length > 0);
    if (this.stick) this.#toBottom();
    else if (anchor) this.#hold(anchor);
    this.#drawJump();
    this.#seen();
  }

  #drawTop(any) {
    const { conversation, top } = this;
    const reading = this.session.isReading(conversation);
    const start = conversation.complete && this.shown >= conversation.messages.length;
    if (this.failed && !reading && !conversation.complete) {
      top.replaceChildren(
        h("button", { class: "button-quiet", type: "button", onclick: () => this.#more() }, t("thread.retry")),
      );
    } else top.textContent = reading ? t("thread.loading") : start ? t(any ? "thread.start" : "thread.empty") : "";
  }

  /** The items of the list: {key, look, make}. A new `look` means a new element. */
  #items() {
    const { session, conversation } = this;
    const messages = conversation.messages.slice(-this.shown);
    const had = new Set(messages.map((message) => message.userId === session.me && message.clientMsgId));
    const waiting = session.outgoing(conversation).filter((entry) => !had.has(entry.clientMsgId));
    const entries = [
      ...messages.map((message) => ({ ...message, time: message.sendTime, state: "accepted" })),
      ...waiting.map((entry) => ({ ...entry, userId: session.me, time: entry.queuedAt })),
    ];
    const items = [];
    entries.forEach((entry, i) => {
      const [before, after] = [entries[i - 1], entries[i + 1]];
      if (!before || dayNumber(before.time) !== dayNumber(entry.time)) items.push(this.#day(entry.time));
      const unread = entry.id !== undefined && entry.id === this.unreadFrom;
      if (unread) items.push(this.#unreadLine());
      const first = unread || !joined(before, entry);
      items.push(this.#message(entry, first, !joined(entry, after)));
    });
    return items;
  }

  #day(ms) {
    const name = dayName(ms, language(), t);
    return { key: `day ${dayNumber(ms)}`, look: name, make: () => h("li", { class: "day" }, h("span", {}, name)) };
  }

  #unreadLine() {
    return { key: "unread", look: "", make: () => h("li", { class: "unread-line" }, h("span", {}, t("thread.new"))) };
  }

  #message(entry, first, last) {
    const mine = entry.userId === this.session.me;
    const state = mine ? (entry.state === "accepted" || entry.state === "failed" ? entry.state : "sending") : "";
    const code = entry.error?.code ?? "";
    return {
      key: mine && entry.clientMsgId ? `mine ${entry.clientMsgId}` : entry.id,
      look: `${state} ${code} ${first} ${last}`,
      make: () => {
        const named = !mine && first && (this.conversation.isGroup || (this.conversation.isVisitors && !isVisitor(entry.userId)));
        const meta = h(
          "span",
          { class: "meta" },
          h("time", { datetime: new Date(entry.time).toISOString(), title: fullTime(entry.time, language()) }, clockTime(entry.time, language())),
          mine && stateIcon(state),
        );
        const bubble = h(
          "div",
          { class: "bubble" },
          named && h("span", { class: `sender tint-text-${tint(entry.userId)}` }, shownName(entry.userId)),
          h("p", { class: "text", dir: "auto" }, linked(entry.msg)),
          meta,
        );
        const classes = ["message", mine ? "mine" : "theirs", first && "first", last && "last", state].filter(Boolean);
        return h("li", { class: classes.join(" ") }, bubble, state === "failed" && this.#failure(entry, code));
      },
    };
  }

  #failure(entry, code) {
    const known = ["too_large", "forbidden", "invalid_message", "expired"].includes(code) ? code : "other";
    const { client } = this.session;
    return h(
      "div",
      { class: "failure" },
      h("span", {}, `${t("state.failed")}. ${t(`failed.${known}`)}`),
      h("button", { type: "button", class: "button-link", onclick: () => client.retry(entry.clientMsgId) }, t("failed.retry")),
      h("button", { type: "button", class: "button-link", onclick: () => client.cancel(entry.clientMsgId) }, t("failed.delete")),
    );
  }

  // ---- scrolling

  #atBottom() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM;
  }

  #toBottom() {
    this.stick = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#drawJump();
    this.#seen();
  }

  /** The first visible message and its position. */
  #anchor() {
    const edge = this.scroller.getBoundingClientRect().top;
    for (const element of this.list.children) {
      const { top, bottom } = element.getBoundingClientRect();
      if (bottom > edge && element.classList.contains("message")) return { key: element.dataset.key, top };
    }
    return null;
  }

  /** Scroll a message back to its position. Its element may have been replaced. */
  #hold({ key, top }) {
    const element = [...this.list.children].find((one) => one.dataset.key === key);
    if (element) this.scroller.scrollTop += element.getBoundingClientRect().top - top;
  }

  #scrolled() {
    this.stick = this.#atBottom();
    if (this.stick) this.#seen();
    this.#drawJump();
    if (this.scroller.scrollTop < NEAR_TOP && !this.failed) this.#more();
  }

  /** Show more messages at the top: from the store, else from the archive. */
  #more() {
    const { conversation, session } = this;
    if (this.shown < conversation.messages.length) {
      this.stick = this.#atBottom();
      this.shown += FIRST;
      this.drawSoon();
    } else if (!conversation.complete && !session.isReading(conversation)) {
      this.#older(() => session.readOlder(conversation));
    }
  }

  async #older(read) {
    const before = this.conversation.messages.length;
    this.failed = false;
    try {
      await read();
      this.shown += Math.max(0, this.conversation.messages.length - before);
    } catch {
      this.failed = true;
    }
    this.drawSoon();
  }

  /** The node is back: read again where that has failed. */
  linkBack() {
    if (this.failed) this.#older(() => this.session.readOlder(this.conversation));
  }

  #drawJump() {
    if (this.stick) this.below = 0;
    this.jump.hidden = this.stick;
    this.jump.lastElementChild.textContent = this.below ? String(this.below) : "";
  }

  /** A message arrived, or another tab of this user sent one. */
  arrived(message) {
    if (!this.stick) this.below++;
    const name = shownName(message.userId);
    if (!document.hidden) this.actions.announce(`${name}: ${message.msg.slice(0, 500)}`);
  }

  /** Mark the conversation as read if its end is visible and the page has the focus. */
  #seen() {
    if (this.closed || document.hidden || !document.hasFocus() || !this.stick) return;
    this.session.store.markRead(this.conversation);
  }

  // ---- writing

  #key(event) {
    // In an input method for Chinese, Enter ends a word.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "Escape") this.actions.back();
  }

  #edited() {
    const { input } = this;
    input.rows = 1;
    const line = parseFloat(getComputedStyle(input).lineHeight);
    const padding = input.offsetHeight - line;
    input.rows = Math.min(8, Math.max(1, Math.round((input.scrollHeight - padding) / line)));
    this.button.disabled = !input.value.trim();
    this.warning.textContent = this.#tooLong() ?? "";
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.#keepDraft(), DRAFT_MS);
  }

  #keepDraft() {
    clearTimeout(this.saving);
    const { store } = this.session;
    if (store.draft(this.conversation.key) !== this.input.value) store.setDraft(this.conversation.key, this.input.value);
  }

  #tooLong() {
    const max = this.session.client.limits?.messageBytes;
    if (!max || this.input.value.length * 3 <= max) return null;
    const n = new TextEncoder().encode(this.input.value).length;
    return n > max ? t("compose.long", { n, max }) : null;
  }

  #send() {
    const text = this.input.value.trim();
    if (!text || this.#tooLong()) return;
    try {
      this.session.send(this.conversation, text);
    } catch (error) {
      this.warning.textContent = error.reason ?? String(error);
      return;
    }
    this.input.value = "";
    this.unreadFrom = undefined;
    this.stick = true;
    this.#edited();
    this.#keepDraft();
    this.drawSoon();
    this.input.focus({ preventScroll: true });
  }
}

const joined = (one, other) =>
  one !== undefined &&
  other !== undefined &&
  one.userId === other.userId &&
  Math.abs(other.time - one.time) < RUN_MS &&
  dayNumber(one.time) === dayNumber(other.time);

function stateIcon(state) {
  const mark = icon({ sending: "clock", accepted: "check", failed: "failed" }[state]);
  return h("span", { class: "state", role: "img", "aria-label": t(`state.${state}`), title: t(`state.${state}`) }, mark);
}
