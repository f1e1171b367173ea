// The chat of a visitor, in a shadow root: a bubble on the site, and a panel when it is opened.
import { failureOf } from "../lib/changes.js";
import { batched, channelOf, h, icon, kept } from "../lib/dom.js";
import { dayName, dayNumber } from "../lib/format.js";
import { Client, View } from "../client/imd.js";
import { Mode } from "../lib/mode.js";
import { nodeSettings, websocketUrl } from "../lib/node.js";
import { pendingIn, withPending } from "../lib/pending.js";
import { Quotes } from "../lib/quotes.js";
import { languageOf, translator } from "../lib/text.js";
import { Keys } from "./keys.js";
import { Row } from "./row.js";
import { State } from "./state.js";
import { STYLE } from "./style.js";

const KEY = "imd.widget";
const PAGE = 50;
const NEAR_BOTTOM = 80;
const QUIET_MS = 2000;
const FLASH_MS = 1600; // a message that was looked for stands out

/** Black or white, whichever is easier to read on a colour. */
function inkOn(color) {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...probe.getImageData(0, 0, 1, 1).data].map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

export class Widget {
  /** Put the bubble on the page, if the node takes visitors. */
  static async place(options) {
    if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
    const settings = await nodeSettings(options.base);
    if (settings.visitors) new Widget(options, settings);
  }

  constructor({ base, url, title, lang, color }, settings) {
    this.language = languageOf(lang ?? (document.documentElement.lang || navigator.language));
    this.t = translator(this.language);
    this.title = title || this.t("widget.title");
    this.view = new View(); // messages as they are now
    this.ids = []; // of the messages that are shown, in their order
    this.asked = null; // the message whose actions are shown
    this.found = null; // id of the message that was looked for
    this.said = null; // the message whose words are announced
    this.ahead = null; // the node's time minus performance.now(), in ms
    this.complete = false;
    this.stick = true;
    this.started = false;
    this.client = new Client({ url: url || websocketUrl(settings, base), isVisitor: true, storageKey: KEY });
    this.channel = channelOf(KEY);
    this.channel.onmessage = ({ data }) => this.#add([data]);
    this.drawSoon = batched(() => this.#draw());
    this.quotes = new Quotes(this.client, this.view, { seen: (message) => this.view.add(message), changed: this.drawSoon });
    this.state = new State(this.client, `${KEY}.read`, { changed: this.drawSoon, typing: () => this.#drawTyping() });
    this.told = null; // the words that were said of an agent's typing, until a message comes
    this.#listen();
    this.#build(color);
    // A known visitor may have an answer waiting. Others become visitors with their first message.
    const known = kept.get(`${KEY}.known`, false);
    if (known) this.#start();
    this.#show(kept.get(`${KEY}.open`, false, "sessionStorage") === true, false);
  }

  #start() {
    if (this.started) return;
    this.started = true;
    kept.set(`${KEY}.known`, true);
    this.client.start();
  }

  #listen() {
    const { client } = this;
    client.on("connected", ({ serverTime }) => {
      this.ahead = serverTime - performance.now();
      this.#read();
    });
    client.on("gap", () => this.#read());
    client.on("message", (message) => {
      this.#add([message]);
      this.told = null;
      if (this.isWatched) this.#announce(message.msg, message);
    });
    client.on("sent", (message) => this.#add([message]));
    for (const kind of ["edit", "recall", "react"]) client.on(kind, (event) => this.#apply(event));
    client.on("accepted", (detail) => {
      const { id, sendTime, message } = detail;
      if (message.kind) {
        this.view.accepted(detail, client.userId);
        return this.drawSoon();
      }
      const { clientMsgId, msg, replyTo } = message;
      const accepted = { id, sendTime, clientMsgId, userId: client.userId, msg, replyTo };
      this.#add([accepted]);
      this.channel.postMessage(accepted);
    });
    client.on("outbox", this.drawSoon);
    client.on("failed", ({ message }) => {
      if (this.opened) this.#announce(failureOf(message, this.t));
      this.drawSoon();
    });
    client.on("state", () => this.#linkChanged());
    document.addEventListener("visibilitychange", this.drawSoon);
  }

  get messages() {
    return this.ids.map((id) => this.view.get(id));
  }

  /** The cluster has edits, recalls, reactions and replies. */
  get events() {
    return this.client.features.includes("events");
  }

  /** The time by the node's clock, as messages carry it. The visitor's may be wrong. */
  now() {
    return this.ahead === null ? Date.now() : performance.now() + this.ahead;
  }

  /** The chat is before the visitor's eyes. */
  get isWatched() {
    return this.opened && !document.hidden;
  }

  #add(messages) {
    for (const message of messages) {
      this.view.add(message);
      const { ids } = this;
      let place = ids.length;
      while (place > 0 && ids[place - 1] > message.id) place--;
      if (ids[place - 1] !== message.id) ids.splice(place, 0, message.id);
    }
    this.drawSoon();
  }

  #apply(event) {
    const { kind, of, userId } = event;
    this.view.apply(event);
    this.drawSoon();
    // Said to who does not see it.
    if (kind === "react" || userId === this.client.userId || !this.isWatched || !this.ids.includes(of)) return;
    this.#announce(this.t(kind === "recall" ? "message.is.recalled" : "message.is.edited"));
  }

  /** Words for a screen reader. `message`: the one that they are of. */
  #announce(words, message = null) {
    this.announcer.textContent = words;
    this.said = message;
  }

  /** The message that was announced has been removed or changed: its words do not stay for screen readers either. */
  #unsay() {
    if (this.said && this.view.get(this.said.id)?.msg !== this.said.msg) this.#announce("");
  }

  async #read(before) {
    this.again ||= this.reading && !before;
    if (this.reading) return;
    this.reading = true;
    try {
      const { messages, more } = await this.client.history({ all: true, before, limit: PAGE });
      // A newest page that does not overlap the messages here replaces them.
      if (!before && more && !messages.some(({ id }) => this.ids.includes(id))) this.#dropUpTo(messages.at(-1).id);
      if (before || !this.ids.length || messages[0]?.id <= this.ids[0]) this.complete = !more;
      this.#add(messages);
    } catch {
      // The next connection, or the next scroll, reads again.
    }
    this.reading = false;
    if (!this.again) return;
    this.again = false;
    this.#read();
  }

