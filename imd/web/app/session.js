// One signed-in user: joins the client and the store of conversations.
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
  kind = null; // the user's type, as the node gives it
  older = false; // there are conversations older than those in the list
  #ahead = null; // the node's time minus performance.now(), in ms
  #channel;
  #reading = false;
  #again = false; // read once more when the present reading ends
  #gap = false; // messages may be missing
  #pages = new Map(); // key → promise of the page that is being read
  #prefix;

  /** `who`: {mode: "chat" or "desk", userId, token}. `userId` only counts without a token. */
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
    this.client.on("accepted", ({ id, sendTime, message }) => this.#accepted(message, id, sendTime));
    this.client.on("failed", () => this.#fire("change"));
    this.client.on("message", (message) => {
      if (this.store.add([message], true).length) this.#fire("arrived", message);
    });
  }

  start() {
    this.client.start();
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
    this.#channel.close();
    this.store.close();
    await this.client.stop();
  }

  /** Sign out: of this user, only unsent messages stay in the browser. With a token, all tabs sign out. */
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

  /** Put a message into the outbox. Throws ImdError. */
  send(conversation, text) {
    const { others } = conversation;
    const to = others.length > 1 ? { group: others } : { to: others[0] ?? this.me };
    return this.client.send({ ...to, msg: text });
  }

  /** The entries of the outbox for a conversation that are not among its messages. */
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
    // The node sends no copy to the sender's other devices: the other tabs get one from here.
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

  /** Read the newest messages of all conversations: after each connect, as other devices may have sent some. */
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
      // No connection. The next one reads again.
    } finally {
      this.#reading = false;
    }
    const open = this.store.conversations.get(this.store.open);
    if (open && !open.asked) this.readNewest(open).catch(() => {});
  }

  #take({ messages, more }) {
    // Earlier messages are kept if the page overlaps them: then nothing is missing in between.
    if (more && messages.length && (this.#gap || !this.store.has(messages[0]))) this.store.dropUpTo(messages.at(-1).id);
    this.#gap = false;
    this.older = more;
    this.store.add(messages);
    if (!more) for (const conversation of this.store.conversations.values()) conversation.complete = true;
    this.#fire("change");
  }

  /** Find more conversations: read the page of all messages before the oldest one. */
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

  /** Read the page before a conversation's oldest message. Rejects with ImdError. */
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
