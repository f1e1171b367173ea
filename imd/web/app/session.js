// One signed-in user: joins the client and the store of conversations.
import { Blocks } from "./blocks.js";
import { channelOf } from "../lib/dom.js";
import { Client } from "../client/imd.js";
import { Counts } from "./counts.js";
import { Live } from "./live.js";
import { websocketUrl } from "../lib/node.js";
import { pendingIn, withPending } from "../lib/pending.js";
import { Quotes } from "../lib/quotes.js";
import { Rooms } from "./rooms.js";
import { Sending } from "./sending.js";
import { keyOf, placeOf, Run, selectorOf, Store } from "./store.js";

const PAGE = 50;
const RECENT = 200;

/** Fires `change` (conversations or outbox), `state`, `arrived` (detail: the message), `altered` (detail: the edit, recall or
 *  reaction), `refused` (detail: a room's action that failed), `failed` (detail: another entry of the outbox). */
export class Session extends EventTarget {
  client;
  store;
  state = { state: "idle" };
  paused = false;
  kind = null; // the user's type, as the node gives it
  #older = false; // the history has messages older than those that were read
  #ahead = null; // the node's time minus performance.now(), in ms
  #channel;
  #reading = false;
  #again = false; // read once more when the present reading ends
  #gap = false; // messages may be missing
  #gapInRooms = false;
  #pages = new Map(); // key → promise of the page that is being read
  #prefix;

