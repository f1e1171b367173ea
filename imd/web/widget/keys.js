// Going through the messages of the visitor's chat by keyboard.

const MESSAGE = "li[data-act]";

export class Keys {
  constructor(chat) {
    this.chat = chat;
    this.list = chat.list;
    this.list.addEventListener("keydown", (event) => this.#key(event));
  }

  get #all() {
    return [...this.list.querySelectorAll(MESSAGE)];
  }

  /** False if there is no message. */
  focusLast() {
    const last = this.#all.at(-1);
    return last !== undefined && this.focus(last.dataset.act);
  }

  /** False if the message is not there. */
  focus(id) {
    const element = this.#all.find(({ dataset }) => dataset.act === id);
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: "nearest" });
    return element !== undefined;
  }

  #key(event) {
    const element = event.target.closest(MESSAGE);
    if (!element || event.ctrlKey || event.metaKey || event.altKey) return;
    const { chat } = this;
    const all = this.#all;
    const at = all.indexOf(element);
    const next = { ArrowUp: all[at - 1], ArrowDown: all[at + 1], Home: all[0], End: all.at(-1) }[event.key];
    const more = element.querySelector(".more"); // not there where nothing may be done
    if (next) this.focus(next.dataset.act);
    else if (event.key === "ArrowDown") chat.input.focus();
    else if (event.target !== element || !more) return;
    else if (event.key === "Enter" || event.key === " ") more.click();
    else if (event.key === "r") chat.reply(chat.view.get(element.dataset.act));
    else return;
    event.preventDefault();
  }
}
