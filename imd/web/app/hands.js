// Going through messages by keyboard, and reaching their menu by touch.
import { recall, rightsOn } from "./actions.js";

const MESSAGE = "li[data-id]";

export class Hands {
  constructor(thread) {
    this.thread = thread;
    this.list = thread.list;
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focusin", () => this.drawTabStop());
    this.list.addEventListener("click", (event) => this.#tap(event));
    this.list.addEventListener("contextmenu", (event) => this.#context(event));
  }

  get #all() {
    return [...this.list.querySelectorAll(MESSAGE)];
  }

  /** One message is a stop of the tab key: the one that has the focus, else the newest. */
  drawTabStop() {
    const held = this.list.contains(document.activeElement) ? document.activeElement.closest(MESSAGE) : null;
    const stop = held ?? this.#all.at(-1);
    for (const button of this.list.querySelectorAll("[data-act]")) button.tabIndex = stop?.contains(button) ? 0 : -1;
  }

  /** False if there is no message. */
  focusLast() {
    const last = this.#all.at(-1);
    if (last) this.#focus(last);
    return last !== undefined;
  }

  #focus(element) {
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const element = event.target.closest(MESSAGE);
    if (!element || event.ctrlKey || event.metaKey || event.altKey) return;
    const { session, conversation, composer } = this.thread;
    const all = this.#all;
    const at = all.indexOf(element);
    const next = { ArrowUp: all[at - 1], ArrowDown: all[at + 1], Home: all[0], End: all.at(-1) }[event.key];
    const message = session.shown(element.dataset.id);
    const rights = rightsOn(message, session, conversation);
    if (next) this.#focus(next);
    else if (event.key === "ArrowDown" || event.key === "Escape") composer.focus();
    else if (event.target !== element) return;
    else if (["Enter", " ", "+"].includes(event.key)) this.#menu(element);
    else if (event.key === "r" && rights.reply) composer.reply(message);
    else if (event.key === "e" && rights.edit) composer.edit(message);
    else if (event.key === "Delete" && rights.recall) recall(session, message);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #menu(element) {
    this.thread.menu(element.dataset.id, element.querySelector(".bubble"));
  }

  /** Where nothing hovers, a tap on a message opens its menu. */
  #tap(event) {
    const element = event.target.closest(".bubble")?.closest(MESSAGE);
    if (!element || event.target.closest("a, button") || String(getSelection())) return;
    if (matchMedia("(hover: none)").matches) this.#menu(element);
  }

  #context(event) {
    const element = event.target.closest(".bubble")?.closest(MESSAGE);
    if (!element || event.target.closest("a") || String(getSelection())) return;
    event.preventDefault();
    this.#menu(element);
  }
}