  #dropUpTo(id) {
    this.ids = this.ids.filter((one) => one > id);
  }

  // ---- elements

  #build(color) {
    const { t } = this;
    this.badge = h("span", { class: "badge", hidden: true });
    this.bubble = h("button", { class: "bubble", type: "button", onclick: () => this.#show(!this.opened) }, icon("bubble"), icon("close"), this.badge);
    this.list = h("ol");
    this.keys = new Keys(this);
    const log = { role: "log", "aria-live": "off", "aria-label": this.title, tabindex: "0" };
    this.scroller = h("div", { class: "scroller", ...log, onscroll: () => this.#scrolled() }, this.list);
    this.typing = h("p", { class: "typing" }); // always has its place: nothing moves when it speaks
    this.link = h("p", { class: "link", role: "status", hidden: true });
    this.announcer = h("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
    this.input = h("textarea", {
      rows: 1,
      placeholder: t("compose.placeholder"),
      "aria-label": t("compose.placeholder"),
      enterkeyhint: "send",
      oninput: () => {
        this.#edited();
        if (!this.mode.edit && this.input.value.trim()) this.state.write();
      },
      onkeydown: (event) => {
        // In an input method for Chinese, Enter ends a word.
        if (event.isComposing || event.keyCode === 229) return;
        if (event.key === "ArrowUp" && !this.input.value && this.keys.focusLast()) event.preventDefault();
        if (event.key !== "Enter" || event.shiftKey) return;
        event.preventDefault();
        this.#send();
      },
    });
    this.input.value = kept.get(`${KEY}.draft`, "");
    this.button = h("button", { class: "send", type: "submit", "aria-label": t("compose.send"), title: t("compose.send") }, icon("send"));
    this.mode = new Mode(this.input, this.button, t, { announce: (words) => this.#announce(words), changed: () => this.#edited() });
    this.panel = h(
      "section",
      { class: "panel", role: "dialog", "aria-label": this.title, hidden: true, onkeydown: (event) => event.key === "Escape" && !event.isComposing && this.#escape() },
      h(
        "div",
        { class: "head" },
        h("h2", {}, this.title),
        h("button", { class: "shut", type: "button", "aria-label": t("widget.close"), title: t("widget.close"), onclick: () => this.#show(false) }, icon("close")),
      ),
      this.link,
      this.scroller,
      this.typing,
      this.mode.bar,
      h(
        "form",
        {
          onsubmit: (event) => {
            event.preventDefault();
            this.#send();
          },
        },
        this.input,
        this.button,
      ),
      this.announcer,
    );
    const host = h("imd-chat", { lang: this.language });
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.append(this.panel, this.bubble);
    if (color && CSS.supports("color", color)) {
      host.style.setProperty("--imd-accent", color);
      host.style.setProperty("--imd-on-accent", inkOn(color));
    }
    // The site's own shortcuts must not react to keys typed here.
    for (const type of ["keydown", "keyup", "keypress"]) host.addEventListener(type, (event) => event.stopPropagation());
    document.body.append(host);
  }

  /** Escape ends what was begun last. */
  #escape() {
    if (this.mode.end()) this.input.focus();
    else if (this.asked) this.actOn(null);
    else this.#show(false);
  }

  #show(opened, focus = true) {
    this.opened = opened;
    this.panel.hidden = !opened;
    this.bubble.classList.toggle("opened", opened);
    this.bubble.setAttribute("aria-expanded", String(opened));
    kept.set(`${KEY}.open`, opened, "sessionStorage");
    this.#draw();
    this.#drawTyping();
    this.#edited();
    if (focus) (opened ? this.input : this.bubble).focus();
  }

  #draw() {
    const { messages, client } = this;
    const had = new Set(messages.map((message) => message.clientMsgId));
    this.pending = pendingIn(client.outbox);
    const shown = messages.map((message) => withPending(message, this.pending.get(message.id), client.userId));
    const waiting = client.outbox.filter((entry) => !entry.kind && !had.has(entry.clientMsgId));
    this.#drawBadge();
    this.mode.look(this.view);
    this.#unsay();
    if (!this.opened) return;
    const before = this.scroller.scrollHeight - this.scroller.scrollTop;
    const rows = [h("li", { class: "hello" }, h("p", { class: "strong" }, this.t("widget.hello")), h("p", {}, this.t("widget.wait")))];
    let day = null;
    for (const entry of [...shown, ...waiting]) {
      const time = entry.sendTime ?? entry.queuedAt;
      if (dayNumber(time) !== day) {
        day = dayNumber(time);
        rows.push(h("li", { class: "day" }, dayName(time, this.language, this.t)));
      }
      rows.push(new Row(entry, this).element);
    }
    const held = this.list.querySelector(":focus")?.dataset.act;
    this.list.replaceChildren(...rows);
    if (held) (this.list.querySelector(`[data-act="${CSS.escape(held)}"]`) ?? this.input).focus({ preventScroll: true });
    this.scroller.scrollTop = this.stick ? this.scroller.scrollHeight : this.scroller.scrollHeight - before;
  }

  /** The number of unseen answers. The newest one is seen if the end of the list is. */
  #drawBadge() {
    const { messages, t, state } = this;
    if (this.isWatched && this.stick) state.seen(messages);
    const unread = state.unread(messages);
    this.badge.hidden = unread === 0;
    this.badge.textContent = String(unread);
    const words = this.opened ? t("widget.close") : t("widget.open");
    this.bubble.setAttribute("aria-label", unread && !this.opened ? `${words}. ${t("widget.new", { n: unread })}` : words);
  }

  /** An agent who stops and begins again before the next message is announced once. */
  #drawTyping() {
    const name = this.state.writer;
    const words = name && this.t("widget.typing", { name });
    const dots = h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    this.typing.replaceChildren(...(name ? [h("span", {}, words), dots] : []));
    if (!name) {
      if (this.announcer.textContent === this.told) this.#announce("");
    } else if (this.isWatched && this.told !== words) this.#announce((this.told = words));
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.stick = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM;
    if (this.stick) this.#drawBadge();
    if (scrollTop < NEAR_BOTTOM && !this.complete && this.ids.length && this.client.state === "open") this.#read(this.ids[0]);
  }

  #linkChanged() {
    const show = () => {
      this.link.textContent = this.t(this.client.state === "closed" ? "widget.off" : "link.waiting");
      this.link.hidden = false;
    };
    if (this.client.state === "open") {
      clearTimeout(this.quiet);
      this.quiet = null;
      this.link.hidden = true;
    } else if (!this.link.hidden) show();
    else this.quiet ??= setTimeout(show, QUIET_MS); // counted from the first of several attempts
  }

  // ---- writing

  #edited() {
    const { input } = this;
    input.rows = 1;
    const padding = 16;
    const line = parseFloat(getComputedStyle(input).lineHeight) || 21;
    input.rows = Math.min(5, Math.max(1, Math.round((input.scrollHeight - padding) / line)));
    this.button.disabled = !input.value.trim();
    kept.set(`${KEY}.draft`, this.mode.draft || null);
  }

  #send() {
    const msg = this.input.value.trim();
    if (!msg) return;
    const { edit, reply } = this.mode;
    this.#start();
    try {
      if (!edit) this.client.send({ msg, replyTo: reply?.id });
      else if (msg !== this.view.get(edit.id).msg) this.client.edit(edit.id, { msg });
    } catch (error) {
      this.link.textContent = error.reason ?? String(error);
      this.link.hidden = false;
      return;
    }
    if (!edit) this.input.value = "";
    this.stick ||= !edit;
    this.mode.end();
    this.#edited();
    this.drawSoon();
    this.input.focus();
  }

  // ---- one message

  /** Show what may be done with a message: {id}, {id, recall: true} for the question before a removal, or null. */
  actOn(asked) {
    const button = (asked ?? this.asked).id;
    this.asked = asked;
    this.#draw();
    const next = asked ? this.list.querySelector(".acts button") : this.list.querySelector(`[data-act="${CSS.escape(`${button} more`)}"]`);
    (next ?? this.input).focus({ preventScroll: true });
    next?.closest("li").scrollIntoView({ block: "nearest" });
  }

  reply(message) {
    this.asked = null;
    this.#draw();
    this.mode.beginReply(message, this.nameOf(message.userId));
  }

  edit(message) {
    this.asked = null;
    this.#draw();
    this.mode.beginEdit(message);
  }

  nameOf(userId) {
    return userId === this.client.userId ? this.t("name.you") : userId;
  }

  /** Show a message, and read back to it if it is not here. */
  async goTo(id) {
    while (!this.ids.includes(id) && !this.complete) {
      const [first] = this.ids;
      await this.#read(first);
      if (this.ids[0] === first) break; // no connection: the next attempt reads on
    }
    this.found = id;
    this.stick = false;
    this.#draw();
    if (!this.keys.focus(id)) this.#announce(this.t("reply.missing"));
    setTimeout(() => {
      this.found = null;
      this.drawSoon();
    }, FLASH_MS);
  }
}
