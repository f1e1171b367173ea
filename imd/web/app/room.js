// A room's members and settings, in a dialog.
import { ask } from "../lib/ask.js";
import { batched, h, icon } from "../lib/dom.js";
import { t } from "../lib/text.js";
import { choice } from "./menu.js";
import { avatar, face, nameFor, titleOf } from "./names.js";
import { namesIn } from "./start.js";

const RANK = { owner: 0, admin: 1, member: 2 };

export class RoomDialog {
  #mine = new Set(); // clientMsgIds of this dialog's actions
  #version = null; // as it is drawn

  constructor(session, conversation) {
    this.session = session;
    this.conversation = conversation;
    this.drawSoon = batched(() => this.draw());
    this.problem = h("p", { class: "login-problem", role: "alert" });
    this.body = h("div", { class: "room-body" });
    this.title = h("h2", { id: "room-title" });
    const shut = h("button", { class: "button-icon", type: "button", title: t("close"), "aria-label": t("close"), onclick: () => this.element.close() }, icon("close"));
    this.element = h(
      "dialog",
      { class: "dialog room", "aria-labelledby": "room-title", onclose: () => this.close() },
      h("header", { class: "room-head" }, avatar(conversation), this.title, shut),
      this.problem,
      this.body,
    );
  }

  open() {
    this.draw();
    this.element.showModal();
  }

  close() {
    this.closed = true;
    this.element.remove();
  }

  get #role() {
    return this.conversation.about?.role ?? "member";
  }

  get #rules() {
    return this.#role !== "member" && !this.conversation.about?.closed;
  }

  draw() {
    const { conversation } = this;
    const { about, gone } = conversation;
    if (this.closed) return;
    if (gone || !about) return this.element.close();
    const version = `${about.version} ${about.role} ${about.closed}`;
    if (version === this.#version) return;
    this.#version = version;
    this.title.textContent = titleOf(conversation);
    this.members = h("ul", { class: "members" });
    const held = document.activeElement?.id;
    const typed = [...this.body.querySelectorAll("input.field")].filter(({ value, defaultValue }) => value !== defaultValue);
    this.body.replaceChildren(
      h("h3", {}, t("room.members"), h("span", { class: "count" }, String(about.count))),
      ...(this.#rules ? [this.#invite()] : []),
      this.members,
      ...(this.#rules ? [h("h3", {}, t("room.settings")), this.#settings()] : []),
      this.#end(),
    );
    // Another's change must not take what is being typed.
    for (const { id, value } of typed) {
      const field = this.body.querySelector(`#${CSS.escape(id)}`);
      if (field) field.value = value;
    }
    if (held) this.body.querySelector(`#${CSS.escape(held)}`)?.focus();
    this.#drawMembers();
  }

  async #drawMembers() {
    const { members, session, conversation } = this;
    const all = await session.rooms.members(conversation.room).catch(() => null);
    if (members !== this.members) return;
    if (!all) return members.replaceChildren(h("li", { class: "hint" }, t("room.members.failed")));
    const sorted = [...all].sort((a, b) => RANK[a.role] - RANK[b.role] || (a.userId < b.userId ? -1 : 1));
    members.replaceChildren(...sorted.map((member) => this.#member(member)));
  }

  #member({ userId, role }) {
    const { session } = this;
    const name = nameFor(userId, session.me);
    const other = userId !== session.me;
    const isOwner = this.#role === "owner" && this.#rules;
    const mayRemove = this.#rules && other && (isOwner || role === "member");
    const roles = ["owner", "admin", "member"].map((one) => h("option", { value: one, selected: one === role }, t(`room.role.${one}`)));
    const change = (event) => this.#act((rooms, room) => rooms.role(room, { userId, role: event.target.value }));
    return h(
      "li",
      { class: "member" },
      face(userId),
      h("span", { class: "member-name" }, name),
      isOwner && other
        ? h("select", { class: "role", "aria-label": t("room.role", { name }), onchange: change }, roles)
        : h("span", { class: "role" }, t(`room.role.${role}`)),
      mayRemove &&
        h(
          "button",
          { class: "button-icon", type: "button", title: t("room.remove", { name }), "aria-label": t("room.remove", { name }), onclick: () => this.#remove(userId, name) },
          icon("close"),
        ),
    );
  }

  async #remove(userId, name) {
    if (await ask(t("room.remove.ask", { name }), t("room.remove.yes"))) this.#act((rooms, room) => rooms.remove(room, userId));
  }

  #invite() {
    const names = h("input", { id: "room-invite", class: "field", autocomplete: "off", autocapitalize: "none", spellcheck: "false", "aria-label": t("room.invite.label"), placeholder: "alice, bob" });
    const invite = (event) => {
      event.preventDefault();
      const users = namesIn(names.value);
      if (users.length && this.#act((rooms, room) => rooms.add(room, users))) names.value = "";
    };
    return h("form", { class: "room-invite", onsubmit: invite }, names, h("button", { class: "button", type: "submit" }, t("room.invite")));
  }

  #settings() {
    const { about } = this.conversation;
    const name = h("input", { id: "room-rename", class: "field", maxlength: "128", required: true, autocomplete: "off", "aria-label": t("room.name"), value: about.name });
    const rename = (event) => {
      event.preventDefault();
      const wanted = name.value.trim();
      if (!wanted || wanted === about.name) return;
      name.defaultValue = name.value;
      this.#set({ name: wanted });
    };
    const rule = (key, values, fixed = false) => {
      const options = Object.fromEntries(values.map((value) => [value, t(`room.${key}.${value}`)]));
      const field = choice(key, t(`room.${key}`), options, about[key], (value) => this.#set({ [key]: value }));
      field.disabled = fixed;
      return field;
    };
    const readsAll = about.history === "all";
    return h(
      "div",
      { class: "room-settings" },
      h("form", { class: "room-invite", onsubmit: rename }, name, h("button", { class: "button secondary", type: "submit" }, t("room.save"))),
      rule("posting", ["all", "admins"]),
      rule("joining", ["invite", "open"]),
      rule("history", ["joined", "all"], readsAll),
      !readsAll && h("p", { class: "hint" }, t("room.history.hint")),
    );
  }

  #set(what) {
    this.#act((rooms, room) => rooms.set(room, what));
  }

  #end() {
    const owner = this.#role === "owner" && this.#rules;
    const act = (name) => async () => {
      if (await ask(t(`room.${name}.ask`), t(`room.${name}.yes`))) this.#act((rooms, room) => rooms[name](room));
    };
    return h(
      "div",
      { class: "room-end" },
      h("button", { class: "button secondary danger", type: "button", onclick: act("leave") }, t("room.leave")),
      owner && h("button", { class: "button secondary danger", type: "button", onclick: act("close") }, t("room.close")),
    );
  }

  /** Put an action into the outbox; false if it cannot be. */
  #act(action) {
    this.problem.textContent = "";
    try {
      this.#mine.add(action(this.session.client.rooms, this.conversation.room).clientMsgId);
    } catch (error) {
      this.problem.textContent = error.reason ?? String(error);
      return false;
    }
    return true;
  }

  /** True if the refused action is this dialog's. It is drawn again, as it was. */
  refused(entry, words) {
    if (this.closed || !this.#mine.delete(entry.clientMsgId)) return false;
    this.problem.textContent = words;
    this.#version = null;
    this.drawSoon();
    return true;
  }
}