  /** `who`: {mode: "chat" or "desk", userId, token}. `userId` only counts without a token. */
  constructor(settings, who) {
    super();
    this.who = who;
    this.me = who.userId;
    this.#prefix = `imd.${who.mode}.${this.me}`;
    this.store = new Store(this.#prefix, this.me);
    this.rooms = new Rooms(this);
    this.client = new Client({
      url: websocketUrl(settings),
      userId: this.me,
      loginType: "USER_TYPE",
      isCustomerService: who.mode === "desk",
      token: who.token ? () => who.token : undefined,
      storageKey: `${this.#prefix}.client`,
    });
    this.counts = new Counts(this);
    this.live = new Live(this);
    this.blocks = new Blocks(this);
    this.met = new Promise((done) => this.client.on("connected", done)); // the features are known
    this.sending = new Sending(this);
    const { store } = this;
    this.quotes = new Quotes(this.client, store.view, { seen: (message) => store.seen(message), changed: () => store.changed() });
    this.#channel = channelOf(this.#prefix);
    this.#channel.onmessage = ({ data }) => this.#fromAnotherTab(data);
    this.store.addEventListener("change", () => this.#fire("change"));
    this.client.on("state", (state) => {
      this.state = state;
      if (state.state !== "open") this.#fire("state", state); // `open` waits for the user's type
    });
    this.client.on("connected", (connected) => {
      this.kind = connected.fromUserType;
      this.#ahead = connected.serverTime - performance.now();
      this.#fire("state", this.state);
      this.#readRecent();
    });
    this.client.on("gap", () => this.#readRecent(true));
    this.client.on("outbox", () => this.#fire("change"));
    this.client.on("accepted", (detail) => this.#accepted(detail));
    this.client.on("failed", ({ message }) => this.#failed(message));
    this.client.on("message", (message) => {
      if (this.store.add([message], true).length) this.#fire("arrived", message);
      if (message.room) this.rooms.placed(message);
    });
    this.client.on("sent", (message) => this.store.add([message]));
    for (const kind of ["edit", "recall", "react"]) this.client.on(kind, (event) => this.#altered(event));
    this.client.on("room", (event) => this.rooms.heard(event));
  }

  #altered(event) {
    this.store.apply(event);
    // Also of a message that only the list has.
    if (event.kind !== "react") this.#fire("change");
    this.#fire("altered", event);
  }

  start() {
    this.client.start();
  }

  /** The cluster has rooms, edits, recalls, reactions and replies. */
  get events() {
    return this.client.features.includes("events");
  }

  /** The cluster keeps the list of conversations, marks and settings. */
  get hasState() {
    return this.client.features.includes("state");
  }

  /** The list comes from the history: visitors' conversations are in no other. */
  get #listsHistory() {
    return !this.hasState || this.who.mode === "desk";
  }

  /** There are conversations older than those in the list. */
  get older() {
    return (this.#listsHistory && this.#older) || this.counts.older;
  }

  /** The time by the node's clock, as messages carry it. This browser's may be wrong. */
  now() {
    return this.#ahead === null ? Date.now() : performance.now() + this.#ahead;
  }

  /** Disconnect for a while, or come back. */
  pause(paused) {
    this.paused = paused;
    if (paused) this.client.stop();
    else this.client.start();
  }

  async stop() {
    this.sending.close();
    this.#channel.close();
    this.counts.close();
    this.store.close();
    await this.client.stop();
  }

  /** Sign out: of this user, only unsent messages stay in the browser. With a token, all tabs sign out. */
  async leave() {
    if (this.who.token) this.#channel.postMessage({ left: true });
    await this.#forget();
  }

  async #forget() {
    this.sending.close();
    this.#channel.close();
    this.counts.close();
    this.store.forget();
    await this.client.stop();
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ---- sending

  /** Everything that is not accepted yet, oldest first: the client's outbox, and texts that wait to get there. */
  get outbox() {
    return [...this.client.outbox, ...this.sending.waiting];
  }

  /** The entries of the outbox for a conversation that are not among its messages. */
  outgoing(conversation) {
    return this.outbox.filter((entry) => this.keyOfOutgoing(entry) === conversation.key);
  }

  keyOf(message) {
    return keyOf(placeOf(message, this.me));
  }

  /** Null for an entry that is no message. */
  keyOfOutgoing(entry) {
    return entry.kind ? null : this.keyOf({ ...entry, userId: this.me });
  }

  /** Changes that wait for an answer, by the id of their message. */
  get pending() {
    return pendingIn(this.outbox);
  }

  /** A message as it is shown: with what waits for it. Undefined if it is not there. */
  shown(id) {
    const message = this.store.view.get(id);
    return message && withPending(message, this.pending.get(id), this.me);
  }

  #accepted(detail) {
    const { id, sendTime, changed, message } = detail;
    const { kind, state, error, queuedAt, ...said } = message;
    if (kind === "room") {
      if (changed) this.rooms.accepted(detail);
    } else if (kind) {
      this.store.show(this.store.view.accepted(detail, this.me));
    } else {
      const accepted = { ...said, id, userId: this.me, sendTime };
      this.store.add([accepted]);
      // A node of a cluster without events sends no copy to the sender's other devices, nor does any to a page of 0.1.0: the other
      // tabs get one from here. There are rooms only where nodes do it, and such a page would take theirs for notes to oneself.
      if (!accepted.room) this.#channel.postMessage({ accepted });
    }
    this.#fire("change");
  }

  /** A room's action has no place on the screen where it could stay as failed. */
  #failed(entry) {
    if (entry.kind === "room") {
      this.client.cancel(entry.clientMsgId);
      this.#fire("refused", entry);
    } else this.#fire("failed", entry);
    // Another device may have blocked the other.
    if (entry.error?.code === "forbidden") this.blocks.look(this.store.conversations.get(this.store.open));
    this.#fire("change");
  }

  #fromAnotherTab({ accepted, left }) {
    if (accepted) this.store.add([accepted]);
    if (left) {
      this.#fire("left");
      this.#forget();
    }
  }

  // ---- reading

  /** The user sees the end of a conversation. */
  seen(conversation) {
    this.store.markRead(conversation);
    this.counts.seen(conversation);
  }

  /** Read the list of conversations, or the newest messages of all, after each connect: other devices may have sent some. */
  async #readRecent(gap = false) {
    this.#gap ||= gap;
    this.#gapInRooms ||= gap;
    this.#again = true;
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.#again) {
        this.#again = false;
        if (this.hasState) await this.#readList();
        if (this.#listsHistory) this.#take(await this.client.history({ all: true, limit: RECENT }));
      }
    } catch {
      // No connection. The next one reads again.
    } finally {
      this.#reading = false;
    }
    const open = this.store.conversations.get(this.store.open);
    if (open && !open.asked) this.readNewest(open).catch(() => {});
    this.blocks.look(open);
    if (this.events) this.#readRooms().catch(() => {}); // the next connection reads again
  }

  async #readList() {
    // Each conversation's newest messages are read when it is opened.
    for (const conversation of this.store.conversations.values()) {
      if (conversation.room) continue;
      conversation.asked = false;
      conversation.edge ??= conversation.last?.id ?? null;
    }
    await this.counts.read();
  }

