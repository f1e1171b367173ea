// The conversations of one user: messages in order, each once; unread counts; drafts. No network, no elements.
import { kept } from "../lib/dom.js";
import { isVisitor } from "../lib/format.js";

const KEPT_MESSAGES = 200;
const KEPT_CHARS = 300_000;
const MOST_IN_MEMORY = 1000; // messages of a conversation that is not open
const SAVE_MS = 500;

/** The other users of a conversation. A visitor has a single conversation, whichever agent answers. */
export function othersIn(message, me) {
  const all = message.to !== undefined ? [message.userId, message.to] : [message.userId, ...(message.group ?? [])];
  const visitor = all.find(isVisitor);
  if (visitor !== undefined && visitor !== me) return [visitor];
  return [...new Set(all)].filter((name) => name !== me).sort();
}

export const keyOf = (others) => JSON.stringify(others);

class Conversation {
  messages = [];
  complete = false; // the oldest message is here
  asked = false; // its newest page has been read

  constructor(others) {
    this.others = others;
    this.key = keyOf(others);
    this.isVisitors = others.length === 1 && isVisitor(others[0]);
    this.isGroup = others.length > 1;
  }

  get last() {
    return this.messages.at(-1);
  }

  /** Insert a message in its place; false if it is there already. */
  insert(message) {
    const { messages } = this;
    let place = messages.length;
    while (place > 0 && messages[place - 1].id > message.id) place--;
    if (messages[place - 1]?.id === message.id) return false;
    messages.splice(place, 0, message);
    return true;
  }
}

/** Fires `change`. `prefix` begins its keys in the storage. */
export class Store extends EventTarget {
  conversations = new Map();
  open = null; // the key of the conversation on the screen
  #marks; // key → {read, unread}: ids of the newest read message and of the first unread one
  #drafts;
  #saving = null;
  #forgotten = false;

  constructor(prefix, me) {
    super();
    this.prefix = prefix;
    this.me = me;
    this.#marks = kept.get(`${prefix}.marks`, {});
    this.#drafts = kept.get(`${prefix}.drafts`, {});
    for (const message of kept.get(`${prefix}.recent`, [])) this.#insert(message);
    this.onStorage = (event) => this.#changedElsewhere(event);
    window.addEventListener("storage", this.onStorage);
  }

  close() {
    window.removeEventListener("storage", this.onStorage);
    if (this.#saving !== null) this.#save();
  }

  /** Remove the conversations from this browser's storage. */
  forget() {
    window.removeEventListener("storage", this.onStorage);
    clearTimeout(this.#saving);
    this.#forgotten = true;
    for (const name of ["recent", "marks", "drafts"]) kept.set(`${this.prefix}.${name}`, null);
  }

  conversation(others) {
    const key = keyOf(others);
    if (!this.conversations.has(key)) this.conversations.set(key, new Conversation(others));
    return this.conversations.get(key);
  }

  /** Add messages in any order. `arrived`: they are new, not history. Returns the ones that were not there. */
  add(messages, arrived = false) {
    const added = messages.filter((message) => this.#insert(message) !== null);
    if (arrived) this.#note(messages.filter((message) => message.userId !== this.me));
    if (added.length || arrived) this.#changed();
    return added;
  }

  #insert(message) {
    const conversation = this.conversation(othersIn(message, this.me));
    if (!conversation.insert(message)) return null;
    if (conversation.messages.length > MOST_IN_MEMORY && conversation.key !== this.open) {
      conversation.messages.splice(0, MOST_IN_MEMORY / 2);
      conversation.complete = false;
    }
    return conversation;
  }

  /** Drop messages up to an id: between them and the later ones some may be missing. */
  dropUpTo(id) {
    for (const conversation of this.conversations.values()) {
      conversation.messages = conversation.messages.filter((message) => message.id > id);
      conversation.complete = conversation.asked = false;
    }
  }

  has(message) {
    return this.conversations.get(keyOf(othersIn(message, this.me)))?.messages.some((one) => one.id === message.id) ?? false;
  }

  // ---- unread

  firstUnread(key) {
    return this.#marks[key]?.unread;
  }

  unread(conversation) {
    const from = this.firstUnread(conversation.key);
    if (from === undefined) return 0;
    return conversation.messages.filter((message) => message.id >= from && message.userId !== this.me).length || 1;
  }

  get totalUnread() {
    let total = 0;
    for (const key of Object.keys(this.#marks)) total += this.unread(this.conversations.get(key) ?? { key, messages: [] });
    return total;
  }

  /** Mark all messages of a conversation as read. */
  markRead(conversation) {
    const { key, last } = conversation;
    const mark = this.#marks[key];
    if (last === undefined || (mark?.unread === undefined && (mark?.read ?? "") >= last.id)) return;
    this.#mark((marks) => (marks[key] = { read: last.id }));
    if (mark?.unread !== undefined) this.#changed();
  }

  #note(news) {
    if (!news.length) return;
    this.#mark((marks) => {
      for (const message of news) {
        const key = keyOf(othersIn(message, this.me));
        const { read = "", unread } = marks[key] ?? {};
        // Another tab, or this one before a reload, may have marked it as read.
        if (message.id <= read || (unread !== undefined && unread <= message.id)) continue;
        marks[key] = { read, unread: message.id };
      }
    });
  }

  /** Change the marks as other tabs have left them. */
  #mark(change) {
    this.#marks = kept.get(`${this.prefix}.marks`, this.#marks);
    change(this.#marks);
    if (!this.#forgotten) kept.set(`${this.prefix}.marks`, this.#marks);
  }

  // ---- drafts

  draft(key) {
    return this.#drafts[key] ?? "";
  }

  setDraft(key, text) {
    if (text) this.#drafts[key] = text;
    else delete this.#drafts[key];
    kept.set(`${this.prefix}.drafts`, this.#drafts);
  }

  // ---- the storage

  #changedElsewhere(event) {
    if (event.key === `${this.prefix}.marks`) this.#marks = kept.get(event.key, {});
    else if (event.key === `${this.prefix}.drafts`) this.#drafts = kept.get(event.key, {});
    else return;
    this.dispatchEvent(new Event("change"));
  }

  #changed() {
    this.#saving ??= setTimeout(() => this.#save(), SAVE_MS);
    this.dispatchEvent(new Event("change"));
  }

  /** Store the newest messages of all conversations, to be shown before the node answers. */
  #save() {
    clearTimeout(this.#saving);
    this.#saving = null;
    if (this.#forgotten) return;
    const all = [...this.conversations.values()].flatMap(({ messages }) => messages.slice(-KEPT_MESSAGES));
    all.sort((a, b) => (a.id < b.id ? 1 : -1));
    const newest = [];
    let chars = 0;
    for (const message of all.slice(0, KEPT_MESSAGES)) {
      chars += message.msg.length;
      if (chars > KEPT_CHARS) break;
      newest.push(message);
    }
    kept.set(`${this.prefix}.recent`, newest.reverse());
  }
}
