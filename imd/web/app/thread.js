// One conversation on the screen: its messages in their order, scrolled and read.
import { batched, h, icon } from "../lib/dom.js";
import { dayName, dayNumber } from "../lib/format.js";
import { language, t } from "../lib/text.js";
import { MessageMenu } from "./actions.js";
import { messageItem } from "./bubble.js";
import { Composer } from "./composer.js";
import { Hands } from "./hands.js";
import { lineOf } from "./lines.js";
import { avatar, namesFor, shownName, titleOf } from "./names.js";
import { TalkMenu } from "./talkmenu.js";
import { withPending } from "../lib/pending.js";

const FIRST = 60; // messages drawn at first, and added each time
const NEAR_BOTTOM = 80; // pixels
const NEAR_TOP = 250;
const RUN_MS = 5 * 60_000; // messages of one sender within that time belong together
const FLASH_MS = 1600; // a message that was looked for stands out

/** The view of a conversation. `actions`: {back, announce, tell, details}. Call `close` when it is removed. */
export class Thread {
  constructor(session, conversation, actions) {
    this.session = session;
    this.conversation = conversation;
    this.actions = actions;
    this.shown = FIRST;
    this.stick = true; // stay at the newest message
    this.below = 0; // messages that arrived below the visible part
    this.failed = false; // reading older messages has failed
    this.told = false; // that others are writing has been announced, and no message of theirs has come since
    this.unreadFrom = session.store.firstUnread(conversation.key);
    // Where the node keeps the mark, the first message above it is the first unread one.
    this.unreadAbove = session.counts.unread(conversation) ? session.counts.marks(conversation)?.mark : undefined;
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
    this.composer.close();
    this.messageMenu.close();
    this.talkMenu.close();
    this.conversation.past = null;
    this.sizes.disconnect();
    document.removeEventListener("visibilitychange", this.onSeen);
    window.removeEventListener("focus", this.onSeen);
  }

