// The conversations of one user: messages in order, each once, as they are now; unread counts; drafts. No network, no elements.
import { View } from "../client/imd.js";
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

/** Where a message belongs: {room}, or {others}. */
export const placeOf = (message, me) => (message.room ? { room: message.room } : { others: othersIn(message, me) });

/** Keys of rooms and of users cannot be equal: a list begins with a bracket. */
export const keyOf = ({ room, others }) => (room ? `room:${room}` : JSON.stringify(others));

/** A conversation as the client's calls name it. */
export const selectorOf = ({ room, others }, me) => (room ? { room } : others.length > 1 ? { group: others } : { with: others[0] ?? me });

/** Messages in the order of their ids, with the room's events among them. */
export class Run {
  messages = [];

  get last() {
    return this.messages.at(-1);
  }

  /** Put a message in its place, or in place of what it was. True if it was not there. */
  put(message) {
    const { messages } = this;
    let place = messages.length;
    while (place > 0 && messages[place - 1].id > message.id) place--;
    if (messages[place - 1]?.id === message.id) {
      messages[place - 1] = message;
      return false;
    }
    messages.splice(place, 0, message);
    return true;
  }

  has(id) {
    return this.messages.some((message) => message.id === id);
  }
}

class Conversation extends Run {
  complete = false; // the oldest message is here
  asked = false; // its newest page has been read
  edge = null; // the newest message before the last connection: later ones may be missing until the newest page is read
  past = null; // a run of older messages that does not reach the newest ones, with `complete`: shown instead
  about = null; // of a room: as the list of rooms has it
  gone = false; // of a room: this user is no member any more

  constructor({ room, others = [] }) {
    super();
    this.room = room ?? null;
    this.others = others;
    this.key = keyOf({ room, others });
    this.isVisitors = others.length === 1 && isVisitor(others[0]);
    this.isGroup = others.length > 1 || this.room !== null;
  }

  /** Of these messages one part is on the screen. */
  get onScreen() {
    return this.past ?? this;
  }
}

/** Fires `change`. `prefix` begins its keys in the storage. */
export class Store extends EventTarget {
  conversations = new Map();
  view;
  open = null; // the key of the conversation on the screen
  #marks; // key → {read, unread}: ids of the newest read message and of the first unread one
  #drafts;
  #saving = null;
  #forgotten = false;

  constructor(prefix, me) {
    super();
    this.prefix = prefix;
    this.me = me;
    this.view = new View(me);
    this.#marks = kept.get(`${prefix}.marks`, {});
    this.#drafts = kept.get(`${prefix}.drafts`, {});
    for (const message of kept.get(`${prefix}.recent`, [])) this.#insert(message);
    this.onStorage = (event) => this.#changedElsewhere(event);
    window.addEventListener("storage", this.onStorage);
    this.onHide = () => this.#saving !== null && this.#save();
    window.addEventListener("pagehide", this.onHide);
  }

