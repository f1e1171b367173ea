// The menu of a conversation: mute, pin, mark as unread, hide, clear, block.
import { ask } from "../lib/ask.js";
import { Blocks } from "./blocks.js";
import { h, icon } from "../lib/dom.js";
import { t } from "../lib/text.js";
import { shownName } from "./names.js";
import { selectorOf } from "./store.js";

const EDGE = 8; // pixels between the menu and the edge of the window
const SOME_HOURS_MS = 8 * 3600_000;

/** `on`: {back, tell}. `button` opens the menu. It is hidden where the cluster keeps no settings. */
export class TalkMenu {
  constructor(session, conversation, on) {
    this.session = session;
    this.conversation = conversation;
    this.on = on;
    this.name = selectorOf(conversation, session.me);
    this.button = h(
      "button",
      { class: "button-icon", type: "button", popovertarget: "talk-menu", title: t("talk.menu"), "aria-label": t("talk.menu"), "aria-haspopup": "dialog", hidden: true },
      icon("more"),
    );
    this.element = h("div", {
      id: "talk-menu",
      class: "talk-menu",
      popover: "auto",
      role: "dialog",
      "aria-label": t("talk.menu"),
      onbeforetoggle: ({ newState }) => newState === "open" && this.#begin(),
      ontoggle: ({ newState }) => newState === "open" && this.#opened(),
      onkeydown: (event) => this.#key(event),
    });
  }

  draw() {
    this.button.hidden = !this.session.hasState;
    if (this.element.matches(":popover-open")) this.#drawBlock();
  }

  close() {
    if (this.element.matches(":popover-open")) this.element.hidePopover();
  }

  #begin() {
    this.#fill();
    this.session.blocks.look(this.conversation);
  }

  #opened() {
    const { bottom, right } = this.button.getBoundingClientRect();
    const { style, offsetWidth } = this.element;
    style.top = `${bottom + 4}px`;
    style.left = `${Math.max(EDGE, right - offsetWidth)}px`;
    this.element.querySelector("button")?.focus();
  }

  #fill() {
    const { session, conversation } = this;
    const { pinned } = session.counts.marks(conversation) ?? {};
    const isMuted = session.counts.isMuted(conversation);
    const upTo = session.counts.newest(conversation);
    const set = (fields) => () => session.client.settings({ ...this.name, ...fields });
    const away = (fields) => () => {
      set(fields)();
      this.on.back();
    };
    this.acts = h(
      "div",
      { class: "acts" },
      isMuted
        ? this.#act("bell", "talk.unmute", set({ muted: false }))
        : [this.#act("mute", "talk.mute", set({ muted: true })), this.#act("clock", "talk.mute.some", set({ muted: Math.round(session.now()) + SOME_HOURS_MS }))],
      this.#act("pin", pinned ? "talk.unpin" : "talk.pin", set({ pinned: !pinned })),
      this.#act("bubble", "talk.mark", away({ marked: true })),
      upTo && this.#act("hide", "talk.hide", away({ hidden: upTo })),
      upTo && this.#act("recall", "talk.clear", () => this.#clear(upTo), "danger"),
    );
    this.element.replaceChildren(this.acts);
    this.blockAct = null;
    this.#drawBlock();
  }

  #act(picture, words, run, extra = "") {
    const choose = () => {
      this.element.hidePopover();
      run();
    };
    return h("button", { class: `act ${extra}`, type: "button", onclick: choose }, icon(picture), h("span", {}, t(words)));
  }

  async #clear(upTo) {
    if (await ask(t("talk.clear.ask"), t("talk.clear.yes"))) this.session.client.settings({ ...this.name, cleared: upTo });
  }

  // ---- blocking

  #drawBlock() {
    const { blocks } = this.session;
    if (!blocks.isKnown || Blocks.other(this.conversation) === null) return;
    const isBlocked = blocks.has(this.conversation);
    if (this.blockAct && isBlocked === this.isBlocked) return;
    this.isBlocked = isBlocked;
    const act = this.#act("block", isBlocked ? "talk.unblock" : "talk.block", () => this.block(!isBlocked), isBlocked ? "" : "danger");
    const hadFocus = this.blockAct?.contains(document.activeElement);
    this.blockAct?.remove();
    this.blockAct = act;
    this.acts.append(act);
    if (hadFocus) act.focus();
  }

  /** Block the other, after a question, or no longer. */
  async block(on) {
    const other = Blocks.other(this.conversation);
    const name = shownName(other);
    if (on && !(await ask(t("talk.block.ask", { name }), t("talk.block.yes")))) return;
    try {
      await this.session.blocks.set(other, on);
      this.on.tell(t(on ? "talk.blocked" : "talk.unblocked", { name }));
    } catch (error) {
      this.on.tell(t("talk.failed", { why: error.reason ?? String(error) }));
    }
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.element.querySelectorAll("button")];
    buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length]?.focus();
  }
}