  async #readRooms() {
    await this.rooms.read();
    const all = this.#gapInRooms;
    this.#gapInRooms = false;
    await this.rooms.readNewest(all);
  }

  #take({ messages, more }) {
    // Earlier messages are kept if the page overlaps them: then nothing is missing in between.
    if (more && messages.length && (this.#gap || !this.store.has(messages[0]))) this.store.dropUpTo(messages.at(-1).id);
    this.#gap = false;
    this.#older = more;
    this.store.add(messages);
    if (!more) for (const conversation of this.store.conversations.values()) conversation.complete ||= !conversation.room;
    this.#fire("change");
  }

  /** Find more conversations: older ones of the list, or in the page of all messages before the oldest one. */
  async readOlderConversations() {
    if (this.counts.older) await this.counts.readOlder();
    if (!this.#listsHistory || !this.#older) return;
    const listed = [...this.store.conversations.values()].filter(({ room }) => !room);
    const oldest = listed.map(({ messages }) => messages[0]?.id).filter(Boolean).sort()[0];
    const { messages, more } = await this.client.history({ all: true, limit: RECENT, before: oldest });
    this.#older = more;
    this.store.add(messages);
    this.#fire("change");
  }

  readNewest(conversation) {
    conversation.asked = true;
    // A room's newest messages are in no page of all conversations; nor are others', where the node keeps the list.
    if (conversation.room || !this.#listsHistory) return this.#page(conversation, { limit: PAGE }, (page) => this.store.takeNewest(conversation, page));
    if (conversation.complete || conversation.messages.length >= PAGE) return Promise.resolve();
    return this.readOlder(conversation);
  }

  /** Read the page before the oldest message on the screen. Rejects with ImdError. */
  readOlder(conversation) {
    const run = conversation.onScreen;
    if (run.complete) return Promise.resolve();
    return this.#page(conversation, { before: run.messages[0]?.id, limit: PAGE }, ({ messages, more }) => {
      run.complete = !more;
      this.#put(conversation, run, messages);
    });
  }

  /** Read the page after the newest message on the screen, until the newest messages are reached. Rejects with ImdError. */
  readNewer(conversation) {
    const { past } = conversation;
    if (!past) return Promise.resolve();
    return this.#page(conversation, { after: past.last?.id, limit: PAGE }, ({ messages, moreAfter }) => {
      this.#put(conversation, past, messages);
      if (!moreAfter || past.last.id >= conversation.messages[0]?.id) this.#join(conversation, past);
    });
  }

  /** Show the messages around one that is not there. False if it cannot be read. Rejects with ImdError. */
  async readAround(conversation, id) {
    const past = new Run();
    await this.#page(conversation, { around: id, limit: PAGE }, ({ messages, more, moreAfter }) => {
      past.complete = !more;
      this.#put(conversation, past, messages);
      if (!past.has(id)) return;
      conversation.past = past;
      if (!moreAfter || past.last.id >= conversation.messages[0]?.id) this.#join(conversation, past);
    });
    return past.has(id);
  }

  #put(conversation, run, messages) {
    if (run === conversation) this.store.add(messages);
    else for (const message of messages) run.put(this.store.seen(message));
  }

  /** The older messages have reached the newest ones: both are one run again. */
  #join(conversation, past) {
    conversation.past = null;
    this.store.add(past.messages);
    conversation.complete = past.complete;
  }

  /** One page of a conversation at a time. */
  #page(conversation, which, take) {
    const { key } = conversation;
    if (!this.#pages.has(key)) {
      const page = this.client
        .history({ ...selectorOf(conversation, this.me), ...which })
        .then(take)
        .finally(() => {
          this.#pages.delete(key);
          this.#fire("change");
        });
      this.#pages.set(key, page);
      this.#fire("change");
    }
    return this.#pages.get(key);
  }

  isReading(conversation) {
    return this.#pages.has(conversation.key);
  }
}