  close() {
    window.removeEventListener("storage", this.onStorage);
    window.removeEventListener("pagehide", this.onHide);
    if (this.#saving !== null) this.#save();
  }

  /** Remove the conversations from this browser's storage. */
  forget() {
    window.removeEventListener("storage", this.onStorage);
    window.removeEventListener("pagehide", this.onHide);
    clearTimeout(this.#saving);
    this.#forgotten = true;
    for (const name of ["recent", "marks", "drafts", "rooms"]) kept.set(`${this.prefix}.${name}`, null);
  }

  /** `place`: {room}, or {others}. */
  conversation(place) {
    const key = keyOf(place);
    if (!this.conversations.has(key)) this.conversations.set(key, new Conversation(place));
    return this.conversations.get(key);
  }

  of(message) {
    return this.conversation(placeOf(message, this.me));
  }

  /** Add messages and a room's events, in any order. `arrived`: they are new, not history. Returns the ones that were not there. */
  add(messages, arrived = false) {
    const added = messages.filter((message) => this.#insert(message));
    if (arrived) this.#note(messages.filter((message) => message.userId !== this.me && message.kind !== "room"));
    this.changed();
    return added;
  }

  #insert(message) {
    const conversation = this.of(message);
    const fresh = conversation.put(this.seen(message));
    if (conversation.past?.has(message.id)) conversation.past.put(this.seen(message));
    if (fresh && conversation.messages.length > MOST_IN_MEMORY && conversation.key !== this.open) {
      this.#drop(conversation.messages.splice(0, MOST_IN_MEMORY / 2));
      conversation.complete = false;
    }
    return fresh;
  }

  /** A message as it is now, after what is known of it. */
  seen(message) {
    if (message.kind === "room") return message;
    this.view.add(message);
    return this.view.get(message.id);
  }

  /** Apply an edit, a recall or a reaction. */
  apply(event) {
    this.show(this.view.apply(event));
  }

  /** A message looks different: put it in its places as it is now. */
  show(id) {
    const message = id && this.view.get(id);
    if (!message) return;
    const conversation = this.of(message);
    for (const run of [conversation, conversation.past]) if (run?.has(id)) run.put(message);
    this.changed();
  }

  #drop(messages) {
    for (const { id } of messages) this.view.remove(id);
  }

  /** Drop messages of pairs and groups up to an id: between them and the later ones some may be missing. */
  dropUpTo(id) {
    for (const conversation of this.conversations.values()) if (!conversation.room) this.dropOf(conversation, id);
  }

  /** Drop a conversation's messages up to an id; all without one. */
  dropOf(conversation, id = "~") {
    this.#drop(conversation.messages.filter((message) => message.id <= id));
    conversation.messages = conversation.messages.filter((message) => message.id > id);
    conversation.complete = conversation.asked = false;
  }

  /** Add a conversation's newest page. Earlier messages stay if the page overlaps them: then nothing is missing in between. */
  takeNewest(conversation, { messages, more }, gap = false) {
    const { edge } = conversation;
    conversation.edge = null;
    const isTorn = gap || (edge !== null && messages[0]?.id > edge);
    const overlaps = !isTorn && messages.some(({ id }) => conversation.has(id));
    if (more && !overlaps) this.dropOf(conversation, messages.at(-1).id);
    if (!more || !overlaps) conversation.complete = !more;
    this.add(messages);
  }

  /** The user has cleared a conversation away, up to an id. */
  clear(conversation, id) {
    const isGone = (message) => message.id <= id;
    for (const run of [conversation, conversation.past]) {
      if (!run?.messages.some(isGone)) continue;
      this.#drop(run.messages.filter(isGone));
      run.messages = run.messages.filter((message) => !isGone(message));
      run.complete = true;
    }
  }

  has(message) {
    return this.conversations.get(keyOf(placeOf(message, this.me)))?.has(message.id) ?? false;
  }

  // ---- unread

  firstUnread(key) {
    return this.#marks[key]?.unread;
  }

  #unreadOf(conversation) {
    const from = this.firstUnread(conversation.key);
    const isNew = (message) => message.id >= from && message.userId !== this.me && message.kind !== "room";
    return from === undefined ? [] : conversation.messages.filter(isNew);
  }

  unread(conversation) {
    if (this.firstUnread(conversation.key) === undefined) return 0;
    return this.#unreadOf(conversation).length || 1;
  }

  /** An unread message names this user. */
  mentions(conversation) {
    return this.#unreadOf(conversation).some(({ mentions = [] }) => mentions.includes(this.me) || mentions.includes("@all"));
  }

  get totalUnread() {
    let total = 0;
    for (const key of Object.keys(this.#marks)) {
      const conversation = this.conversations.get(key);
      if (!conversation?.gone) total += this.unread(conversation ?? { key, messages: [] });
    }
    return total;
  }

  /** Mark all messages of a conversation as read. */
  markRead(conversation) {
    const { key, last } = conversation;
    const mark = this.#marks[key];
    if (last === undefined || (mark?.unread === undefined && (mark?.read ?? "") >= last.id)) return;
    this.#mark((marks) => (marks[key] = { read: last.id }));
    if (mark?.unread !== undefined) this.changed();
  }

  /** Another device has read up to a message. */
  readUpTo(key, id) {
    const { unread } = this.#marks[key] ?? {};
    if (unread === undefined || !id || unread > id) return;
    const { messages = [] } = this.conversations.get(key) ?? {};
    const next = messages.find((message) => message.id > id && message.userId !== this.me && message.kind !== "room");
    this.#mark((marks) => (marks[key] = { read: id, ...(next ? { unread: next.id } : {}) }));
  }

  #note(news) {
    if (!news.length) return;
    this.#mark((marks) => {
      for (const message of news) {
        const { key } = this.of(message);
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

  changed() {
    this.#saving ??= setTimeout(() => this.#save(), SAVE_MS);
    this.dispatchEvent(new Event("change"));
  }

  /** Store the newest messages of all conversations, to be shown before the node answers. */
  #save() {
    clearTimeout(this.#saving);
    this.#saving = null;
    if (this.#forgotten) return;
    const there = [...this.conversations.values()].filter(({ gone }) => !gone);
    const all = there.flatMap(({ messages }) => messages.slice(-KEPT_MESSAGES));
    all.sort((a, b) => (a.id < b.id ? 1 : -1));
    const newest = [];
    let chars = 0;
    for (const message of all.slice(0, KEPT_MESSAGES)) {
      chars += message.msg?.length ?? 0;
      if (chars > KEPT_CHARS) break;
      newest.push(message);
    }
    kept.set(`${this.prefix}.recent`, newest.reverse());
    kept.set(`${this.prefix}.rooms`, there.map(({ about }) => about).filter(Boolean));
  }
}
