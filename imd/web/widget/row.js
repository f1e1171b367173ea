// A message in the visitor's chat, and what may be done with it.
import { failureOf, inTime, mayRetry } from "../lib/changes.js";
import { h, icon } from "../lib/dom.js";
import { clockTime, fullTime, linked } from "../lib/format.js";
import { withPending } from "../lib/pending.js";
import { quoteOf } from "../lib/quotes.js";

const STATES = { sending: "clock", accepted: "check", read: "checks", failed: "failed" };

/** `chat`: {client, state, quotes, pending, language, t, asked, found, events, now, nameOf, reply, edit, actOn, goTo}. `asked`: {id, recall} of the message
 *  whose actions are shown; `found`: id of the one that was looked for. */
export class Row {
  constructor(entry, chat) {
    this.entry = entry;
    this.chat = chat;
    this.mine = entry.id === undefined || entry.userId === chat.client.userId;
    const busy = entry.id === undefined || entry.busy;
    this.state = entry.state === "failed" ? "failed" : busy ? "sending" : this.mine && chat.state.isRead(entry.id) ? "read" : "accepted";
  }

  get element() {
    const { entry, mine, state, chat } = this;
    const acts = chat.events && entry.id !== undefined && !entry.recalled && !entry.busy;
    const shown = acts && chat.asked?.id === entry.id;
    const look = state === "read" ? "accepted read" : state;
    const bubble = h(
      "div",
      { class: `message ${mine ? "mine" : "theirs"} ${look}${entry.recalled ? " recalled" : ""}` },
      !mine && h("span", { class: "sender" }, entry.userId),
      entry.replyTo && !entry.recalled && this.#quote(),
      entry.recalled ? h("p", { class: "gone" }, chat.t("message.recalled")) : h("p", { class: "text", dir: "auto" }, linked(entry.msg)),
      this.#meta(),
      acts && this.#more(shown),
    );
    const found = entry.id !== undefined && chat.found === entry.id;
    return h(
      "li",
      { class: `${mine ? "of-mine" : "of-theirs"}${found ? " found" : ""}`, "data-act": entry.id, tabIndex: entry.id === undefined ? undefined : -1 },
      bubble,
      entry.reactions?.length > 0 && !entry.recalled && this.#reactions(),
      shown && this.#acts(),
      entry.trouble && this.#trouble(),
    );
  }

  #meta() {
    const { entry, mine, state, chat } = this;
    const { t, language, client } = chat;
    const time = entry.sendTime ?? entry.queuedAt;
    return h(
      "span",
      { class: "meta" },
      entry.edited && !entry.recalled && h("span", {}, `${t("message.edited")} ·`),
      h("time", { datetime: new Date(time).toISOString(), title: fullTime(time, language) }, clockTime(time, language)),
      mine && h("span", { class: "state", role: "img", "aria-label": t(`state.${state}`) }, icon(STATES[state])),
      state === "failed" && h("button", { type: "button", onclick: () => client.retry(entry.clientMsgId) }, t("failed.retry")),
      state === "failed" && h("button", { type: "button", onclick: () => client.cancel(entry.clientMsgId) }, t("failed.delete")),
    );
  }

  #quote() {
    const { chat } = this;
    const original = chat.events ? chat.quotes.get(this.entry.replyTo) : undefined;
    if (!original) return h("span", { class: "quote gone" }, chat.t(original === null ? "reply.loading" : "reply.missing"));
    const quoted = withPending(original, chat.pending.get(original.id), chat.client.userId);
    return h(
      "button",
      { class: "quote", type: "button", "data-act": `${this.entry.id ?? this.entry.clientMsgId} quote`, onclick: () => chat.goTo(quoted.id) },
      h("span", { class: "hidden-text" }, chat.t("reply.goto")),
      h("span", { class: "quote-name" }, chat.nameOf(quoted.userId)),
      h("span", { class: `quote-text${quoted.recalled ? " gone" : ""}` }, quoteOf(quoted, chat.t)),
    );
  }

  #reactions() {
    const { entry, chat } = this;
    const me = chat.client.userId;
    return h(
      "div",
      { class: "reactions" },
      entry.reactions.map(({ reaction, count, users }) => {
        const on = users.includes(me);
        const names = users.map((name) => (name === me ? chat.t("name.you") : name)).join(", ");
        const label = chat.t("react.chip", { reaction, n: count, names });
        const toggle = () => chat.client.react(entry.id, reaction, !on);
        const what = { type: "button", "aria-pressed": String(on), "aria-label": label, title: names, "data-act": `${entry.id} ${reaction}` };
        return h("button", { ...what, disabled: !chat.events, onclick: toggle }, `${reaction} ${count}`);
      }),
    );
  }

  #more(shown) {
    const { entry, chat } = this;
    const label = chat.t("message.actions");
    return h(
      "button",
      { class: "more", type: "button", title: label, "aria-label": label, "aria-expanded": String(shown), "data-act": `${entry.id} more`, onclick: () => chat.actOn(shown ? null : { id: entry.id }) },
      icon("more"),
    );
  }

  /** Answer; change one's own, or remove it after a question. */
  #acts() {
    const { entry, mine, chat } = this;
    const { t } = chat;
    const act = (name, words, run) => h("button", { class: name, type: "button", "data-act": `${entry.id} ${name}`, onclick: run }, words);
    if (chat.asked.recall) {
      const yes = () => {
        chat.client.recall(entry.id);
        chat.actOn(null);
      };
      return h("div", { class: "acts" }, h("span", {}, t("message.recall.ask")), act("yes", t("message.recall.yes"), yes), act("no", t("cancel"), () => chat.actOn(null)));
    }
    const { editSeconds, recallSeconds } = chat.client.limits ?? {};
    const age = chat.now() - entry.sendTime;
    return h(
      "div",
      { class: "acts" },
      act("reply", t("message.reply"), () => chat.reply(entry)),
      mine && inTime(editSeconds, age) && act("edit", t("message.edit"), () => chat.edit(entry)),
      mine && inTime(recallSeconds, age) && act("recall", t("message.recall"), () => chat.actOn({ id: entry.id, recall: true })),
    );
  }

  #trouble() {
    const { entry, chat } = this;
    const { clientMsgId, kind, msg } = entry.trouble;
    const act = (name, words, run) => h("button", { type: "button", "data-act": `${entry.id} ${name}`, onclick: run }, words);
    return h(
      "div",
      { class: "acts trouble" },
      h("span", {}, failureOf(entry.trouble, chat.t)),
      kind === "edit" && h("q", { class: "unsaved", dir: "auto" }, msg),
      mayRetry(entry.trouble) && act("retry", chat.t("failed.retry"), () => chat.client.retry(clientMsgId)),
      act("discard", chat.t("trouble.discard"), () => chat.client.cancel(clientMsgId)),
    );
  }
}
