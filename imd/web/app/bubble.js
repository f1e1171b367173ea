// A message on the screen: its text, the message that it answers, reactions, and what has failed.
import { failureOf, mayRetry } from "../lib/changes.js";
import { h, icon } from "../lib/dom.js";
import { clockTime, fullTime, isVisitor, linked, tint } from "../lib/format.js";
import { withMentions } from "../lib/mentions.js";
import { language, t } from "../lib/text.js";
import { excerpt } from "./lines.js";
import { nameFor, namesFor, shownName } from "./names.js";
import { withPending } from "../lib/pending.js";

function stateOf(entry, peerRead) {
  if (entry.busy || !["accepted", "failed"].includes(entry.state)) return "sending";
  return entry.state === "accepted" && entry.id <= peerRead ? "read" : entry.state;
}

/** The item of a list: {key, look, make}. A new `look` means a new element. `thread`: {session, conversation, pending, peerRead, mayReact, menu, goTo}. */
export function messageItem(entry, { first, last, thread }) {
  const mine = entry.userId === thread.session.me;
  const state = mine ? stateOf(entry, thread.peerRead) : "";
  const original = entry.replyTo && !entry.recalled ? thread.session.quotes.get(entry.replyTo) : undefined;
  const quoted = original && withPending(original, thread.pending.get(original.id), thread.session.me);
  const { msg, edited, recalled, reactions, trouble, error } = entry;
  const quote = quoted && [quoted.recalled ? "" : quoted.msg.slice(0, 200), quoted.recalled];
  return {
    key: mine && entry.clientMsgId ? `mine ${entry.clientMsgId}` : entry.id,
    look: JSON.stringify([state, error?.code, first, last, msg, edited?.id, recalled, reactions, trouble?.clientMsgId, quoted === null, quote, thread.session.events, thread.mayReact]),
    make: () => new Bubble(entry, thread, { mine, state, quoted, first, last }).element,
  };
}

class Bubble {
  constructor(entry, thread, { mine, state, quoted, first, last }) {
    this.entry = entry;
    this.thread = thread;
    this.mine = mine;
    this.state = state;
    const { session } = thread;
    const mentioned = !mine && (entry.mentions ?? []).some((name) => name === session.me || name === "@all");
    const acts = session.events && entry.id !== undefined;
    const body = h(
      "div",
      { class: `bubble${entry.recalled ? " recalled" : ""}` },
      this.#sender(first),
      entry.replyTo && !entry.recalled && this.#quote(quoted),
      entry.recalled ? h("p", { class: "gone" }, t("message.recalled")) : this.#text(),
      this.#meta(),
      acts && !entry.recalled && this.#more(),
    );
    const classes = ["message", mine ? "mine" : "theirs", first && "first", last && "last", state === "read" ? "accepted read" : state, mentioned && "mentioned"];
    this.element = h(
      "li",
      { class: classes.filter(Boolean).join(" ") },
      body,
      entry.reactions?.length > 0 && !entry.recalled && this.#reactions(acts),
      state === "failed" && this.#failure(),
      entry.trouble && this.#trouble(entry.trouble),
    );
    if (acts) {
      this.element.tabIndex = -1;
      this.element.dataset.id = entry.id;
    }
  }

  #sender(first) {
    const { conversation } = this.thread;
    const { userId } = this.entry;
    const named = !this.mine && first && (conversation.isGroup || (conversation.isVisitors && !isVisitor(userId)));
    return named && h("span", { class: `sender tint-text-${tint(userId)}` }, shownName(userId));
  }

  #text() {
    const { msg, mentions = [] } = this.entry;
    const plain = mentions.length ? (text) => withMentions(text, mentions, this.thread.session.me) : undefined;
    return h("p", { class: "text", dir: "auto" }, linked(msg, plain));
  }

  #meta() {
    const { time, edited, recalled } = this.entry;
    const changed = edited && !recalled;
    return h(
      "span",
      { class: "meta" },
      changed && h("span", { class: "edited", title: t("message.edited.at", { time: fullTime(edited.time, language()) }) }, t("message.edited")),
      h("time", { datetime: new Date(time).toISOString(), title: fullTime(time, language()) }, clockTime(time, language())),
      this.mine && !(recalled && ["accepted", "read"].includes(this.state)) && stateIcon(this.state),
    );
  }

  #more() {
    const open = (event) => this.thread.menu(this.entry.id, event.currentTarget);
    return h(
      "button",
      { class: "more", type: "button", tabIndex: -1, title: t("message.actions"), "aria-label": t("message.actions"), "aria-haspopup": "dialog", "data-act": "more", onclick: open },
      icon("more"),
    );
  }

  #quote(quoted) {
    const { session } = this.thread;
    if (!quoted) return h("span", { class: "quote missing" }, t(quoted === null ? "reply.loading" : "reply.missing"));
    const name = nameFor(quoted.userId, session.me);
    const text = excerpt(quoted, session.me);
    return h(
      "button",
      {
        class: "quote",
        type: "button",
        tabIndex: -1,
        "data-act": "quote",
        onclick: () => this.thread.goTo(quoted.id),
      },
      h("span", { class: "hidden-text" }, t("reply.goto")),
      h("span", { class: `quote-name tint-text-${tint(quoted.userId)}` }, name),
      h("span", { class: `quote-text${quoted.recalled ? " gone" : ""}` }, text),
    );
  }

  #reactions(acts) {
    const { session } = this.thread;
    return h(
      "div",
      { class: "reactions", role: "group", "aria-label": t("react.who") },
      this.entry.reactions.map(({ reaction, count, users }) => {
        const on = users.includes(session.me);
        const names = namesFor(users.map((name) => nameFor(name, session.me)), count);
        return h(
          "button",
          {
            class: "reaction",
            type: "button",
            tabIndex: -1,
            disabled: !acts || !this.thread.mayReact,
            title: names,
            "aria-pressed": String(on),
            "aria-label": t("react.chip", { reaction, n: count, names }),
            "data-act": `react ${reaction}`,
            onclick: () => session.client.react(this.entry.id, reaction, !on),
          },
          h("span", { class: "emoji" }, reaction),
          h("span", {}, count > 999 ? "999+" : String(count)),
        );
      }),
    );
  }

  #failure() {
    return failure(this.thread.session.client, this.entry, t("failed.delete"));
  }

  #trouble(entry) {
    return failure(this.thread.session.client, entry, t("trouble.discard"), mayRetry(entry));
  }
}

function failure(client, entry, discard, again = true) {
  const { clientMsgId, kind, msg } = entry;
  return h(
    "div",
    { class: "failure" },
    h("span", {}, failureOf(entry, t)),
    kind === "edit" && h("q", { class: "unsaved", dir: "auto" }, msg),
    again && h("button", { type: "button", class: "button-link", onclick: () => client.retry(clientMsgId) }, t("failed.retry")),
    h("button", { type: "button", class: "button-link", onclick: () => client.cancel(clientMsgId) }, discard),
  );
}

function stateIcon(state) {
  const mark = icon({ sending: "clock", accepted: "check", read: "checks", failed: "failed" }[state]);
  return h("span", { class: "state", role: "img", "aria-label": t(`state.${state}`), title: t(`state.${state}`) }, mark);
}
