// Texts on their way into the outbox. One that may name somebody waits for the names there are, and later ones wait for it.
import { mentionsIn } from "../lib/mentions.js";

const NAMES_MS = 3000; // a text waits no longer than that: it is more than the names in it
const MOST_NAMED = 50; // in one message

export class Sending {
  #waiting = []; // {conversation, what, failed, entry, isReady, timer}, in their order
  #count = 0;

  constructor(session) {
    this.session = session;
    // The page may not come back.
    this.onHide = () => this.flush();
    this.onHidden = () => document.hidden && this.flush();
    window.addEventListener("pagehide", this.onHide);
    document.addEventListener("visibilitychange", this.onHidden);
  }

  close() {
    this.flush();
    window.removeEventListener("pagehide", this.onHide);
    document.removeEventListener("visibilitychange", this.onHidden);
  }

  /** The texts that wait, as entries of the outbox. */
  get waiting() {
    return this.#waiting.map(({ entry }) => entry);
  }

  // ---- names

  /** Names to complete: members of the room or list, and `@all` for who may use it. Rejects with ImdError. */
  async names(conversation) {
    const { room } = conversation;
    if (room) await this.session.rooms.members(room);
    return this.#known(conversation);
  }

  /** Read what a text for this conversation will need: it may be a draft, or be pasted. */
  prepare({ room, gone }) {
    if (room && !gone) this.session.rooms.members(room).catch(() => {}); // asked for again by the text
  }

  /** The names that are known now. */
  #known({ room, others, about }) {
    const { rooms, me } = this.session;
    const members = room ? (rooms.lastMembers(room) ?? []).map(({ userId }) => userId) : others;
    const names = members.filter((name) => name !== me);
    return room && ["owner", "admin"].includes(about?.role) ? [...names, "@all"] : names;
  }

  /** A text with an @ has to wait: for a room's members, or for a list until it is known whether the cluster has mentions. */
  #lacksNames({ room, gone, isGroup }, text) {
    if (!isGroup || gone || !text.includes("@")) return false;
    return room ? !this.session.rooms.hasMembers(room) : this.session.kind === null;
  }

  // ---- texts

  /** Put a message or an edit into the outbox, at once or after a while. `what`: {text, reply, edit}. Throws ImdError; later,
   *  `failed` is called with one. */
  put(conversation, what, failed) {
    const lacks = this.#lacksNames(conversation, what.text);
    if (!lacks && !this.#waiting.some((item) => item.conversation === conversation)) return this.#send(conversation, what);
    const item = { conversation, what, failed, entry: this.#entry(conversation, what), isReady: !lacks };
    this.#waiting.push(item);
    if (lacks) this.#await(item);
    this.session.store.changed();
  }

  async #await(item) {
    const { room } = item.conversation;
    const ready = () => {
      item.isReady = true;
      this.#pass();
    };
    item.timer = setTimeout(ready, NAMES_MS);
    await (room ? this.session.rooms.members(room) : this.session.met).catch(() => {});
    ready();
  }

  /** Send the texts that need not wait any more. */
  #pass() {
    const held = new Set();
    for (const item of [...this.#waiting]) {
      if (item.isReady && !held.has(item.conversation)) this.#release(item);
      else held.add(item.conversation);
    }
  }

  /** Send everything that waits, with the names that are known. */
  flush() {
    for (const item of [...this.#waiting]) this.#release(item);
  }

  #release(item) {
    clearTimeout(item.timer);
    this.#waiting.splice(this.#waiting.indexOf(item), 1);
    try {
      this.#send(item.conversation, item.what);
    } catch (error) {
      item.failed(error);
    }
    this.session.store.changed();
  }

  #send(conversation, { text, reply, edit }) {
    const { client, store, events } = this.session;
    // Removed while this waited: no text for it is kept.
    if (edit && store.view.get(edit.id)?.recalled) return;
    const known = conversation.isGroup && (conversation.room || events) ? this.#known(conversation) : [];
    const mentions = mentionsIn(text, [...known, ...(edit?.mentions ?? [])]).slice(0, MOST_NAMED);
    const named = mentions.length ? { mentions } : {};
    if (edit) client.edit(edit.id, { ...named, contentType: edit.contentType, data: edit.data, msg: text });
    else client.send({ ...this.#target(conversation), ...named, msg: text, ...(reply ? { replyTo: reply.id } : {}) });
  }

  #target({ others, room }) {
    return room ? { room } : others.length > 1 ? { group: others } : { to: others[0] ?? this.session.me };
  }

  #entry(conversation, { text, reply, edit }) {
    const about = edit ? { kind: "edit", of: edit.id } : { ...this.#target(conversation), replyTo: reply?.id };
    return { clientMsgId: `waiting ${++this.#count}`, ...about, msg: text, queuedAt: Date.now(), state: "waiting" };
  }
}
