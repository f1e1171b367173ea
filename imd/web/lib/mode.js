// The mode of a field to write in: a new message, an answer to one, or a change of one's own. A bar above the field shows it.
import { h, icon } from "./dom.js";
import { quoteOf } from "./quotes.js";

export class Mode {
  #now = null; // {reply: message}, or {edit: message, draft: the text that waits meanwhile}

  /** `on`: {announce, changed}. `changed`: the field has another text. */
  constructor(input, button, t, on) {
    this.input = input;
    this.button = button;
    this.t = t;
    this.on = on;
    this.bar = h("div", { class: "compose-mode", hidden: true });
  }

  /** The message that is answered. */
  get reply() {
    return this.#now?.reply;
  }

  /** The message that is changed. */
  get edit() {
    return this.#now?.edit;
  }

  /** The text of a new message: to be kept. */
  get draft() {
    return this.edit ? this.#now.draft : this.input.value;
  }

  /** Answer a message of the user with this name. */
  beginReply(message, name) {
    this.#begin({ reply: message }, this.t("reply.to", { name }), this.t("reply.cancel"));
  }

  beginEdit(message) {
    this.#begin({ edit: message, draft: this.draft }, this.t("edit.title"), this.t("edit.cancel"));
    this.input.value = message.msg;
    this.on.changed();
  }

  #begin(next, title, cancel) {
    const { t } = this;
    this.end();
    this.#now = next;
    const stop = () => {
      this.end();
      this.input.focus({ preventScroll: true });
    };
    this.bar.replaceChildren(
      icon(next.edit ? "edit" : "reply"),
      h("span", { class: "compose-mode-text" }, h("span", { class: "strong" }, title), h("span", { class: "quote-text" }, quoteOf(next.edit ?? next.reply, t))),
      h("button", { class: "button-icon", type: "button", title: cancel, "aria-label": cancel, onclick: stop }, icon("close")),
    );
    this.bar.hidden = false;
    this.#drawButton(next.edit ? "check" : "send", t(next.edit ? "edit.save" : "compose.send"));
    this.on.announce(title);
    this.input.focus({ preventScroll: true });
  }

  /** Back to a new message. False if it was one. */
  end() {
    const was = this.#now;
    if (!was) return false;
    this.#now = null;
    this.bar.hidden = true;
    this.bar.replaceChildren();
    this.#drawButton("send", this.t("compose.send"));
    if (was.edit) this.input.value = was.draft;
    this.on.changed();
    return true;
  }

  #drawButton(mark, words) {
    this.button.title = words;
    this.button.setAttribute("aria-label", words);
    this.button.replaceChildren(icon(mark));
  }

  /** A message that was recalled is neither answered nor changed. */
  look(view) {
    const about = this.reply ?? this.edit;
    if (about && view.get(about.id)?.recalled) this.end();
  }
}
