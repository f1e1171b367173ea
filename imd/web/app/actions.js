// The menu of a message: reactions, reply, copy, edit, remove.
import { ask } from "../lib/ask.js";
import { inTime } from "../lib/changes.js";
import { h, icon } from "../lib/dom.js";
import { t } from "../lib/text.js";
import { nameFor, namesFor } from "./names.js";

const COMMON = ["👍", "❤️", "😂", "😮", "😢", "🙏"];
const MORE = [..."🎉🔥👏💯👀🤔😊😍😎😅😭😡👎🤝💪🙌👌🚀✅❌⭐☕"];
const EDGE = 8; // pixels between the menu and the edge of the window

/** The rights of this user on a message. */
export function rightsOn(message, session, conversation) {
  const { about, gone, room } = conversation;
  const here = session.events && !message.recalled && !gone;
  const open = here && !about?.closed && !session.blocks.has(conversation);
  const mine = message.userId === session.me;
  const age = session.now() - message.sendTime;
  const { editSeconds, recallSeconds } = session.client.limits ?? {};
  const rules = Boolean(room) && ["owner", "admin"].includes(about?.role);
  return {
    react: open,
    reply: open && (!room || about?.posting !== "admins" || rules),
    edit: open && mine && inTime(editSeconds, age),
    recall: here && (mine || rules) && inTime(recallSeconds, age),
  };
}

export async function recall(session, message) {
  if (await ask(t("message.recall.ask"), t("message.recall.yes"))) session.client.recall(message.id);
}

/** One menu for all messages of a conversation. `on`: {reply, edit, announce, back}; `back` gives the focus back to a message. */
export class MessageMenu {
  constructor(session, conversation, on) {
    this.session = session;
    this.conversation = conversation;
    this.on = on;
    this.element = h("div", {
      class: "message-menu",
      // Not "auto": that closes when the button is released which has opened it.
      popover: "manual",
      role: "dialog",
      "aria-label": t("message.actions"),
      onkeydown: (event) => this.#key(event),
      onfocusout: ({ relatedTarget }) => relatedTarget && !this.element.contains(relatedTarget) && this.#hide(),
    });
    this.onPress = ({ target }) => !this.element.contains(target) && this.#hide();
  }

  /** Open the menu of a message beside an element. */
  open(message, beside) {
    const rights = rightsOn(message, this.session, this.conversation);
    if (message.recalled) return;
    this.message = message;
    this.element.replaceChildren(...[rights.react && this.#reactions(COMMON, true), this.#acts(rights), this.#who()].filter(Boolean));
    if (!this.#isOpen) this.element.showPopover();
    document.addEventListener("pointerdown", this.onPress, true);
    this.beside = beside.getBoundingClientRect();
    this.#place();
    this.element.querySelector("button")?.focus({ preventScroll: true });
  }

  get #isOpen() {
    return this.element.matches(":popover-open");
  }

  /** The message as it is now; undefined if it was removed. */
  get #now() {
    const message = this.session.shown(this.message.id);
    return message?.recalled ? undefined : message;
  }

  /** The message may have been removed: then it has no menu any more. */
  draw() {
    if (this.#isOpen && !this.#now) this.#hide(this.element.contains(document.activeElement));
  }

  /** `back`: the message gets the focus that the menu had. */
  #hide(back = false) {
    if (!this.#isOpen) return;
    document.removeEventListener("pointerdown", this.onPress, true);
    this.element.hidePopover();
    if (back) this.on.back(this.message.id);
  }

  #place() {
    const { left, right, top, bottom } = this.beside;
    const { style, offsetWidth, offsetHeight } = this.element;
    const wantedLeft = (left + right) / 2 > innerWidth / 2 ? right - offsetWidth : left;
    const below = bottom + 4 + offsetHeight < innerHeight - EDGE;
    style.left = `${Math.max(EDGE, Math.min(wantedLeft, innerWidth - offsetWidth - EDGE))}px`;
    style.top = `${Math.max(EDGE, below ? bottom + 4 : Math.min(top - offsetHeight - 4, innerHeight - offsetHeight - EDGE))}px`;
  }

  #reactions(some, withMore) {
    const { session, message } = this;
    const mine = new Set((message.reactions ?? []).filter(({ users }) => users.includes(session.me)).map(({ reaction }) => reaction));
    const more = h("button", { class: "emoji-button", type: "button", title: t("react.more"), "aria-label": t("react.more") }, icon("plus"));
    const row = h(
      "div",
      { class: "emojis", role: "group", "aria-label": t("react.who") },
      some.map((reaction) => {
        const on = mine.has(reaction);
        const label = t(on ? "react.back" : "react.with", { reaction });
        const choose = () => this.#do(() => session.client.react(message.id, reaction, !on));
        return h("button", { class: "emoji-button emoji", type: "button", title: label, "aria-label": label, "aria-pressed": String(on), onclick: choose }, reaction);
      }),
      withMore && more,
    );
    more.addEventListener("click", () => {
      const all = this.#reactions([...COMMON, ...MORE], false);
      row.replaceWith(all);
      all.classList.add("all");
      this.#place();
      all.children[COMMON.length].focus();
    });
    return row;
  }

  close() {
    this.#hide();
  }

  #acts(rights) {
    const { session, on } = this;
    const act = (name, run, extra = "") =>
      h("button", { class: `act ${extra}`, type: "button", onclick: () => this.#do(run) }, icon(name), h("span", {}, t(`message.${name}`)));
    return h(
      "div",
      { class: "acts" },
      rights.reply && act("reply", (message) => on.reply(message)),
      act("copy", (message) => this.#copy(message)),
      rights.edit && act("edit", (message) => on.edit(message)),
      rights.recall && act("recall", (message) => recall(session, message), "danger"),
    );
  }

  /** The names behind the reactions. */
  #who() {
    const { reactions = [] } = this.message;
    if (!reactions.length) return null;
    const rows = reactions.map(({ reaction, count, users }) =>
      h("li", {}, h("span", { class: "emoji" }, reaction), h("span", {}, namesFor(users.map((name) => nameFor(name, this.session.me)), count))),
    );
    return h("ul", { class: "reacted", "aria-label": t("react.who") }, rows);
  }

  /** Call `run` with the message as it is now: it may have been changed or removed since the menu was opened. */
  #do(run) {
    const message = this.#now;
    this.#hide(true);
    if (message) run(message);
  }

  async #copy({ msg }) {
    await navigator.clipboard?.writeText(msg).catch(() => {});
    this.on.announce(t("message.copied"));
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    event.stopPropagation();
    if (event.key === "Escape") this.#hide(true);
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.element.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const inRow = document.activeElement.classList.contains("emoji-button");
    const first = buttons.findIndex((button) => button.classList.contains("act"));
    // Down leaves the row of reactions; up comes back to its beginning.
    if (event.key === "ArrowDown" && inRow) buttons[first]?.focus();
    else if (event.key === "ArrowUp" && at === first) buttons[0].focus();
    else buttons[(at + step + buttons.length) % buttons.length].focus();
  }
}
