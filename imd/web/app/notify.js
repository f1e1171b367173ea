// The browser's notifications, and the badge of the installed app: for messages that come while nobody looks.
import { kept } from "../lib/dom.js";
import { excerpt } from "./lines.js";
import { addressOf } from "./list.js";
import { nameFor, titleOf } from "./names.js";
import { dismiss, earlier, listen, show, worker } from "./notices.js";

const WAIT_MS = 1000; // another device or tab may show the message
const KEY = "imd.notify";

const isNaming = ({ mentions = [] }, me) => mentions.includes(me) || mentions.includes("@all");

export class Notifier {
  #shown = new Map(); // key of a conversation → {id, closing}: the message; a promise of a function
  #waiting = new Set(); // timers

  /** `open` is called with the address of the conversation whose notification was chosen. */
  constructor(session, open) {
    this.session = session;
    this.open = open;
    this.who = `${session.who.mode} ${session.me}`;
    this.deaf = listen(({ who, address }) => who === this.who && open(address));
    if (this.isOn) this.#begin();
  }

  /** The worker is there before it is needed, and takes away what an earlier page has shown. */
  async #begin() {
    for (const [{ who, key, id }, close] of await earlier().catch(() => [])) {
      if (who === this.who && !this.#shown.has(key)) this.#shown.set(key, { id, closing: Promise.resolve(close) });
    }
    if (this.closed) this.close();
    else this.draw();
  }

  close() {
    this.closed = true;
    this.deaf();
    this.#waiting.forEach(clearTimeout);
    for (const key of [...this.#shown.keys()]) this.#take(key);
    this.badge(0);
  }

  /** The browser has notifications, and the user has not refused them. */
  get isPossible() {
    return "Notification" in window && window.isSecureContext && Notification.permission !== "denied";
  }

  get isOn() {
    return this.isPossible && Notification.permission === "granted" && kept.get(KEY, false);
  }

  /** Resolves to whether they are on now. The browser may ask the user first. */
  async turn(on) {
    if (on && Notification.permission !== "granted") await Notification.requestPermission();
    kept.set(KEY, on);
    if (this.isOn) await worker();
    else {
      for (const key of [...this.#shown.keys()]) this.#take(key);
      await dismiss();
    }
    return this.isOn;
  }

  /** A message has come. */
  arrived(message, conversation) {
    if (!this.isOn || !this.#concerns(message, conversation)) return;
    const timer = setTimeout(() => {
      this.#waiting.delete(timer);
      const now = this.session.store.view.get(message.id);
      if (now && !now.recalled && this.#concerns(now, conversation) && this.session.counts.unread(conversation)) this.#show(now, conversation);
    }, WAIT_MS);
    this.#waiting.add(timer);
  }

  /** Nobody looks, and it is not muted. A name in a muted conversation counts all the same. */
  #concerns(message, conversation) {
    const { counts, me } = this.session;
    const looked = !document.hidden && document.hasFocus();
    return message.userId !== me && !looked && (!counts.isMuted(conversation) || isNaming(message, me));
  }

  #show(message, conversation) {
    const { key, isGroup } = conversation;
    const { id } = message;
    const { me, who } = this.session;
    const text = excerpt(message, me);
    const body = isGroup ? `${nameFor(message.userId, me)}: ${text}` : text;
    const address = addressOf(conversation, me);
    const page = location.href.split("#")[0];
    const data = { who: this.who, key, id, page, address, everywhere: Boolean(who.token) };
    // One for each conversation, also if several tabs show it.
    const options = { body, tag: `${me} ${key}`, lang: document.documentElement.lang, data };
    const closing = show(titleOf(conversation), options, () => {
      window.focus();
      this.open(address);
    });
    // Without a worker some phones show none.
    this.#shown.set(key, { id, closing: closing.catch(() => () => {}) });
  }

  /** Conversations were read, here or on another device, or the message was removed: their notifications go. */
  draw() {
    const { store, counts } = this.session;
    for (const [key, { id }] of [...this.#shown]) {
      const conversation = store.conversations.get(key); // not there before the list has been read
      if (conversation && (!counts.unread(conversation) || store.view.get(id)?.recalled)) this.#take(key);
    }
  }

  #take(key) {
    this.#shown.get(key)?.closing.then((close) => close()).catch(() => {}); // the worker is gone, and they with it
    this.#shown.delete(key);
  }

  /** The number at the installed app's icon. */
  badge(unread) {
    if (unread === this.badged) return;
    this.badged = unread;
    const done = unread ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.();
    done?.catch(() => {}); // the app is not installed
  }
}
