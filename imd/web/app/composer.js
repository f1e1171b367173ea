// The field to write in: a draft, an answer to a message, a change of one's own.
import { h, icon } from "../lib/dom.js";
import { Mode } from "../lib/mode.js";
import { t } from "../lib/text.js";
import { Completion } from "./completion.js";
import { nameFor, titleOf } from "./names.js";

const DRAFT_MS = 300;

export class Composer {
  /** `on`: {sent, back, up, announce, unblock}. `up`: the user wants to go to the messages by keyboard. */
  constructor(session, conversation, on) {
    this.session = session;
    this.conversation = conversation;
    this.on = on;
    const name = titleOf(conversation);
    this.input = h("textarea", {
      rows: 1,
      class: "compose-text",
      "aria-label": t("compose.label", { name }),
      placeholder: t("compose.placeholder"),
      enterkeyhint: "send",
      autocomplete: "off",
      oninput: () => {
        this.edited();
        if (this.input.value && !this.mode.edit) session.live.writing(conversation);
      },
      onkeydown: (event) => this.#key(event),
    });
    this.input.value = session.store.draft(conversation.key);
    this.button = h("button", { class: "send", type: "submit", title: t("compose.send"), "aria-label": t("compose.send") }, icon("send"));
    this.warning = h("p", { class: "compose-warning", role: "alert" });
    this.completion = new Completion(this.input, () => session.sending.names(conversation), on.announce);
    session.sending.prepare(conversation);
    this.mode = new Mode(this.input, this.button, t, { announce: on.announce, changed: () => this.edited() });
    this.row = h("div", { class: "compose-row" }, this.input, this.button);
    this.closed = h("p", { class: "compose-closed", tabIndex: -1, hidden: true });
    const send = (event) => {
      event.preventDefault();
      this.#send();
    };
    this.element = h("form", { class: "compose", onsubmit: send }, this.warning, this.completion.element, this.mode.bar, this.row, this.closed);
  }

  close() {
    this.over = true;
    this.mode.end();
    this.#keepDraft();
  }

  focus() {
    (this.row.hidden ? this.closed : this.input).focus({ preventScroll: true });
  }

  /** Whether this user may write here, and the message that is answered or changed, may have changed. */
  draw() {
    this.mode.look(this.session.store.view);
    this.#drawRights();
  }

  /** Why this user may not write here; null if nothing is against it. */
  get #obstacle() {
    const { room, about, gone } = this.conversation;
    if (!room) return this.session.blocks.has(this.conversation) ? "talk.is.blocked" : null;
    if (gone && (!about || about.joining === "open") && !about?.closed) return "room.is.open";
    if (gone) return "room.is.gone";
    if (about?.closed) return "room.is.closed";
    return about?.posting === "admins" && about.role === "member" ? "room.is.admins" : null;
  }

  #drawRights() {
    const why = this.#obstacle;
    if (why === (this.why ?? null)) return;
    this.why = why;
    const hadFocus = [this.row, this.closed].some((element) => element.contains(document.activeElement));
    if (why) this.mode.end();
    this.row.hidden = why !== null;
    this.closed.hidden = why === null;
    this.closed.replaceChildren(...(why ? [t(why, { name: titleOf(this.conversation) }), ...this.#wayOut(why)] : []));
    if (hadFocus) this.focus();
  }

  /** The button that removes an obstacle. */
  #wayOut(why) {
    const join = () => this.session.client.rooms.join(this.conversation.room);
    const ways = { "room.is.open": ["room.join", join], "talk.is.blocked": ["talk.unblock", this.on.unblock] };
    if (!ways[why]) return [];
    const [words, run] = ways[why];
    return [" ", h("button", { class: "button-link", type: "button", onclick: run }, t(words))];
  }

  reply(message) {
    this.mode.beginReply(message, nameFor(message.userId, this.session.me));
  }

  edit(message) {
    this.mode.beginEdit(message);
  }

  // ---- writing

  #key(event) {
    // In an input method for Chinese, Enter ends a word.
    if (event.isComposing || event.keyCode === 229 || this.completion.key(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "Escape") {
      if (!this.mode.end()) this.on.back();
    } else if (event.key === "ArrowUp" && !this.input.value && this.on.up()) event.preventDefault();
  }

  edited() {
    const { input } = this;
    input.rows = 1;
    const line = parseFloat(getComputedStyle(input).lineHeight);
    const padding = input.offsetHeight - line;
    input.rows = Math.min(8, Math.max(1, Math.round((input.scrollHeight - padding) / line)));
    this.button.disabled = !input.value.trim();
    this.warning.textContent = this.#tooLong() ?? "";
    if (this.session.events && this.conversation.isGroup) this.completion.update();
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.#keepDraft(), DRAFT_MS);
  }

  #keepDraft() {
    clearTimeout(this.saving);
    const { store } = this.session;
    const { draft } = this.mode;
    if (store.draft(this.conversation.key) !== draft) store.setDraft(this.conversation.key, draft);
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
    const { edit, reply } = this.mode;
    const edits = edit !== undefined;
    try {
      if (text !== edit?.msg) this.session.sending.put(this.conversation, { text, edit, reply }, (error) => this.#giveBack(text, error));
    } catch (error) {
      this.warning.textContent = error.reason ?? String(error);
      return;
    }
    if (!edits) this.input.value = "";
    this.mode.end();
    this.edited();
    this.#keepDraft();
    if (!edits) this.on.sent();
    this.focus();
  }

  /** A text that waited did not get into the outbox. */
  #giveBack(text, error) {
    const { store } = this.session;
    const { key } = this.conversation;
    this.mode.end();
    const both = [text, this.over ? store.draft(key) : this.input.value].filter(Boolean).join("\n");
    if (this.over) return store.setDraft(key, both);
    this.input.value = both;
    this.edited();
    this.#keepDraft();
    this.warning.textContent = error.reason ?? String(error);
  }
}
