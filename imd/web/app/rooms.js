// The rooms of one user: their list, their events, their members.
import { RoomsView } from "../client/imd.js";
import { kept } from "../lib/dom.js";

const PAGE = 50;
const MEMBERS = 200;
const NEWEST = 30; // messages read of each room for the list of conversations

/** A room's event as the others get it, made from this device's own action: its inbox brings none. */
export function eventOfAction({ id, sendTime, room, version, message }, me) {
  const { action, name, posting, history, joining } = message;
  const users = action === "join" || action === "leave" ? [{ userId: me }] : (message.users ?? []).map((user) => ({ role: "member", ...user }));
  return { kind: "room", id, room, version, action, userId: me, users, name, posting, history, joining, sendTime };
}

export class Rooms {
  #view;
  #listed = false; // the list has been read
  #news = null; // changes that happen while the list is read
  #asked = new Map(); // room → {version, users: promise}: the last question for its members
  #members = new Map(); // room → {version, users}: the last answer

  constructor(session) {
    this.session = session;
    this.#view = new RoomsView(session.me);
    for (const room of kept.get(`${session.store.prefix}.rooms`, [])) session.store.conversation({ room: room.room }).about = room;
  }

  get(room) {
    return this.#view.get(room);
  }

  /** A room is opened by its address: it may be one of others. */
  enter(conversation) {
    if (conversation.room && this.#listed) this.#show(conversation.room);
  }

  heard(event) {
    this.#change((view) => view.apply(event), event.room);
    this.session.store.add([event]);
  }

  /** This device's own action. */
  accepted(detail) {
    this.#change((view) => view.accepted(detail), detail.room);
    this.session.store.add([eventOfAction(detail, this.session.me)]);
    if (detail.message.action === "join") this.#joined(detail.room).catch(() => {});
  }

  /** Only the list tells the name and the rules of a room that was joined. */
  async #joined(room) {
    await this.read();
    await this.session.readNewest(this.session.store.conversation({ room }));
  }

  /** A message was placed under a version that this user has not seen: in large rooms not every change is told. */
  placed({ room, roomVersion }) {
    const version = this.get(room)?.version;
    if (version !== undefined && roomVersion > version && !this.#news) this.read().catch(() => {});
  }

  #change(apply, room) {
    apply(this.#view);
    this.#news?.push(apply);
    this.#show(room);
  }

  #show(room) {
    const conversation = this.session.store.conversation({ room });
    conversation.gone = this.get(room) === undefined;
    conversation.about = this.get(room) ?? conversation.about;
  }

  /** Read the list. Rooms that it does not have any more are gone. Rejects with ImdError. */
  async read() {
    this.#news = [];
    try {
      const view = new RoomsView(this.session.me);
      for (let after, more = true; more; ) {
        const page = await this.session.client.rooms.list({ after, limit: PAGE });
        view.put(page);
        after = page.rooms.at(-1)?.room;
        more = page.more && after !== undefined;
      }
      for (const apply of this.#news) apply(view);
      this.#view = view;
      this.#listed = true;
    } finally {
      this.#news = null;
    }
    for (const { room } of this.#view.all) this.#show(room);
    for (const { room } of this.session.store.conversations.values()) if (room) this.#show(room);
    this.session.store.changed();
  }

  /** Read the newest messages of rooms that have none here. `gap`: of all, as some may be missing. */
  async readNewest(gap) {
    const { store, client } = this.session;
    for (const { room } of this.#view.all) {
      const conversation = store.conversation({ room });
      if (conversation.messages.length && !gap) continue;
      store.takeNewest(conversation, await client.history({ room, limit: NEWEST }), gap);
    }
  }

  /** All members, [{userId, role}], asked for once a version. Rejects with ImdError. */
  members(room) {
    const asked = this.#asked.get(room);
    if (asked && asked.version >= this.#version(room)) return asked.users;
    const question = { version: this.#version(room) };
    question.users = this.#readMembers(room, question);
    this.#asked.set(room, question);
    question.users.catch(() => this.#asked.get(room) === question && this.#asked.delete(room));
    return question.users;
  }

  /** The members that were read last, [{userId, role}]; null if none were. */
  lastMembers(room) {
    return this.#members.get(room)?.users ?? null;
  }

  /** Nothing is known to have changed since the members were read. */
  hasMembers(room) {
    return this.#members.get(room)?.version >= this.#version(room);
  }

  /** 0: the list has not been read yet. */
  #version(room) {
    return this.get(room)?.version ?? 0;
  }

  async #readMembers(room, question) {
    const all = [];
    for (let after, first = true; ; after = all.at(-1).userId, first = false) {
      const { version, users, more } = await this.session.client.rooms.members(room, { after, limit: MEMBERS });
      if (first) question.version = version;
      all.push(...users);
      if (!more || !users.length) break;
    }
    this.#members.set(room, { version: question.version, users: all });
    return all;
  }
}
