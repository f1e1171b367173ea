// One signed-in user: the client, the conversations, and what joins them.
import { channelOf } from "../lib/dom.js";
import { Client } from "../client/imd.js";
import { websocketUrl } from "../lib/node.js";
import { keyOf, othersIn, Store } from "./store.js";

const PAGE = 50;
const RECENT = 200;

/** Fires `change` (conversations or outbox), `state`, `arrived` (detail: the message). */
export class Session extends EventTarget {
  client;
  store;
  state = { state: "idle" };
  paused = false;
  kind = null; // the node's word for what this user is
  older = false; // there are conversations older than those in the list
  #ahead = null; // of the node's clock before performance.now(), in ms
  #channel;
  #reading = false;
  #again = false; // asked for while it is being read
  #gap = false; // messages may be missing
  #pages = new Map(); // key → a page of it that is being read
  #prefix;

  /** `who`: {mode: "chat" or "desk", userId, token}; without a token the name counts. */
  constructor(settings, who) {
    super();
    this.who = who;
    this.me = who.userId;
    this.#prefix = `imd.${who.mode}.${this.me}`;
    this.store = new Store(this.#prefix, this.me);
    this.client = new Client({
      url: websocketUrl(settings),
      userId: this.me,
      loginType: "USER_TYPE",
      isCustomerService: who.mode === "desk",
      token: who.token ? () => who.token : undefined,
      storageKey: `${this.#prefix}.client`,
    });
    this.#channel = channelOf(this.#prefix);
    this.#channel.onmessage = ({ data }) => this.#fromAnotherTab(data);
    this.store.addEventListener("change", () => this.#fire("change"));
    this.client.on("state", (state) => {
      this.state = state;
      if (state.state !== "open") this.#fire("state", state); // that has to wait for what one is
    });
    this.client.on("connected", (connected) => {
      this.kind = connected.fromUserType;
      this.#ahead = connected.serverTime - performance.now();
      this.#fire("state", this.state);
      this.#readRecent();
    });
    this.client.on("gap", () => this.#readRecent(true));
    this.client.on("outbox", () => this.#fire("change"));
    this.client.on("accepted", ({ id, sendTime, message }) => this.#accepted(message, id, sendTime));
    this.client.on("failed", () => this.#fire("change"));
    this.client.on("message", (message) => {
      if (this.store.add([message], true).length) this.#fire("arrived", message);
    });
  }

  start() {
    this.client.start();
  }

  /** By the node's clock, as the times of messages are; this browser's may be wrong. */
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
    this.#channel.close();
    this.store.close();
    await this.client.stop();
  }

  /** Sign out: nothing stays in this browser but what is still to be sent. With a token, in all its tabs. */
  async leave() {
    if (this.who.token) this.#channel.postMessage({ left: true });
    await this.#forget();
  }

  async #forget() {
    this.#channel.close();
    this.store.forget();
    await this.client.stop();
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ---- sending

  /** Into the outbox. Throws ImdError. */
  send(conversation, text) {
    const { others } = conversation;
    const to = others.length > 1 ? { group: others } : { to: others[0] ?? this.me };
    return this.client.send({ ...to, msg: text });
  }

  /** What is in the outbox for a conversation, and not among its messages. */
  outgoing(conversation) {
    return this.client.outbox.filter((entry) => this.keyOfOutgoing(entry) === conversation.key);
  }

  keyOf(message) {
    return keyOf(othersIn(message, this.me));
  }

  keyOfOutgoing(entry) {
    return this.keyOf({ ...entry, userId: this.me });
  }

  #accepted(message, id, sendTime) {
    const { clientMsgId, to, group, msg, contentType } = message;
    const accepted = { id, clientMsgId, userId: this.me, to, group, msg, contentType, sendTime };
    this.store.add([accepted]);
    // The node gives the sender's other devices no copy; the other tabs get theirs from here.
    this.#channel.postMessage({ accepted });
  }

  #fromAnotherTab({ accepted, left }) {
    if (accepted) this.store.add([accepted]);
    if (left) {
      this.#fire("left");
      this.#forget();
    }
  }

  // ---- reading

  /** The newest messages of all conversations: after each connect, for those sent from other devices. */
  async #readRecent(gap = false) {
    this.#gap ||= gap;
    this.#again = true;
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.#again) {
        this.#again = false;
        this.#take(await this.client.history({ all: true, limit: RECENT }));
      }
    } catch {
      // Without a connection; the next one asks again.
    } finally {
      this.#reading = false;
    }
    const open = this.store.conversations.get(this.store.open);
    if (open && !open.asked) this.readNewest(open).catch(() => {});
  }

  #take({ messages, more }) {
    // What is kept from earlier joins on only if it overlaps, and nothing was missed in between.
    if (more && messages.length && (this.#gap || !this.store.has(messages[0]))) this.store.dropUpTo(messages.at(-1).id);
    this.#gap = false;
    this.older = more;
    this.store.add(messages);
    if (!more) for (const conversation of this.store.conversations.values()) conversation.complete = true;
    this.#fire("change");
  }

  /** More conversations: the page of all messages before the oldest that is there. */
  async readOlderConversations() {
    const oldest = [...this.store.conversations.values()].map(({ messages }) => messages[0]?.id).filter(Boolean).sort()[0];
    const { messages, more } = await this.client.history({ all: true, limit: RECENT, before: oldest });
    this.older = more;
    this.store.add(messages);
    this.#fire("change");
  }

  readNewest(conversation) {
    conversation.asked = true;
    if (conversation.complete || conversation.messages.length >= PAGE) return Promise.resolve();
    return this.readOlder(conversation);
  }

  /** The page before the oldest message that is there. Rejects with ImdError. */
  readOlder(conversation) {
    const { key, others, messages } = conversation;
    if (conversation.complete) return Promise.resolve();
    if (!this.#pages.has(key)) {
      const whose = others.length > 1 ? { group: others } : { with: others[0] ?? this.me };
      const page = this.client
        .history({ ...whose, before: messages[0]?.id, limit: PAGE })
        .then(({ messages, more }) => {
          conversation.complete = !more;
          this.store.add(messages);
        })
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