  #build() {
    const { session, conversation, actions } = this;
    const name = titleOf(conversation);
    this.top = h("p", { class: "thread-top" });
    this.list = h("ol", { class: "messages" });
    this.hands = new Hands(this);
    // Focusable, so that the keyboard scrolls it.
    const log = { role: "log", "aria-live": "off", "aria-label": t("thread.label", { name }), tabindex: "0" };
    this.scroller = h("div", { class: "scroller", ...log, onscroll: () => this.#scrolled() }, this.top, this.list);
    this.jump = h(
      "button",
      { class: "jump", type: "button", hidden: true, title: t("thread.jump"), onclick: () => this.#leavePast() },
      icon("down"),
      h("span", {}),
    );
    this.composer = new Composer(session, conversation, {
      sent: () => this.#sent(),
      back: actions.back,
      up: () => this.hands.focusLast(),
      announce: actions.announce,
      unblock: () => this.talkMenu.block(false),
    });
    this.messageMenu = new MessageMenu(session, conversation, {
      reply: (message) => this.composer.reply(message),
      edit: (message) => this.composer.edit(message),
      announce: actions.announce,
      back: (id) => this.#elementOf(id)?.focus({ preventScroll: true }),
    });
    const back = h(
      "button",
      { class: "button-icon back", type: "button", title: t("thread.back"), "aria-label": t("thread.back"), onclick: actions.back },
      icon("back"),
    );
    this.title = h("h2", { class: "bar-title" });
    this.about = h("p", { class: "bar-about" });
    const details = h(
      "button",
      { class: "button-icon", type: "button", title: t("room.details"), "aria-label": t("room.details"), onclick: actions.details },
      icon("people"),
    );
    this.talkMenu = new TalkMenu(session, conversation, { back: actions.back, tell: actions.tell });
    const header = h("header", { class: "bar" }, back, avatar(conversation), h("div", { class: "bar-text" }, this.title, this.about), this.talkMenu.button, conversation.room && details);
    this.element = h(
      "section",
      { class: "thread", "aria-label": name },
      header,
      h("div", { class: "thread-body" }, this.scroller, this.jump),
      this.composer.element,
      this.messageMenu.element,
      this.talkMenu.element,
    );
  }

  /** Call when the view is on the page. */
  begin(focus) {
    this.draw();
    const line = this.list.querySelector(".unread-line");
    if (line) {
      this.scroller.scrollTop = line.offsetTop - 60;
      this.stick = this.#atBottom();
    }
    this.composer.edited();
    if (focus) this.composer.focus();
    this.session.counts.entered(this.conversation);
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
          const focused = element.contains(document.activeElement) ? document.activeElement : null;
          if (element === place) place = fresh;
          element.replaceWith(fresh);
          if (focused) this.#focusAgain(fresh, focused.dataset.act);
        }
        element = fresh;
      }
      if (element === place) place = place.nextElementSibling;
      else this.list.insertBefore(element, place);
    }
    for (const element of there.values()) element.remove();
    this.#drawTop(items.length > 0);
    this.#drawHeader();
    this.composer.draw();
    this.messageMenu.draw();
    this.hands.drawTabStop();
    if (this.stick) this.#toBottom();
    else if (anchor) this.#hold(anchor);
    this.#drawJump();
    this.#seen();
  }

  /** An element that had the focus was replaced. */
  #focusAgain(element, act) {
    const same = act && element.querySelector(`[data-act="${CSS.escape(act)}"]`);
    if (same) same.focus({ preventScroll: true });
    else if (element.dataset.id) element.focus({ preventScroll: true });
    else this.composer.focus();
  }

  #drawHeader() {
    const { conversation, session } = this;
    const { others, room, about } = conversation;
    const words = room
      ? about && t(about.count === 1 ? "room.people.one" : "room.people", { n: about.count })
      : conversation.isGroup
        ? t("name.members", { n: others.length + 1, names: [...others.map(shownName), session.me].join(", ") })
        : conversation.isVisitors
          ? t("name.visitor.kind")
          : this.#presence();
    this.title.textContent = titleOf(conversation);
    this.talkMenu.draw();
    const writers = session.live.writers(conversation);
    const writing = conversation.isGroup ? t("typing.names", { names: namesFor(writers.map(shownName)) }) : t("typing");
    this.about.textContent = writers.length ? writing : words || "";
    this.about.hidden = !this.about.textContent;
    const begins = writers.length > 0 && !this.about.classList.contains("live");
    this.about.classList.toggle("live", writers.length > 0);
    if (!begins || this.told || document.hidden) return;
    this.told = true;
    this.actions.announce(t("typing.names", { names: namesFor(writers.map(shownName)) }));
  }

  /** Whether the other of a pair is there just now. */
  #presence() {
    return this.session.live.isOnline(this.conversation) ? t("presence.online") : "";
  }

  #drawTop(any) {
    const { conversation, top } = this;
    const { messages, complete } = conversation.onScreen;
    const reading = this.session.isReading(conversation);
    const start = complete && this.shown >= messages.length;
    if (this.failed && !reading && !complete) {
      top.replaceChildren(
        h("button", { class: "button-quiet", type: "button", onclick: () => this.#more() }, t("thread.retry")),
      );
    } else top.textContent = reading ? t("thread.loading") : start ? t(any ? "thread.start" : "thread.empty") : "";
  }

  /** The items of the list: {key, look, make}. A new `look` means a new element. */
  #items() {
    const { session, conversation } = this;
    const { me } = session;
    const messages = conversation.onScreen.messages.slice(-this.shown);
    const had = new Set(messages.map((message) => message.userId === me && message.clientMsgId));
    const waiting = conversation.past ? [] : session.outgoing(conversation).filter((entry) => !had.has(entry.clientMsgId));
    this.peerRead = session.counts.marks(conversation)?.peerRead; // the other has read up to there
    this.pending = session.pending;
    const entries = [
      ...messages.map((message) => ({ ...withPending(message, this.pending.get(message.id), me), time: message.sendTime, state: "accepted" })),
      ...waiting.map((entry) => ({ ...entry, userId: me, time: entry.queuedAt })),
    ];
    const isUnread = ({ id, userId, kind }) => id > this.unreadAbove && userId !== me && kind !== "room";
    const firstUnread = this.unreadAbove === undefined ? this.unreadFrom : messages.find(isUnread)?.id;
    const items = [];
    entries.forEach((entry, i) => {
      const [before, after] = [entries[i - 1], entries[i + 1]];
      if (!before || dayNumber(before.time) !== dayNumber(entry.time)) items.push(this.#day(entry.time));
      const unread = entry.id !== undefined && entry.id === firstUnread;
      if (unread) items.push(this.#unreadLine());
      const first = unread || !joined(before, entry);
      if (entry.kind === "room") items.push(this.#line(entry));
      else items.push(messageItem(entry, { first, last: !joined(entry, after), thread: this }));
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

  #line(event) {
    const words = lineOf(event, this.session.me);
    return { key: event.id, look: words, make: () => h("li", { class: "line" }, h("span", {}, words)) };
  }

  // ---- one message

  get mayReact() {
    const { gone, about } = this.conversation;
    return !gone && !about?.closed && !this.session.blocks.has(this.conversation);
  }

  #elementOf(id) {
    return this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  menu(id, beside) {
    const message = this.session.shown(id);
    if (message) this.messageMenu.open(message, beside);
  }

  /** Show a message, and read what is around it if it is not here. */
  async goTo(id) {
    const { conversation, session } = this;
    const at = conversation.onScreen.messages.findIndex((message) => message.id === id);
    if (at < 0) {
      const found = await session.readAround(conversation, id).catch(() => false);
      if (!found || this.closed) return this.actions.announce(t("reply.missing"));
      this.shown = Math.max(FIRST, conversation.onScreen.messages.length);
    } else this.shown = Math.max(this.shown, conversation.onScreen.messages.length - at + 10);
    this.stick = false;
    this.draw();
    const element = this.#elementOf(id);
    element?.scrollIntoView({ block: "center" });
    element?.focus({ preventScroll: true });
    element?.classList.add("found");
    setTimeout(() => element?.classList.remove("found"), FLASH_MS);
    this.#scrolled();
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
    const { past } = this.conversation;
    this.stick = this.#atBottom() && !past;
    if (this.stick) this.#seen();
    this.#drawJump();
    if (this.scroller.scrollTop < NEAR_TOP && !this.failed) this.#more();
    if (past && this.#atBottom() && !this.session.isReading(this.conversation)) {
      this.#older(() => this.session.readNewer(this.conversation));
    }
  }

  /** Show more messages at the top: from the store, else from the archive. */
  #more() {
    const { conversation, session } = this;
    const { messages, complete } = conversation.onScreen;
    if (this.shown < messages.length) {
      this.stick = this.#atBottom();
      this.shown += FIRST;
      this.drawSoon();
    } else if (!complete && !session.isReading(conversation)) {
      this.#older(() => session.readOlder(conversation));
    }
  }

  async #older(read) {
    const before = this.conversation.onScreen.messages.length;
    this.failed = false;
    try {
      await read();
      this.shown += Math.max(0, this.conversation.onScreen.messages.length - before);
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

  /** From older messages that were looked for, back to the newest ones. */
  #leavePast() {
    this.conversation.past = null;
    this.stick = true;
    this.draw();
    this.#toBottom();
  }

  #sent() {
    this.conversation.past = null;
    this.unreadFrom = this.unreadAbove = undefined;
    this.session.counts.entered(this.conversation);
    this.stick = true;
    this.drawSoon();
  }

  /** A message arrived, or another tab of this user sent one. */
  arrived(message) {
    if (!this.stick) this.below++;
    this.told = false;
    const name = shownName(message.userId);
    if (!document.hidden) this.actions.announce(`${name}: ${message.msg.slice(0, 500)}`, message);
  }

  /** Mark the conversation as read if its end is visible and the page has the focus. */
  #seen() {
    if (this.closed || document.hidden || !document.hasFocus() || !this.stick || this.conversation.past) return;
    this.session.seen(this.conversation);
  }
}

const joined = (one, other) =>
  one !== undefined &&
  other !== undefined &&
  one.kind !== "room" &&
  other.kind !== "room" &&
  one.userId === other.userId &&
  Math.abs(other.time - one.time) < RUN_MS &&
  dayNumber(one.time) === dayNumber(other.time);
