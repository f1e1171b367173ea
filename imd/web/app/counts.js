// The list of conversations and what is unread in it, as the node has them: the same on all devices of a user.
import { ConversationsView } from "../client/imd.js";
import { keyOf, selectorOf } from "./store.js";

const PAGE = 30;
const MOST_PINNED = 50;
const MOST_PAGES = 10; // read after a break, until what is known already begins
const AGAIN_MS = 1000; // before the first page is read again; each time twice that
const MOST_AGAIN = 5;

/** Where the conversation of a page belongs: {room}, or {others}. */
const placeOfName = ({ with: other, group, room }, me) => (room ? { room } : { others: (group ?? [other]).filter((name) => name !== me).sort() });

/** Without the feature `state`, and for visitors, the marks of this browser count. */
export class Counts {
  older = false; // there are conversations older than those that were read
  #view;
  #there = false; // the first page has been read
  #newest = ""; // where the last reading began
  #oldest = "";
  #again = null;
  #tries = 0;

  constructor(session) {
    this.session = session;
    this.#view = new ConversationsView(session.me);
    const { client } = session;
    for (const type of ["message", "sent"]) client.on(type, (message) => this.#came(this.#view.add(message)));
    for (const type of ["edit", "recall", "react", "room"]) client.on(type, (event) => this.#view.apply(event));
    client.on("accepted", (detail) => this.#view.accepted(detail));
    client.on("conversations", (detail) => this.#changed(detail));
  }

  close() {
    clearTimeout(this.#again);
    this.#again = null;
  }

  get #isOn() {
    return this.session.client.features.includes("state");
  }

  // ---- reading

  /** Read the newest page, and after a break what came meanwhile. Rejects with ImdError. */
  async read() {
    const known = this.#newest;
    let page;
    for (let n = 0, before; n < MOST_PAGES; n++) {
      page = await this.#page(before);
      before = page.conversations.at(-1)?.at;
      if (n === 0) this.#newest = page.conversations[0]?.at ?? known;
      if (!known || !page.more || before <= known) break;
    }
    if (!this.#there) {
      await this.#readPinned(page);
      this.older = page.more;
      this.#oldest = page.conversations.at(-1)?.at ?? "";
    }
    this.#there = true;
    this.session.store.changed();
    this.#readAgain();
  }

  /** Read the page of older conversations. Rejects with ImdError. */
  async readOlder() {
    const page = await this.#page(this.#oldest || undefined);
    this.older = page.more;
    this.#oldest = page.conversations.at(-1)?.at ?? this.#oldest;
    this.session.store.changed();
  }

  /** Pinned conversations stand at the top, however old. */
  async #readPinned({ more }) {
    if (more) await this.#page(undefined, true);
  }

  async #page(before, pinned = false) {
    const { client, store, me } = this.session;
    const page = await client.conversations(pinned ? { pinned, limit: MOST_PINNED } : { limit: PAGE, before });
    this.#view.put(page);
    // With what this device has marked, and the node has not confirmed yet.
    const known = client.knownConversations;
    this.#view.changed({ conversations: known, all: false });
    known.forEach((each) => this.#clear(each));
    for (const each of page.conversations) {
      const { key } = store.conversation(placeOfName(each, me));
      store.readUpTo(key, this.#view.get(each)?.mark);
    }
    return page;
  }

  #came(isNew) {
    if (isNew) this.#tries = 0;
    this.#readAgain();
  }

  /** A conversation has come that was in no page. The archive, which makes the pages, may be a moment behind. */
  #readAgain() {
    if (!this.#there || this.#again !== null || this.#tries >= MOST_AGAIN || !this.#view.incomplete) return;
    this.#again = setTimeout(() => {
      this.#again = null;
      this.read().catch(() => {}); // the next connection reads again
    }, AGAIN_MS * 2 ** this.#tries++);
  }

  #changed(detail) {
    const { store, me } = this.session;
    this.#view.changed(detail);
    for (const each of detail.conversations) {
      store.readUpTo(keyOf(placeOfName(each, me)), each.mark);
      this.#clear(each);
    }
    store.changed();
  }

  #clear({ cleared, ...name }) {
    const conversation = cleared && this.session.store.conversations.get(keyOf(placeOfName(name, this.session.me)));
    if (conversation) this.session.store.clear(conversation, cleared);
  }

  // ---- for the page

  /** A conversation as the list has it; undefined where it is not there, or the cluster keeps no list. */
  get(conversation) {
    return this.#isOn && this.#there ? this.#view.get(selectorOf(conversation, this.session.me)) : undefined;
  }

  /** Its marks and settings; undefined where the cluster keeps none. */
  marks(conversation) {
    return this.#isOn ? this.session.client.conversation(selectorOf(conversation, this.session.me)) : undefined;
  }

  /** The newest message, also if only the list has it. */
  last(conversation) {
    const last = this.get(conversation)?.last;
    return last && last.id > (conversation.last?.id ?? "") ? last : conversation.last;
  }

  /** The id of the newest message or event, "" if there is none. */
  newest(conversation) {
    const [at = "", last = ""] = [this.get(conversation)?.at, this.last(conversation)?.id];
    return at > last ? at : last;
  }

  isMuted(conversation) {
    const { muted } = this.marks(conversation) ?? {};
    return typeof muted === "number" ? muted > this.session.now() : Boolean(muted);
  }

  /** Out of the list until something newer comes. */
  isHidden(conversation) {
    const { hidden } = this.marks(conversation) ?? {};
    return Boolean(hidden) && hidden >= this.newest(conversation);
  }

  /** Messages of others that are unread; 100 means 100 or more. */
  unread(conversation) {
    return this.get(conversation)?.unread ?? this.session.store.unread(conversation);
  }

  /** An unread message that is here names this user. */
  isNamed(conversation) {
    const { store, me } = this.session;
    const listed = this.get(conversation);
    if (!listed) return store.mentions(conversation);
    const messages = [...conversation.messages, ...(listed.last ? [listed.last] : [])];
    return messages.some(({ id, userId, mentions = [] }) => id > listed.mark && userId !== me && (mentions.includes(me) || mentions.includes("@all")));
  }

  /** All unread messages but those of muted conversations. */
  get total() {
    const { store } = this.session;
    if (!this.#isOn || !this.#there) return store.totalUnread;
    const shown = [...store.conversations.values()].filter((each) => !each.gone && !this.isMuted(each) && !this.isHidden(each));
    return shown.reduce((sum, conversation) => sum + (this.unread(conversation) || Number(this.marks(conversation).marked)), 0);
  }

  /** The user sees the end of a conversation. */
  seen(conversation) {
    const upTo = conversation.messages.findLast(({ kind }) => kind !== "room")?.id;
    const marks = this.marks(conversation);
    if (marks && upTo > marks.mark) this.#read(conversation, upTo);
  }

  /** The user has opened a conversation, or written in it: it is not marked as unread any more. */
  entered(conversation) {
    const upTo = this.last(conversation)?.id ?? this.get(conversation)?.at;
    if (this.marks(conversation)?.marked && upTo) this.#read(conversation, upTo);
  }

  #read(conversation, upTo) {
    this.session.client.read({ ...selectorOf(conversation, this.session.me), upTo });
  }
}
