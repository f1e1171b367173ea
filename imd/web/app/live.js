// The others just now: who is online, and who is writing.
import { keyOf, selectorOf } from "./store.js";

/** Needs the feature `state`; without it nobody is known to be online, and nobody writes. */
export class Live {
  #typing = new Map(); // key of a conversation → users

  constructor(session) {
    this.session = session;
    const { client } = session;
    client.on("presence", () => session.store.changed());
    client.on("typing", (detail) => this.#heard(detail));
  }

  #heard({ userId, on, with: other, group, room }) {
    const { store, me } = this.session;
    const key = keyOf(room ? { room } : { others: (group ?? [other]).filter((name) => name !== me).sort() });
    const users = new Set(this.#typing.get(key));
    if (on) users.add(userId);
    else users.delete(userId);
    if (users.size) this.#typing.set(key, users);
    else this.#typing.delete(key);
    store.changed();
  }

  /** Watch the other of the conversation on the screen, of none with null. */
  watch(conversation) {
    const { others = [], isGroup, isVisitors } = conversation ?? {};
    this.session.client.watch(isGroup || isVisitors ? [] : others);
  }

  /** True or false; undefined where it is not known. */
  isOnline({ others, isGroup }) {
    const { hasState, client } = this.session;
    return isGroup || !hasState ? undefined : client.present.get(others[0]);
  }

  /** The users who are writing in a conversation. */
  writers({ key }) {
    return [...(this.#typing.get(key) ?? [])];
  }

  /** This user is writing. */
  writing(conversation) {
    if (conversation.others.length || conversation.room) this.session.client.typing(selectorOf(conversation, this.session.me));
  }
}
