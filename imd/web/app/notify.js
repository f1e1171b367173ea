// The browser's notifications, and the badge of the installed app: for messages that come while nobody looks.
import { kept } from "../lib/dom.js";
import { excerpt } from "./lines.js";
import { nameFor, titleOf } from "./names.js";

const WAIT_MS = 1000; // another device or tab may show the message
const KEY = "imd.notify";

const isNaming = ({ mentions = [] }, me) => mentions.includes(me) || mentions.includes("@all");

export class Notifier {
  #shown = new Map(); // key of a conversation → Notification
  #waiting = new Set(); // timers

  /** `open` is called with the conversation whose notification was chosen. */
  constructor(session, open) {
    this.session = session;
    this.open = open;
  }

  close() {
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
    const { me } = this.session;
    const text = excerpt(message, me);
    const body = isGroup ? `${nameFor(message.userId, me)}: ${text}` : text;
    try {
      // One for each conversation, also if several tabs show it.
      const shown = new Notification(titleOf(conversation), { body, tag: `${this.session.me} ${key}`, lang: document.documentElement.lang });
      shown.onclick = () => {
        window.focus();
        shown.close();
        this.open(conversation);
      };
      shown.onclose = () => this.#shown.get(key) === shown && this.#shown.delete(key);
      this.#shown.set(key, shown);
    } catch {
      // Some phones let only a service worker notify.
    }
  }

  /** Conversations were read, here or on another device: their notifications go. */
  draw() {
    const { store, counts } = this.session;
    for (const key of [...this.#shown.keys()]) if (!counts.unread(store.conversations.get(key))) this.#take(key);
  }

  #take(key) {
    this.#shown.get(key)?.close();
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
