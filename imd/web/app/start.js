// Beginning a conversation with somebody, or making a room.
import { h } from "../lib/dom.js";
import { t } from "../lib/text.js";
import { addressOf } from "./list.js";
import { choice } from "./menu.js";

/** The names in a text, with commas or line breaks between them. */
export const namesIn = (text) => [...new Set(text.split(/[,，、;；\n]/).map((name) => name.trim().slice(0, 128)).filter(Boolean))];

export class StartDialog {
  #kind = "people";
  #entry = null; // the room that is being made

  constructor(session) {
    this.session = session;
    this.element = h("dialog", { class: "dialog", "aria-labelledby": "new-title", onclose: () => this.#closed() });
  }

  open() {
    this.#kind = "people";
    this.#draw();
    this.element.showModal();
  }

  #closed() {
    this.#entry = null;
    this.element.replaceChildren();
  }

  #draw() {
    const { session } = this;
    const kinds = { people: t("new.people"), room: t("new.room") };
    const choose = (kind) => {
      this.#kind = kind;
      this.#draw();
    };
    this.problem = h("p", { class: "login-problem", role: "alert" });
    const isRoom = this.#kind === "room";
    this.go = h("button", { class: "button", type: "submit" }, t(isRoom ? "room.create" : "new.go"));
    this.element.replaceChildren(
      h(
        "form",
        { method: "dialog", onsubmit: (event) => this.#submit(event) },
        h("h2", { id: "new-title" }, t("new.title")),
        session.events && choice("kind", t("new.kind"), kinds, this.#kind, choose),
        ...(isRoom ? this.#roomFields() : this.#peopleFields()),
        this.problem,
        h(
          "div",
          { class: "dialog-buttons" },
          h("button", { class: "button secondary", type: "button", onclick: () => this.element.close() }, t("cancel")),
          this.go,
        ),
      ),
    );
    if (this.element.open) this.element.querySelector("input.field").focus();
  }

  #names(required) {
    this.names = h("input", { id: "names", class: "field", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required, autofocus: !this.name, placeholder: "alice, bob" });
    return this.names;
  }

  #peopleFields() {
    this.name = null;
    return [h("label", { for: "names" }, t("new.names")), this.#names(true), h("p", { class: "hint" }, t("new.hint"))];
  }

  #roomFields() {
    this.name = h("input", { id: "room-name", class: "field", autocomplete: "off", required: true, maxlength: "128", autofocus: true, placeholder: t("room.name.hint") });
    return [
      h("label", { for: "room-name" }, t("room.name")),
      this.name,
      h("label", { for: "names" }, t("room.with")),
      this.#names(false),
      h("p", { class: "hint" }, t("room.with.hint")),
    ];
  }

  #submit(event) {
    const names = namesIn(this.names.value);
    if (this.#kind === "room") {
      event.preventDefault();
      this.#create(names.filter((name) => name !== this.session.me));
    } else if (names.length) location.hash = addressOf({ others: names });
  }

  async #create(users) {
    const { client } = this.session;
    if (this.#entry || !this.name.value.trim()) return;
    let entry;
    try {
      entry = this.#entry = client.rooms.create({ name: this.name.value.trim(), ...(users.length ? { users } : {}) });
    } catch (error) {
      this.problem.textContent = error.reason ?? String(error);
      return;
    }
    this.go.disabled = true;
    this.go.textContent = t("room.creating");
    const { room } = await client.accepted(entry).catch(() => ({}));
    // It may have been closed meanwhile: then the room is in the list.
    if (!room || this.#entry !== entry) return;
    this.element.close();
    location.hash = addressOf({ room });
  }

  /** True if the refused action is this dialog's. */
  refused(entry, words) {
    if (this.#entry?.clientMsgId !== entry.clientMsgId) return false;
    this.#entry = null;
    this.problem.textContent = words;
    this.go.disabled = false;
    this.go.textContent = t("room.create");
    return true;
  }
}
