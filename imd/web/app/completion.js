// Completing a name while @ is typed: a list of members above the field.
import { h } from "../lib/dom.js";
import { initial, tint } from "../lib/format.js";
import { t } from "../lib/text.js";
import { shownName } from "./names.js";

const MOST = 6;
/** An @ behind a break, and what was typed since. */
const TYPED = /(?:^|[^\p{L}\p{N}_.])@([^\s@]{0,128})$/u;

export class Completion {
  /** `names` returns a promise of the names to choose from, `@all` among them; `announce` tells a screen reader. */
  constructor(input, names, announce) {
    this.input = input;
    this.names = names;
    this.announce = announce;
    this.found = [];
    this.at = 0;
    this.element = h("ul", { class: "completion", role: "listbox", id: "completion", "aria-label": t("mention.list"), hidden: true });
    input.setAttribute("aria-autocomplete", "list");
    input.addEventListener("blur", () => this.close());
  }

  get isOpen() {
    return !this.element.hidden;
  }

  /** The text or the cursor has changed. */
  async update() {
    const { input } = this;
    const before = input.value.slice(0, input.selectionStart);
    const typed = input.selectionStart === input.selectionEnd ? TYPED.exec(before)?.[1] : undefined;
    if (typed === undefined) return this.close();
    const names = await this.names().catch(() => []);
    if (before !== input.value.slice(0, input.selectionStart)) return; // a later call knows better
    const wanted = typed.toLocaleLowerCase();
    const word = (name) => (name === "@all" ? "all" : name).toLocaleLowerCase();
    const fits = names.filter((name) => word(name).startsWith(wanted));
    this.found = [...fits, ...names.filter((name) => !fits.includes(name) && word(name).includes(wanted))].slice(0, MOST);
    this.from = before.length - typed.length - 1;
    if (!this.found.length) return this.close();
    if (!this.isOpen) this.announce(t("mention.found", { n: this.found.length }));
    this.at = 0;
    this.#draw();
  }

  close() {
    this.element.hidden = true;
    this.input.removeAttribute("aria-activedescendant");
    this.input.removeAttribute("aria-controls");
  }

  #draw() {
    this.element.replaceChildren(
      ...this.found.map((name, i) => {
        const all = name === "@all";
        const face = h("span", { class: `avatar small tint-${tint(name)}`, "aria-hidden": "true" }, all ? "@" : initial(name));
        // A press must not take the focus from the field.
        const press = { onpointerdown: (event) => event.preventDefault(), onclick: () => this.#take(i) };
        return h(
          "li",
          { role: "option", id: `completion-${i}`, "aria-selected": String(i === this.at), ...press },
          face,
          h("span", { class: "completion-name" }, all ? "all" : shownName(name)),
          all && h("span", { class: "hint" }, t("mention.all")),
        );
      }),
    );
    this.element.hidden = false;
    this.input.setAttribute("aria-controls", "completion");
    this.input.setAttribute("aria-activedescendant", `completion-${this.at}`);
  }

  /** True if the key was for the list. */
  key(event) {
    if (!this.isOpen) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.at = (this.at + step + this.found.length) % this.found.length;
      this.#draw();
    } else if (event.key === "Enter" || event.key === "Tab") this.#take(this.at);
    else if (event.key === "Escape") this.close();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  #take(i) {
    const name = this.found[i];
    const { input } = this;
    input.setRangeText(`${name === "@all" ? name : `@${name}`} `, this.from, input.selectionStart, "end");
    this.close();
    input.dispatchEvent(new Event("input"));
  }
}
