// The field to write in: a draft, an answer to a message, a change of one's own.
import { h, icon } from "../lib/dom.js";
import { mentionsIn } from "../lib/mentions.js";
import { t } from "../lib/text.js";
import { Completion } from "./completion.js";
import { excerpt } from "./lines.js";
import { nameFor, titleOf } from "./names.js";

const DRAFT_MS = 300;

export class Composer {
  #known = []; // names that were offered to complete
  #mode = null; // {reply: message}, or {edit: message, draft: the text that waits meanwhile}

  /** `on`: {sent, back, up, announce}. `up`: the user wants to go to the messages by keyboard. */
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
      oninput: () => this.edited(),
      onkeydown: (event) => this.#key(event),
    });
    this.input.value = session.store.draft(conversation.key);
    this.button = h("button", { class: "send", type: "submit", title: t("compose.send"), "aria-label": t("compose.send") }, icon("send"));
    this.warning = h("p", { class: "compose-warning", role: "alert" });
    this.completion = new Completion(this.input, () => this.#names(), on.announce);
    this.bar = h("div", { class: "compose-mode", hidden: true });
    this.row = h("div", { class: "compose-row" }, this.input, this.button);
    this.closed = h("p", { class: "compose-closed", tabIndex: -1, hidden: true });
    const send = (event) => {
      event.preventDefault();
      this.#send();
    };
    this.element = h("form", { class: "compose", onsubmit: send }, this.warning, this.completion.element, this.bar, this.row, this.closed);
  }

  close() {
    this.#end();
    this.#keepDraft();
  }

  focus() {
    (this.row.hidden ? this.closed : this.input).focus({ preventScroll: true });
  }

  /** Whether this user may write here, and the message that is answered or changed, may have changed. */
  draw() {
    const about = this.#mode?.reply ?? this.#mode?.edit;
    if (about && this.session.store.view.get(about.id)?.recalled) this.#end();
    this.#drawRights();
  }

  #drawRights() {
    const { room, about, gone } = this.conversation;
    const joins = gone && (!about || about.joining === "open") && !about?.closed;
    const why = !room ? null : joins ? "open" : gone ? "gone" : about?.closed ? "closed" : about?.posting === "admins" && about.role === "member" ? "admins" : null;
    if (why === (this.why ?? null)) return;
    this.why = why;
    if (why && this.#mode) this.#end();
    this.row.hidden = why !== null;
    this.closed.hidden = why === null;
    const join = h("button", { class: "button-link", type: "button", onclick: () => this.session.client.rooms.join(room) }, t("room.join"));
    this.closed.replaceChildren(why ? t(`room.is.${why}`) : "", ...(why === "open" ? [" ", join] : []));
  }

  // ---- modes

  reply(message) {
    this.#begin({ reply: message }, "reply", t("reply.to", { name: nameFor(message.userId, this.session.me) }), message, t("reply.cancel"));
  }

  edit(message) {
    this.#begin({ edit: message, draft: this.input.value }, "edit", t("edit.title"), message, t("edit.cancel"));
    this.input.value = message.msg;
    this.edited();
  }

  #begin(mode, mark, title, message, cancel) {
    this.#end();
    if (mode.edit) mode.draft = this.input.value;
    this.#mode = mode;
    this.bar.replaceChildren(
      icon(mark),
      h("span", { class: "compose-mode-text" }, h("span", { class: "strong" }, title), h("span", { class: "quote-text" }, excerpt(message, this.session.me))),
      h("button", { class: "button-icon", type: "button", title: cancel, "aria-label": cancel, onclick: () => this.#cancel() }, icon("close")),
    );
    this.bar.hidden = false;
    const words = mode.edit ? t("edit.save") : t("compose.send");
    this.button.title = words;
    this.button.setAttribute("aria-label", words);
    this.button.replaceChildren(icon(mode.edit ? "check" : "send"));
    this.on.announce(title);
    this.focus();
  }

  #cancel() {
    this.#end();
    this.focus();
  }

  #end() {
    const mode = this.#mode;
    if (!mode) return;
    this.#mode = null;
    this.bar.hidden = true;
    this.bar.replaceChildren();
    this.button.title = t("compose.send");
    this.button.setAttribute("aria-label", t("compose.send"));
    this.button.replaceChildren(icon("send"));
    if (mode.edit) this.input.value = mode.draft;
    this.edited();
  }

  // ---- writing

  /** Names to complete: members of the room or list, and `@all` for who may use it. */
  async #names() {
    const { session, conversation } = this;
    const { room, others, about } = conversation;
    const members = room ? (await session.rooms.members(room)).map(({ userId }) => userId) : others;
    const names = members.filter((name) => name !== session.me);
    this.#known = room && ["owner", "admin"].includes(about?.role) ? [...names, "@all"] : names;
    return this.#known;
  }

  #key(event) {
    // In an input method for Chinese, Enter ends a word.
    if (event.isComposing || event.keyCode === 229 || this.completion.key(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "Escape") {
      if (this.#mode) this.#end();
      else this.on.back();
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
    const text = this.#mode?.edit ? this.#mode.draft : this.input.value;
    if (store.draft(this.conversation.key) !== text) store.setDraft(this.conversation.key, text);
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
    const edits = this.#mode?.edit !== undefined;
    try {
      this.#put(text);
    } catch (error) {
      this.warning.textContent = error.reason ?? String(error);
      return;
    }
    if (!edits) this.input.value = "";
    this.#end();
    this.edited();
    this.#keepDraft();
    if (!edits) this.on.sent();
    this.focus();
  }

  #put(text) {
    const { session, conversation } = this;
    const { edit, reply } = this.#mode ?? {};
    const mentions = mentionsIn(text, [...this.#known, ...(edit?.mentions ?? [])]);
    const named = mentions.length ? { mentions } : {};
    if (!edit) session.send(conversation, text, { ...named, ...(reply ? { replyTo: reply.id } : {}) });
    else if (text !== edit.msg) session.client.edit(edit.id, { ...named, contentType: edit.contentType, data: edit.data, msg: text });
  }
}
