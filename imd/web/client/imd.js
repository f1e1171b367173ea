// The JavaScript client of imd, for browsers and Node 20 or newer. It connects, comes back, resends,
// acknowledges and drops repeats; an app only sends and listens. docs/clients.md is its manual,
// docs/protocol.md describes the frames.

const SECOND = 1000;
const CONNECT_MS = 15 * SECOND;
const TOKEN_MS = 30 * SECOND; // for the app's token()
const TOKEN_AGAIN_MS = 5 * SECOND; // before a newer one is asked for again
const MAX_REFUSED_TOKENS = 16; // most that are remembered
const HURRY_MS = SECOND; // for an attempt that is running when the network comes back
const LOCK_MS = 10 * SECOND; // for the browser to grant or refuse a lock, which is immediate if it works
const PONG_MS = 10 * SECOND;
const OFFLINE_PONG_MS = 2 * SECOND; // when the browser says `offline`: a node on this machine still answers
const LONG_PAUSE_MS = 10 * SECOND; // a longer one of `rate_limited` is about the recipients, not about the pace
const ANSWER_MS = 60 * SECOND; // for the answer to a message, on a connection that is alive
const UNREAD_MS = 40 * SECOND; // before an entry is given up that the node may not have been able to read; a silent node is noticed sooner
const HISTORY_MS = 20 * SECOND;
const ACK_MS = 200;
const STEADY_MS = 5 * SECOND; // a connection that lasted so long resets the backoff
const MAX_HASTY = 3; // most returns to nodes that leave, without a pause of the client's own, until a connection lasts
const COURIER_MS = 30 * SECOND; // between two searches for the outboxes of closed tabs
const CLOSE_MS = SECOND;
const LEASE_MS = 150 * SECOND; // long, as browsers run the timers of hidden tabs once a minute
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const MAX_REQUESTS = 4; // unanswered requests; the node refuses more
const MAX_REQUESTS_WAITING = 100;
const LONGEST_HOLD_MS = 15 * SECOND; // between two attempts of an entry that the archive or a room holds up
const CATCH_UP_MS = 15 * SECOND; // before the archive is asked again, when it is behind or did not answer
const CATCH_UP_PAGE = 200;
const COMPLETE_MS = 24 * 3600 * SECOND; // a `complete` of that age is renewed
const CLOCKS_MS = 10 * SECOND; // for the clocks of two nodes
const FEATURES = ["events", "sync", "state"];
const KINDS = ["edit", "recall", "react", "room"]; // events besides messages
const QUESTIONS = ["history", "messages", "changes", "rooms", "members", "conversations", "block", "blocked"];
const BLOCK = 64; // ids of handled messages in one block
const BLOCKS = 64; // full blocks in the storage
const MOST_RECALLED = 1000; // recalled messages that are remembered for the outboxes of closed tabs
const MAX_DATA_BYTES = 4096; // of `data`, as long as no node has told its limit
const MAX_DATA_DEPTH = 32;

const NO_EVENTS = "this cluster takes messages only";
const UNSURE = "the connection ended before the answer; it may have been delivered";

/** The error that questions reject with, and calls that fill the outbox throw. Programs decide by `code`. */
export class ImdError extends Error {
  constructor(code, reason) {
    super(`${code}: ${reason}`);
    this.name = "ImdError";
    this.code = code;
    this.reason = reason;
  }
}

// ---- helpers

function uuid() {
  if (globalThis.crypto?.randomUUID) return crypto.randomUUID();
  // Pages from plain http have no randomUUID.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Milliseconds of a monotonic clock. */
const clock = () => performance.now();

const encoder = new TextEncoder();
const bytesOf = (text) => encoder.encode(text).length;

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Milliseconds since 1970, from the id of a message or event. */
const timeOfId = (id) => parseInt(`${id}`.slice(0, 12), 16) || 0;

const isNested = (value) => typeof value === "object" && value !== null;
const isObject = (value) => isNested(value) && !Array.isArray(value);

/** For `sort`: by code points, as the node sorts names. Without it a sort goes by UTF-16, where "😀" comes before "Ａ". */
function byCodePoints(one, other) {
  for (let i = 0; i < one.length && i < other.length; i++) {
    const [a, b] = [one.charCodeAt(i), other.charCodeAt(i)];
    // The halves of a pair stand for code points above all others.
    if (a !== b) return (isHalf(a) ? a + 0x10000 : a) - (isHalf(b) ? b + 0x10000 : b);
  }
  return one.length - other.length;
}

const isHalf = (unit) => unit >= 0xd800 && unit < 0xe000;

/** Timers by name. Setting one replaces the one of the same name. */
class Timers {
  #running = new Map();

  set(name, ms, callback) {
    this.cancel(name);
    const run = () => {
      this.#running.delete(name);
      callback();
    };
    this.#running.set(name, setTimeout(run, Math.min(Math.max(0, ms), LONGEST_TIMER_MS)));
  }

  has(name) {
    return this.#running.has(name);
  }

  cancel(name) {
    clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  clear() {
    for (const timer of this.#running.values()) clearTimeout(timer);
    this.#running.clear();
  }
}

// ---- storage

/** A storage that never throws: a refused write is kept in memory and repeated with the next one. */
class Store {
  #storage;
  #refused = new Map(); // key → text; null: to be removed
  #onError;

  constructor(storage, onError) {
    this.#storage = storage;
    this.#onError = onError;
  }

  get(key) {
    if (this.#refused.has(key)) return this.#refused.get(key);
    try {
      return this.#storage.getItem(key);
    } catch (error) {
      this.#onError(error);
      return null;
    }
  }

  read(key) {
    const text = this.get(key);
    return text === null ? undefined : parsed(text);
  }

  write(key, value) {
    this.#put(key, JSON.stringify(value));
  }

  writeText(key, text) {
    this.#put(key, text);
  }

  remove(key) {
    this.#put(key, null);
  }

  #put(key, text) {
    this.#refused.delete(key);
    try {
      this.#do(key, text);
      for (const [other, held] of this.#refused) {
        this.#do(other, held);
        this.#refused.delete(other);
      }
    } catch (error) {
      if (!this.#refused.has(key)) this.#refused.set(key, text);
      this.#onError(error);
    }
  }

  #do(key, text) {
    if (text === null) this.#storage.removeItem(key);
    else this.#storage.setItem(key, text);
  }
}

class MemoryStorage {
  #items = new Map();
  getItem(key) {
    return this.#items.get(key) ?? null;
  }
  setItem(key, text) {
    this.#items.set(key, text);
  }
  removeItem(key) {
    this.#items.delete(key);
  }
}

function defaultStorage() {
  try {
    // Pages only: in newer versions of Node all programs share one localStorage.
    if (typeof document !== "undefined" && globalThis.localStorage) return globalThis.localStorage;
  } catch {
    // The browser forbids it.
  }
  return new MemoryStorage();
}

// ---- locks: each slot has one holder

/** Locks among the tabs of a browser. A browser that blocks storage refuses them: then `others` makes other locks. */
class WebLocks {
  #others;
  #instead = null;

  constructor(others) {
    this.#others = others;
  }

  async hold(name) {
    try {
      if (!this.#instead) return await this.#request(name);
    } catch (error) {
      // The page is being closed or is suspended: a temporary refusal.
      if (error?.name === "InvalidStateError") throw error;
      this.#instead = this.#others();
    }
    return this.#instead.hold(name);
  }

  #request(name) {
    let timer;
    const asked = new Promise((resolve, reject) => {
      let late = false;
      timer = setTimeout(() => {
        late = true;
        reject(new Error("the browser does not say who has the lock"));
      }, LOCK_MS);
      navigator.locks
        .request(name, { ifAvailable: true }, (lock) => {
          if (lock === null || late) return resolve(null);
          return new Promise((release) => resolve(release));
        })
        .catch(reject);
    });
    return asked.finally(() => clearTimeout(timer));
  }
}

const heldHere = new WeakMap(); // storage → names

/** Locks among the clients of this page or process that share a storage. */
class LocalLocks {
  #held;

  constructor(storage) {
    if (!heldHere.has(storage)) heldHere.set(storage, new Set());
    this.#held = heldHere.get(storage);
  }

  async hold(name) {
    if (this.#held.has(name)) return null;
    this.#held.add(name);
    return () => this.#held.delete(name);
  }
}

/** Locks among tabs without Web Locks, such as pages from plain http: leases with a time, in the storage. */
class LeaseLocks {
  #store;
  #me = uuid();
  #watched = new Map(); // key → a lease with a time in the future, and when it was first seen

  constructor(store) {
    this.#store = store;
  }

  async hold(name) {
    const key = `${name}:lease`;
    const holder = () => this.#store.read(key);
    const write = () => this.#store.write(key, { by: this.#me, at: Date.now() });
    const lease = holder();
    if (lease && lease.by !== this.#me && this.#lives(key, lease)) return null;
    write();
    // Several tabs may write at once. The last writer holds the lease; the others see it after a pause.
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (holder()?.by !== this.#me) return null;
    const renewing = setInterval(() => holder()?.by === this.#me && write(), LEASE_MS / 15);
    const leave = () => {
      clearInterval(renewing);
      removeEventListener("pagehide", hidden);
      if (holder()?.by === this.#me) this.#store.remove(key);
    };
    const hidden = (event) => event.persisted || leave();
    addEventListener("pagehide", hidden);
    return leave;
  }

  /** Leases carry the time of day, the only clock that tabs share. One from the future (the clock was set back) lives while it changes. */
  #lives(key, { by, at }) {
    const age = Date.now() - at;
    if (age >= 0) return age < LEASE_MS;
    const seen = this.#watched.get(key);
    if (seen?.by === by && seen.at === at) return clock() - seen.since < LEASE_MS;
    this.#watched.set(key, { by, at, since: clock() });
    return true;
  }
}

function hasWebLocks() {
  try {
    return Boolean(globalThis.navigator?.locks);
  } catch {
    return false;
  }
}

function locksOf(storage, store) {
  if (typeof document === "undefined") return new LocalLocks(storage);
  const others = () => (storage instanceof MemoryStorage ? new LocalLocks(storage) : new LeaseLocks(store));
  return hasWebLocks() ? new WebLocks(others) : others();
}

// ---- the slot: the stored state of one device

/** "3-5,9" for [3, 4, 5, 9]. */
function runs(numbers) {
  const parts = [];
  for (let i = 0; i < numbers.length; ) {
    let end = i;
    while (numbers[end + 1] === numbers[end] + 1) end++;
    parts.push(end > i ? `${numbers[i]}-${numbers[end]}` : `${numbers[i]}`);
    i = end + 1;
  }
  return parts.join(",");
}

function numbersOf(text) {
  const numbers = [];
  for (const part of (text || "").split(",").filter(Boolean)) {
    const [first, last = first] = part.split("-").map(Number);
    for (let n = first; n <= last; n++) numbers.push(n);
  }
  return numbers;
}

/**
 * A device with its cursor, the ids of handled messages and its outbox, under keys of its own:
 *   base:name        {owner, epoch, seq, attempt, ids, block, complete, behind}: one write moves the cursor and adds ids
 *   base:name:idsN   a full block of ids; a new one replaces the oldest
 *   base:name:out    the numbers of the entries; base:name:outN an entry
 *   base:name:new    the same for entries that version 0.1 of this client would take for private messages; base:name:newN
 *   base:name:state  {version, receipts, conversations}: marks and settings
 *   base:name:wishes those that the node has not confirmed
 */
class Slot {
  owner = null;
  epoch = null;
  seq = 0;
  attempt = 0;
  complete = ""; // events up to this id were in this inbox, or were read from the archive
  behind = false; // later ones have to be read from the archive
  items = new Map(); // clientMsgId → item, in order
  #store;
  #key;
  #ids = [];
  #block = 0;
  #seen = new Set();
  #next = 0;

  constructor(store, base, name) {
    this.name = name;
    this.#store = store;
    this.#key = `${base}:${name}`;
    const record = store.read(this.#key);
    if (isObject(record)) {
      this.owner = record.owner ?? null;
      this.epoch = record.epoch ?? null;
      this.seq = record.seq ?? 0;
      this.attempt = record.attempt ?? 0;
      this.complete = record.complete ?? "";
      this.behind = record.behind ?? false;
      this.#ids = record.ids ?? [];
      this.#block = record.block ?? 0;
    }
    // Oldest first: the set forgets in the order of insertion.
    for (let i = 0; i < BLOCKS; i++) {
      const ids = store.read(`${this.#key}:ids${(this.#block + i) % BLOCKS}`);
      if (Array.isArray(ids)) ids.forEach((id) => this.#seen.add(id));
    }
    this.#ids.forEach((id) => this.#seen.add(id));
    const found = [];
    for (const place of ["out", "new"]) {
      for (const n of numbersOf(store.get(`${this.#key}:${place}`))) {
        this.#next = Math.max(this.#next, n + 1);
        const kept = store.read(`${this.#key}:${place}${n}`);
        if (isObject(kept) && kept.entry) found.push({ ...kept, n });
      }
    }
    for (const { entry, n, since, placed } of found.sort((one, other) => one.n - other.n)) {
      this.#remember(entry, n, since ?? null).placed = placed ?? null;
    }
  }

  /** True for an id that was not known. It is now; `had` stores it. */
  isNew(id) {
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > BLOCK * (BLOCKS + 1)) this.#seen.delete(this.#seen.values().next().value);
    return true;
  }

  /** The app has handled this message. Stored with the next `save`. */
  had(seq, id) {
    this.seq = seq;
    if (id === undefined) return;
    this.#ids.push(id);
    if (this.#ids.length < BLOCK) return;
    this.#store.write(`${this.#key}:ids${this.#block}`, this.#ids);
    this.#block = (this.#block + 1) % BLOCKS;
    this.#ids = [];
  }

  save() {
    const { owner, epoch, seq, attempt, complete, behind } = this;
    this.#store.write(this.#key, { owner, epoch, seq, attempt, ids: this.#ids, block: this.#block, complete, behind });
  }

  readState() {
    const state = this.#store.read(`${this.#key}:state`);
    const wishes = this.#store.read(`${this.#key}:wishes`);
    return { ...(isObject(state) ? state : {}), wishes: Array.isArray(wishes) ? wishes : [] };
  }

  /** null: there is none. */
  writeState(state) {
    if (state === null) this.#store.remove(`${this.#key}:state`);
    else this.#store.write(`${this.#key}:state`, state);
  }

  writeWishes(wishes) {
    if (wishes.length) this.#store.write(`${this.#key}:wishes`, wishes);
    else this.#store.remove(`${this.#key}:wishes`);
  }

  add(entry, since = null) {
    const item = this.#remember(entry, this.#next++, since);
    this.keep(item);
    this.#saveIndex(item.place);
    return item;
  }

  /** Store an entry that changed. */
  keep(item) {
    const { state, ...entry } = item.entry;
    const kept = state === "failed" ? { ...entry, state } : { ...entry, state: "waiting" };
    this.#store.write(`${this.#key}:${item.place}${item.n}`, { entry: kept, since: item.since, placed: item.placed ?? undefined });
  }

  remove(item) {
    if (!this.items.delete(item.entry.clientMsgId)) return;
    this.#saveIndex(item.place);
    this.#store.remove(`${this.#key}:${item.place}${item.n}`);
  }

  #remember(entry, n, since) {
    // `since`: the first sending that was not refused unseen, by the node's clock; null: it is in no inbox.
    // `placed`: its id, if the inbox had a copy of it before the answer.
    const item = { entry, n, since, placed: null, sends: since === null ? 0 : 2, inFlight: false, sentAt: 0, heldUntil: 0, holds: 0, bytes: 0, wrong: null };
    item.order = orderOf(entry);
    item.place = needsEvents(entry) ? "new" : "out";
    this.items.set(entry.clientMsgId, item);
    return item;
  }

  #saveIndex(place) {
    const items = [...this.items.values()].filter((item) => item.place === place);
    this.#store.writeText(`${this.#key}:${place}`, runs(items.map((item) => item.n)));
  }
}

// ---- pace

/**
 * A token bucket as the node has one: `perSecond` on average, and at most that at once. 0: no limit.
 * Half of it stays in reserve: frames that are held up on their way reach the node closer together than they were
 * sent, and it would refuse the last of them.
 */
class Pace {
  #perSecond;
  #left;
  #at = clock();

  constructor(perSecond) {
    this.#perSecond = perSecond;
    this.#left = perSecond;
  }

  /** Milliseconds until `cost` can be taken. */
  wait(cost) {
    if (!this.#perSecond) return 0;
    const now = clock();
    const earned = ((now - this.#at) / SECOND) * this.#perSecond;
    this.#left = Math.min(this.#perSecond, this.#left + earned);
    this.#at = now;
    const missing = Math.min(cost + this.#perSecond / 2, this.#perSecond) - this.#left;
    return missing <= 0 ? 0 : Math.ceil((missing / this.#perSecond) * SECOND);
  }

  take(cost) {
    this.#left -= cost;
  }
}

// ---- entries of the outbox

const no = (reason) => {
  throw new ImdError("invalid_message", reason);
};
const isBroken = (text) => /\p{Surrogate}/u.test(text);
const isText = (value) => typeof value === "string" && value !== "" && !isBroken(value);
/** Users as frames have them, from one or several ids or objects. */
const members = (users) => [users].flat().map((user) => (isObject(user) ? user : { userId: user }));
const isName = (name, value) => isText(value) || no(`${name}: a name`);

const hasBroken = (value) => (isNested(value) ? Object.entries(value).flat().some(hasBroken) : typeof value === "string" && isBroken(value));

/** Throws `invalid_message` for a lone surrogate, which no node could read. */
function checkTexts(fields) {
  for (const [name, value] of Object.entries(fields)) if (hasBroken(value)) no(`${name}: a lone surrogate cannot be sent`);
}

/** A copy of the app's own object, as others get it. Throws `invalid_message` for one that no node would take. */
function dataOf(data, mostBytes = MAX_DATA_BYTES) {
  let text;
  try {
    text = JSON.stringify(data);
  } catch (error) {
    no(`data: ${error.message}`);
  }
  if (!text?.startsWith("{")) no("data: an object");
  if (bytesOf(text) > mostBytes) no(`data: at most ${mostBytes} bytes`);
  const copy = JSON.parse(text);
  let level = [copy];
  for (let i = 0; i < MAX_DATA_DEPTH; i++) level = level.filter(isNested).flatMap(Object.values);
  if (level.some(isNested)) no(`data: at most ${MAX_DATA_DEPTH} levels`);
  checkTexts({ data: copy });
  return copy;
}

/** The reason why no node would take an entry that is stored already; null if there is none. */
function wrongIn(entry, dataBytes) {
  try {
    const { data, ...fields } = frameOf(entry);
    checkTexts(fields);
    if (data != null) dataOf(data, dataBytes);
    return null;
  } catch (error) {
    return error.reason ?? error.message;
  }
}

/** Fields of a message or an edit. Throws `invalid_message` for a wrong one, so that the app sees its mistake. */
function content({ msg, contentType, mentions, data }, dataBytes) {
  if (!isText(msg)) no("msg: a text that is not empty, without lone surrogates");
  if (contentType != null && !(contentType === "" || isText(contentType))) no("contentType: a text");
  if (mentions != null && !(Array.isArray(mentions) && mentions.every(isText))) no("mentions: a list of names");
  const fields = { msg };
  if (contentType != null) fields.contentType = contentType;
  if (mentions?.length) fields.mentions = [...mentions];
  if (data != null) fields.data = dataOf(data, dataBytes);
  return fields;
}

/** The fields of a message to send. */
function checked({ to, group, room, replyTo, ...rest }, dataBytes) {
  const fields = content(rest, dataBytes);
  if (to != null) isName("to", to);
  if (room != null) isName("room", room);
  if (group != null && !(Array.isArray(group) && group.length && group.every(isText))) no("group: a list of names");
  if (room != null && (to != null || group != null)) no("a room, or users");
  if (replyTo != null) isName("replyTo", replyTo);
  if (to != null) fields.to = to;
  if (group != null) fields.group = [...group];
  if (room != null) fields.room = room;
  if (replyTo != null) fields.replyTo = replyTo;
  return fields;
}

/** The id of a message that is given as such, or by its id. */
function idOf(message) {
  const id = isObject(message) ? message.id : message;
  if (!isText(id)) no("the message has no id yet: wait until it is accepted");
  return id;
}

/** True for an entry that a node without the feature `events` does not know, at least not whole. */
const needsEvents = ({ kind, room, replyTo, mentions, data }) => [kind, room, replyTo, mentions, data].some((value) => value !== undefined);

/** Entries with the same order are sent one after the other. */
function orderOf({ kind, of, room, to, group, clientMsgId, action }) {
  if (of !== undefined) return `of ${of}`;
  if (action === "create") return `create ${clientMsgId}`;
  return JSON.stringify(room ?? to ?? (group ? [...group].sort(byCodePoints) : null));
}

/** False for what may happen twice without harm, however late. */
const expires = ({ kind, action }) => kind !== "recall" && kind !== "react" && action !== "create";

/** The frame of an entry. */
function frameOf({ kind, of, queuedAt, state, error, ...fields }) {
  return kind === undefined ? fields : { type: kind, id: of, ...fields };
}

/** The event that others got for an accepted entry; null for a room's action, and if nothing changed. */
function eventOf({ id, sendTime, message }, userId) {
  const { kind, queuedAt, state, error, ...fields } = message;
  if (id === undefined || kind === "room") return null;
  const event = { id, userId, sendTime, ...fields };
  if (kind !== undefined || fields.room !== undefined) event.kind = kind ?? "message";
  return event;
}

/** True for what a user sent, and is not a recipient of: a copy for the user's devices. */
const isCopy = ({ userId, to, group }, me) => userId === me && to !== me && !group?.includes(me);

/** The event that tells of a numbered frame; null for a kind that is not known. */
function typeOf({ kind, of, room }, features) {
  if (kind === undefined) return "message";
  if (!features.includes("events")) return null;
  if (kind === "message") return kind;
  if (!KINDS.includes(kind) || (kind === "room" ? room : of) === undefined) return null;
  return kind;
}

const SLOT = Symbol("slot"); // among a courier's options: {name, release}

const permanentCode = (code) => code >= 4000 && code <= 4099;
const busyCode = (code) => code >= 4100 && code <= 4199;
const atOnceCode = (code) => code >= 4200 && code <= 4299;

/** The URL with the user in it, for a gateway that leads each user to one node. Nobody believes it. */
function hinted(url, user) {
  const [, query = ""] = /\?(.*)$/.exec(url) ?? [];
  if (!user || query.split("&").some((part) => part.split("=")[0] === "user")) return url;
  try {
    return `${url}${query ? "&" : String(url).endsWith("?") ? "" : "?"}user=${encodeURIComponent(user)}`;
  } catch {
    return url; // a lone surrogate: no node would take this user either
  }
}

/** The user that a token names: `sub` of a JWT, or the visitor of a visitor's token. Nothing is verified. */
function userOfToken(token) {
  const [first, payload, ...rest] = `${token ?? ""}`.split(".");
  if (rest.length === 0 && payload !== undefined && first.startsWith("visitor-")) return first;
  if (rest.length !== 1) return null;
  try {
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" && sub ? sub : null;
  } catch {
    return null;
  }
}

// ---- views

const MOST_UNKNOWN = 1000; // messages that are not there, with changes that wait for them
const MOST_USERS = 20; // that are named beside a reaction's count; oneself always, so that one can take one's own back

/**
 * Messages as they are now, with their edits, recalls and reactions, in whatever order the app hears of them.
 * The edit with the highest id counts, a recall is final, and of a user's equal reactions the last id counts.
 * `me`: oneself, who is then named beside each reaction of one's own, however many others gave it.
 */
export class View {
  #me;
  #records = new Map(); // id → {base, edit, recalled, reactions}
  #unknown = new Set(); // ids without a message, oldest first
  #shown = new WeakMap(); // record → the message as it is shown

  constructor(me) {
    this.#me = me;
  }

  /** In the order of their ids. */
  get messages() {
    const all = [...this.#records.values()].map((record) => this.#show(record)).filter(Boolean);
    return all.sort((one, other) => (one.id < other.id ? -1 : 1));
  }

  get(id) {
    const record = this.#records.get(id);
    return record && this.#show(record);
  }

  add(message) {
    const record = this.#record(message.id);
    this.#unknown.delete(message.id);
    return this.#change(record, () => {
      const { base } = record;
      if (!base) {
        record.base = message;
      } else {
        const newest = (message.edited?.id ?? "") >= (base.edited?.id ?? "") ? message : base;
        const counted = (message.reactionsUpTo ?? "") > (base.reactionsUpTo ?? "") ? message : base;
        record.base = { ...newest, reactions: counted.reactions, reactionsUpTo: counted.reactionsUpTo };
      }
      this.#recall(record, message.recalled);
      const { reactionsUpTo = "" } = record.base;
      for (const [key, { id }] of record.reactions) if (id <= reactionsUpTo) record.reactions.delete(key);
      this.#strip(record);
    });
  }

  apply(event) {
    const { kind, of } = event;
    if (!["edit", "recall", "react"].includes(kind)) return null;
    const record = this.#record(of);
    const changed = this.#change(record, () => {
      if (kind === "recall") this.#recall(record, event.sendTime);
      else if (kind === "edit") record.edit = record.edit && record.edit.id > event.id ? record.edit : event;
      else if (event.id > (record.base?.reactionsUpTo ?? "")) {
        const key = JSON.stringify([event.userId, event.reaction]);
        const last = record.reactions.get(key);
        if (!last || event.id > last.id) record.reactions.set(key, event);
      }
      this.#strip(record);
    });
    return changed ? of : null;
  }

  accepted(detail, userId) {
    const event = eventOf(detail, userId);
    if (event === null) return null;
    if (event.of !== undefined) return this.apply(event);
    return this.add(event) ? event.id : null;
  }

  remove(id) {
    this.#records.delete(id);
    this.#unknown.delete(id);
  }

  #record(id) {
    if (!this.#records.has(id)) {
      this.#records.set(id, { base: null, edit: null, recalled: undefined, reactions: new Map() });
      this.#unknown.add(id);
      if (this.#unknown.size > MOST_UNKNOWN) this.remove(this.#unknown.values().next().value);
    }
    return this.#records.get(id);
  }

  /** True if the message looks different afterwards. */
  #change(record, change) {
    const before = JSON.stringify(this.#show(record));
    change();
    this.#shown.delete(record);
    return record.base !== null && JSON.stringify(this.#show(record)) !== before;
  }

  /** The earliest recall counts. */
  #recall(record, time) {
    if (time != null) record.recalled = Math.min(time, record.recalled ?? time);
  }

  /** After a recall no text is left. */
  #strip(record) {
    if (record.recalled === undefined) return;
    record.edit = null;
    if (record.base) record.base = withoutText(record.base);
  }

  #show(record) {
    const { base, edit, recalled, reactions } = record;
    if (base === null) return undefined;
    if (this.#shown.has(record)) return this.#shown.get(record);
    let shown = base;
    if (recalled !== undefined) {
      const { edited, ...rest } = base;
      shown = { ...rest, recalled };
    } else if (edit && edit.id > (base.edited?.id ?? "")) {
      const { msg, contentType, mentions, data, id, sendTime } = edit;
      shown = withoutUndefined({ ...base, msg, contentType, mentions, data, edited: { id, time: sendTime } });
    }
    if (reactions.size) shown = { ...shown, reactions: counted(base.reactions ?? [], reactions, this.#me) };
    this.#shown.set(record, shown);
    return shown;
  }
}

function withoutText({ contentType, mentions, data, ...rest }) {
  return { ...rest, msg: "" };
}

const withoutUndefined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

/** Reactions with later ones counted in. Of the users that are not named `me` is none. */
function counted(before, later, me) {
  const found = new Map(before.map((each) => [each.reaction, each]));
  for (const { reaction, on, userId } of [...later.values()].sort((one, other) => (one.id < other.id ? -1 : 1))) {
    let { count, users } = found.get(reaction) ?? { count: 0, users: [] };
    const named = users.includes(userId);
    if (on && !named) [count, users] = [count + 1, [...users, userId]];
    else if (!on && (named || (count > users.length && userId !== me))) [count, users] = [count - 1, users.filter((user) => user !== userId)];
    found.set(reaction, { reaction, count, users: namedOf(users, me) });
  }
  return [...found.values()].filter(({ count }) => count > 0);
}

/** The first users, and oneself. */
function namedOf(users, me) {
  const first = users.slice(0, MOST_USERS);
  return users.indexOf(me) >= MOST_USERS ? [...first.slice(0, -1), me] : first;
}

/** One's own rooms, from their list and their events. Versions that are known are dropped. */
export class RoomsView {
  #me;
  #rooms = new Map();
  #versions = new Map(); // also of rooms that one has left

  constructor(me) {
    this.#me = me;
  }

  /** In the order of their ids. */
  get all() {
    return [...this.#rooms.values()].sort((one, other) => (one.room < other.room ? -1 : 1));
  }

  get(room) {
    return this.#rooms.get(room);
  }

  /** A room that is closed stays so. */
  put({ rooms }) {
    for (const room of rooms) {
      if (room.version < (this.#versions.get(room.room) ?? 0)) continue;
      this.#rooms.set(room.room, this.#rooms.get(room.room)?.closed ? { ...room, closed: true } : room);
      this.#versions.set(room.room, room.version);
    }
  }

  /** A room's action of this device. Where users were passed over, the count is a guess until `put`. */
  accepted({ changed, room, version, message }) {
    const { kind, action, users = [], name, posting, history, joining, data } = message;
    if (kind !== "room" || !changed) return false;
    const before = this.#rooms.get(room)?.count ?? 0;
    const count = { create: 1 + users.length, add: before + users.length, remove: before - users.length, join: before + 1 }[action];
    const concerned = action === "leave" || action === "join" ? [{ userId: this.#me, role: "member" }] : users;
    return this.apply({ room, version, action, userId: this.#me, users: concerned, count, name, posting, history, joining, data });
  }

  apply({ room, version, action, userId, users = [], count, name, posting, history, joining, data }) {
    if (version <= (this.#versions.get(room) ?? 0)) return false;
    this.#versions.set(room, version);
    const mine = users.find((user) => user.userId === this.#me);
    if ((action === "leave" || action === "remove") && mine) {
      this.#rooms.delete(room);
      return true;
    }
    const unknown = { room, name: "", role: "member", count: 0, posting: "all", history: "joined", joining: "invite" };
    const changed = { version, ...withoutUndefined({ count, name, posting, history, joining, data }) };
    if (mine?.role && action !== "set") changed.role = mine.role;
    if (action === "create" && userId === this.#me) changed.role = "owner";
    if (action === "close") changed.closed = true;
    this.#rooms.set(room, { ...unknown, ...this.#rooms.get(room), ...changed });
    return true;
  }
}

// ---- conversations: marks and settings

const NO_STATE = "this client does not ask for the feature `state`";
const READ_MS = SECOND; // between two frames with marks
const STATE_ANSWER_MS = 30 * SECOND;
const STATE_SAVE_MS = SECOND;
const MOST_MARKS = 200; // in one frame
const MOST_WISHES = 1000; // conversations with something to confirm
const MOST_WATCHED = 200;
const TYPING_PACE_MS = 2 * SECOND;
const TYPING_MS = 6 * SECOND; // after so long without another one, somebody has stopped
const MOST_KEPT = 64; // conversations whose last `typing` is known; signals that an error may still name
const USER = "user"; // the key of settings that belong to no conversation
const STATE = { read: "", mark: "", peerRead: "", muted: false, pinned: false, hidden: "", cleared: "", marked: false };
const LIVE = ["state", "presence", "typing", "signal"];

const isMessageId = (value) => typeof value === "string" && /^[0-9a-f]{28}$/.test(value);
const isVisitorId = (user) => `${user ?? ""}`.startsWith("visitor-");
const later = (one, other) => ((one ?? "") > (other ?? "") ? one : other) ?? "";

/** Before a frame that was unavailable is sent again, more and more rarely. */
const pauseMs = (pauses, retryAfterMs) =>
  Math.max(Number(retryAfterMs) || 0, Math.random() * Math.min(LONGEST_HOLD_MS, (SECOND / 2) * 2 ** Math.min(pauses, 10)));

/** A conversation's name: a list is sorted and without doubles; one of a single other is a pair. A visitor has one, without a name. */
function nameOf({ with: other, group, room }, me) {
  if (room) return { room };
  if (!group?.length) return other ? { with: other } : {};
  const others = [...new Set(group)].filter((user) => user !== me).sort(byCodePoints);
  return others.length > 1 ? { group: others } : { with: others[0] ?? me };
}

const keyOf = ({ with: other, group, room }) =>
  room ? `room ${room}` : other ? `with ${other}` : ["group", ...(group ?? []).map((user) => `${user.length}:${user}`)].join(" ");

const nameOnly = ({ with: other, group, room }) => withoutUndefined({ with: other || undefined, group: group?.length ? [...group] : undefined, room: room || undefined });

/** The conversation of a message, from the side of the user `me`. */
function nameOfMessage({ userId, to, group, room }, me) {
  if (group?.length) return nameOf({ group: [userId, ...group] }, me);
  return nameOf({ with: userId === me ? to : userId, room }, me);
}

/** Marks that the node has told never fall: also the other's is the highest that was seen. */
const mergedState = (old, found) => ({
  ...found,
  read: later(old?.read, found.read),
  peerRead: later(old?.peerRead, found.peerRead),
  cleared: later(old?.cleared, found.cleared),
});

/**
 * Marks and settings of the user's conversations, kept in step with the node. One counts at once for the app, is kept as the
 * latest of its conversation, and is sent until the node has confirmed or refused it. One such frame is unanswered at a time, so
 * they arrive in order. `link` is the client's side: timers, emit, write, wait, isOpen, has, me, settled.
 */
class States {
  version = null;
  #link;
  #slot = null;
  #receipts = true;
  #known = new Map(); // key → conversation, confirmed
  #own = new Map(); // key → the newest message of one's own
  #wishes = new Map(); // key → {name, read, fields}: what is not confirmed
  #sent = null; // {frame, parts: [[key, read, fields]]}
  #pausedUntil = 0;
  #pauses = 0; // in succession
  #readAt = -Infinity; // no marks before this time
  #alone = new Set(); // keys whose mark was refused together with others
  #refused = new Map(); // key → the mark that was refused last on this connection: a page marks what it shows, again and again
  #dirty = false;

  constructor(link) {
    this.#link = link;
  }

  // -- the slot

  attach(slot) {
    const early = [...this.#wishes];
    const { version, receipts, conversations, wishes } = slot.readState();
    this.#slot = slot;
    this.version = version ?? null;
    this.#receipts = receipts ?? true;
    this.#known = new Map((conversations ?? []).map((each) => [keyOf(each), each]));
    this.#wishes = new Map(wishes ?? []);
    for (const [key, { name, read, fields }] of early) {
      const wish = this.#wish(key, name);
      if (read) Object.assign(wish, { read: later(wish.read, read), fields: withoutMarked(wish.fields) });
      Object.assign(wish.fields, fields);
    }
    if (early.length) this.#keep();
  }

  /** Another client may have the slot from now on. */
  detach() {
    this.save();
    this.lost();
    this.#slot = null;
    this.#wishes.clear();
  }

  save() {
    this.#link.timers.cancel("save state");
    if (!this.#dirty || !this.#slot) return;
    this.#dirty = false;
    this.#slot.writeState({ version: this.version, receipts: this.#receipts, conversations: [...this.#known.values()] });
  }

  // -- for the app

  get receipts() {
    return this.#wishes.get(USER)?.fields.receipts ?? this.#receipts;
  }

  get all() {
    const names = new Map([...this.#wishes].filter(([key]) => key !== USER).map(([key, { name }]) => [key, name]));
    for (const [key, known] of this.#known) names.set(key, known);
    return [...names.values()].map((name) => this.shown(name));
  }

  get isIdle() {
    return this.#wishes.size === 0;
  }

  /** A conversation as the app sees it: with what is not confirmed yet. */
  shown(name) {
    const key = keyOf(name);
    const shown = { ...nameOnly(name), ...STATE, ...this.#known.get(key) };
    const { read, fields = {} } = this.#wishes.get(key) ?? {};
    if (read) Object.assign(shown, { read: later(shown.read, read), marked: false });
    Object.assign(shown, fields, { hidden: fields.hidden === undefined ? shown.hidden : (fields.hidden ?? "") });
    if (fields.cleared) shown.cleared = later(this.#known.get(key)?.cleared, fields.cleared);
    shown.mark = later(shown.read, this.#own.get(key));
    return shown;
  }

  read(name, upTo) {
    if (!isMessageId(upTo)) no("upTo: the id of a message");
    const shown = this.shown(name);
    if ((upTo <= shown.read && !shown.marked) || this.#refused.get(keyOf(name)) === upTo) return;
    const wish = this.#wish(keyOf(name), name);
    wish.read = later(wish.read, upTo);
    wish.fields = withoutMarked(wish.fields);
    this.#keep();
    this.#tell([name], [shown]);
    this.flush();
  }

  set(name, fields) {
    for (const key of ["hidden", "cleared"]) if (fields[key] && !isMessageId(fields[key])) no(`${key}: the id of a message`);
    if (Object.keys(fields).length === 0) no("nothing to set");
    checkTexts(fields);
    const shown = this.shown(name);
    Object.assign(this.#wish(keyOf(name), name).fields, fields);
    this.#keep();
    this.#tell([name], [shown]);
    this.flush();
  }

  setReceipts(receipts) {
    const changed = receipts !== this.receipts;
    this.#wish(USER, {}).fields.receipts = receipts;
    this.#keep();
    this.#tell([], [], false, changed);
    this.flush();
  }

  // -- for the client

  lost() {
    this.#sent = null;
    this.#pausedUntil = 0;
    this.#refused.clear();
  }

  /** Another user. */
  forget() {
    this.version = null;
    this.#receipts = true;
    for (const map of [this.#known, this.#own, this.#wishes, this.#alone]) map.clear();
    this.#sent = null;
    this.#dirty = false;
    this.#slot?.writeState(null);
    this.#slot?.writeWishes([]);
  }

  /** The user has written a message, here or elsewhere. */
  wrote(name, id) {
    this.#own.set(keyOf(name), later(this.#own.get(keyOf(name)), id));
  }

  /** True for a message that was cleared away. */
  hides(name, id) {
    return id <= this.shown(name).cleared;
  }

  /** A frame `state`: an answer, or a change. */
  got({ ref, version, all = false, conversations, user }) {
    const found = conversations.map((each) => ({ ...nameOnly(each), ...each }));
    const names = all ? [...this.#known.values(), ...found] : found;
    const before = names.map((name) => this.shown(name));
    const { receipts } = this;
    if (all || this.version === null || version >= this.version) {
      if (all) this.#known.clear();
      // Without a version, an answer alone does not say which changes came before it.
      if (all || this.version !== null) this.version = version;
      if (user) this.#receipts = Boolean(user.receipts);
      for (const each of found) this.#known.set(keyOf(each), mergedState(this.#known.get(keyOf(each)), each));
      this.#dirty = true;
      const { timers } = this.#link;
      if (!timers.has("save state")) timers.set("save state", STATE_SAVE_MS, () => this.save());
    }
    const answered = ref !== undefined && this.#sent?.frame.ref === ref;
    if (answered) this.#settle();
    this.#tell(names, before, all, receipts !== this.receipts);
    if (answered) this.flush();
  }

  /** False if the error answers another frame. */
  refused({ ref, code, reason, temporary, retryAfterMs }) {
    if (this.#sent?.frame.ref !== ref) return false;
    const { frame, parts } = this.#sent;
    if (temporary) {
      this.#sent = null;
      this.#pausedUntil = clock() + pauseMs(this.#pauses++, retryAfterMs);
    } else if (parts.length > 1) {
      // One of the marks is refused, and the others with it.
      parts.forEach(([key]) => this.#alone.add(key));
      this.#sent = null;
      this.#readAt = -Infinity;
    } else {
      const [[key, read]] = parts;
      if (read) this.#refused.set(key, read);
      const names = key === USER ? [] : [this.#wishes.get(key)?.name].filter(Boolean);
      const before = names.map((name) => this.shown(name));
      this.#settle();
      this.#link.emit("refused", { code, reason, frame });
      this.#tell(names, before, false, key === USER);
    }
    this.flush();
    return true;
  }

  /** Send what may be sent now. */
  flush() {
    const { isOpen, timers } = this.#link;
    if (!isOpen || !this.#link.has("state") || this.#sent || this.isIdle) return;
    const keys = [...this.#wishes.keys()];
    const marks = keys.filter((key) => this.#wishes.get(key).read);
    const [setting] = keys.filter((key) => Object.keys(this.#wishes.get(key).fields).length);
    // A setting waits for the marks before it: they would end `marked`.
    const alone = marks.find((key) => this.#alone.has(key));
    const now = alone === undefined ? marks.slice(0, MOST_MARKS) : [alone];
    let wait = this.#pausedUntil - clock();
    if (marks.length && setting === undefined) wait = Math.max(wait, this.#readAt - clock());
    if (wait <= 0) wait = this.#link.wait(marks.length ? 1 + now.length / 10 : 1);
    if (wait > 0) return timers.set("state", wait, () => this.flush());
    if (marks.length) return this.#sendMarks(now);
    const { name, fields } = this.#wishes.get(setting);
    this.#send({ type: "settings", ...nameOnly(name), ...fields }, [[setting, "", { ...fields }]]);
  }

  #sendMarks(keys) {
    const marks = keys.map((key) => ({ ...nameOnly(this.#wishes.get(key).name), upTo: this.#wishes.get(key).read }));
    this.#readAt = clock() + READ_MS;
    const parts = keys.map((key) => [key, this.#wishes.get(key).read, {}]);
    this.#send(marks.length === 1 ? { type: "read", ...marks[0] } : { type: "read", marks }, parts);
  }

  #send({ type, ...fields }, parts) {
    const frame = { type, ref: this.#link.ref(), ...fields };
    this.#sent = { frame, parts };
    this.#link.timers.set("state", STATE_ANSWER_MS, () => {
      this.#sent = null;
      this.flush();
    });
    this.#link.write(frame);
  }

  /** The frame has its answer: its content is no wish any more. A later wish stays. */
  #settle() {
    for (const [key, read, fields] of this.#sent.parts) {
      this.#alone.delete(key);
      const wish = this.#wishes.get(key);
      if (!wish) continue;
      if (wish.read === read) wish.read = "";
      for (const [name, value] of Object.entries(fields)) if (wish.fields[name] === value) delete wish.fields[name];
      if (!wish.read && Object.keys(wish.fields).length === 0) this.#wishes.delete(key);
    }
    this.#sent = null;
    this.#pauses = 0;
    this.#link.timers.cancel("state");
    this.#keep();
    this.#link.settled();
  }

  /** Tell the app of conversations that look different. `changed`: so do the user's own settings. */
  #tell(names, before, all = false, changed = false) {
    const different = new Map();
    names.forEach((name, i) => {
      const shown = this.shown(name);
      if (JSON.stringify(shown) !== JSON.stringify(before[i])) different.set(keyOf(name), shown);
    });
    if (!different.size && !all && !changed) return;
    const conversations = [...different.keys()].sort(byCodePoints).map((key) => different.get(key));
    this.#link.emit("conversations", { conversations, all, receipts: this.receipts });
  }

  #wish(key, name) {
    if (!this.#wishes.has(key)) {
      if (this.#wishes.size >= MOST_WISHES) this.#wishes.delete(this.#wishes.keys().next().value);
      this.#wishes.set(key, { name: nameOnly(name), read: "", fields: {} });
    }
    return this.#wishes.get(key);
  }

  #keep() {
    this.#slot?.writeWishes([...this.#wishes]);
  }
}

const withoutMarked = ({ marked, ...fields }) => fields;

// ---- live: presence, typing, signals

/** The users whose presence the app wants to know: the list is sent again on each connection. */
class Watching {
  present = new Map(); // user → online; empty while it is unknown
  #link;
  #wanted = [];
  #told = "[]"; // the list that the node has
  #frame = null; // without an answer
  #pauses = 0; // in succession

  constructor(link) {
    this.#link = link;
  }

  watch(users) {
    const wanted = [...new Set(users)];
    if (!wanted.every(isText)) no("users: ids");
    if (wanted.length > MOST_WATCHED) no(`at most ${MOST_WATCHED} users can be watched`);
    this.#wanted = wanted;
    for (const user of this.present.keys()) if (!wanted.includes(user)) this.present.delete(user);
    this.flush();
  }

  flush() {
    const { isOpen, knowsEvents, timers } = this.#link;
    const wanted = JSON.stringify(this.#wanted);
    if (!isOpen || !knowsEvents || this.#frame || wanted === this.#told || timers.has("watch")) return;
    const wait = this.#link.wait(1);
    if (wait > 0) return timers.set("watch", wait, () => this.flush());
    this.#told = wanted;
    this.#frame = { type: "watch", ref: this.#link.ref(), users: this.#wanted };
    timers.set("watch", STATE_ANSWER_MS, () => {
      this.#told = "[]";
      this.#frame = null;
      this.flush();
    });
    this.#link.write(this.#frame);
  }

  got({ ref, users }) {
    const found = users.filter(({ userId }) => this.#wanted.includes(userId));
    const all = ref !== undefined && this.#frame?.ref === ref;
    if (all) {
      this.#frame = null;
      this.#pauses = 0;
      this.#link.timers.cancel("watch");
      this.present.clear();
    }
    found.forEach(({ userId, online }) => this.present.set(userId, Boolean(online)));
    const told = Object.fromEntries(found.map(({ userId, online }) => [userId, Boolean(online)]));
    if (found.length || all) this.#link.emit("presence", { users: told, all });
    this.flush();
  }

  /** False if the error answers another frame. */
  refused({ ref, code, reason, temporary, retryAfterMs }) {
    if (this.#frame?.ref !== ref) return false;
    const frame = this.#frame;
    this.#frame = null;
    if (temporary) {
      this.#told = "[]";
      this.#link.timers.set("watch", pauseMs(this.#pauses++, retryAfterMs), () => this.flush());
    } else {
      this.#link.timers.cancel("watch");
      if (JSON.stringify(this.#wanted) === this.#told) this.#wanted = [];
      this.#told = "[]";
      this.#link.emit("refused", { code, reason, frame });
      this.flush();
    }
    return true;
  }

  /** The connection is gone: nobody's presence is known any more. */
  lost() {
    this.#told = "[]";
    this.#frame = null;
    this.present = new Map();
  }

  forget() {
    this.#wanted = [];
  }
}

/** The user is writing, and others are. */
class TypingHints {
  #link;
  #said = new Map(); // key → the time of the last `typing`, oldest first
  #heard = new Map(); // user and key → {until, detail}

  constructor(link) {
    this.#link = link;
  }

  say(name) {
    const key = keyOf(name);
    const now = clock();
    if (!this.#link.isOpen || !this.#link.has("state") || now - (this.#said.get(key) ?? -Infinity) < TYPING_PACE_MS) return;
    if (this.#link.wait(0.1) > 0) return;
    this.#said.delete(key);
    this.#said.set(key, now);
    if (this.#said.size > MOST_KEPT) this.#said.delete(this.#said.keys().next().value);
    this.#link.write({ type: "typing", ...nameOnly(name) });
  }

  got({ userId, ...name }) {
    const key = JSON.stringify([userId, keyOf(name)]);
    const detail = { userId, ...nameOnly(name) };
    const isNew = !this.#heard.has(key);
    this.#heard.set(key, { until: clock() + TYPING_MS, detail });
    this.#plan();
    if (isNew) this.#link.emit("typing", { ...detail, on: true });
  }

  /** A message has come: its sender has stopped for now. */
  wrote(userId, name) {
    this.#end([JSON.stringify([userId, keyOf(name)])]);
  }

  /** The user has sent a message: the next `typing` is news. */
  sent(name) {
    this.#said.delete(keyOf(name));
  }

  lost() {
    this.#end([...this.#heard.keys()]);
    this.#said.clear();
  }

  #end(keys) {
    for (const key of keys) {
      const heard = this.#heard.get(key);
      this.#heard.delete(key);
      if (heard) this.#link.emit("typing", { ...heard.detail, on: false });
    }
  }

  #plan() {
    if (!this.#heard.size) return;
    const first = Math.min(...[...this.#heard.values()].map(({ until }) => until));
    this.#link.timers.set("typing", first - clock(), () => {
      this.#end([...this.#heard].filter(([, { until }]) => until <= clock()).map(([key]) => key));
      this.#plan();
    });
  }
}

/** The app's own signals, which nobody stores. */
class Signals {
  #link;
  #sent = new Map(); // ref → frame, the last ones: only an error answers one

  constructor(link) {
    this.#link = link;
  }

  send(name, { name: called, data }) {
    if (!isText(called) || [...called].length > 64) no("name: 1 to 64 characters");
    const copy = data == null ? data : dataOf(data, this.#link.dataBytes);
    if (!this.#link.isOpen || !this.#link.has("state")) return false;
    const frame = { type: "signal", ref: this.#link.ref(), ...nameOnly(name), name: called };
    if (copy != null) frame.data = copy;
    this.#sent.set(frame.ref, frame);
    if (this.#sent.size > MOST_KEPT) this.#sent.delete(this.#sent.keys().next().value);
    this.#link.wait(1);
    this.#link.write(frame);
    return true;
  }

  got({ type, ...detail }) {
    this.#link.emit("signal", detail);
  }

  /** False if the error answers another frame. */
  refused({ ref, code, reason }) {
    const frame = this.#sent.get(ref);
    this.#sent.delete(ref);
    if (frame) this.#link.emit("refused", { code, reason, frame });
    return frame !== undefined;
  }

  lost() {
    this.#sent.clear();
  }
}

const MOST_UNREAD = 100; // 100 or more

/**
 * One's own conversations, newest first, out of pages of the list and of what comes later. Nothing counts twice: each message is
 * known by its id, and only those above the last one of the page are added to its count.
 */
export class ConversationsView {
  #me;
  #records = new Map(); // key → record
  #messages; // the last one of each conversation

  constructor(me) {
    this.#me = me;
    this.#messages = new View(me);
  }

  /** Without hidden ones, newest first. */
  get all() {
    return this.#listed.sort((one, other) => (one.at > other.at ? -1 : 1)).map((record) => this.#shown(record));
  }

  get incomplete() {
    return this.#listed.some(({ counted }) => counted === null);
  }

  get unread() {
    const isMuted = ({ muted }) => (typeof muted === "number" ? muted > Date.now() : muted);
    return this.#listed.filter(({ state }) => !isMuted(state)).reduce((sum, record) => sum + this.#unread(record), 0);
  }

  get(name) {
    const record = this.#records.get(keyOf(nameOf(name, this.#me)));
    return record && this.#isListed(record) ? this.#shown(record) : undefined;
  }

  put({ conversations }) {
    for (const { at, last, unread = 0, name, version = 0, ...rest } of conversations) {
      const record = this.#record(rest);
      const upTo = last?.id ?? at;
      if (upTo >= record.upTo) {
        Object.assign(record, { counted: unread, upTo });
        for (const id of record.later) if (id <= upTo) record.later.delete(id);
      }
      record.at = later(record.at, at);
      if (version >= record.version) Object.assign(record, { version, name: name ?? record.name });
      const { read, peerRead, muted = false, pinned = false, marked = false } = rest;
      const { state } = record;
      Object.assign(state, { muted, pinned, marked, read: later(state.read, read), mark: later(state.mark, read), peerRead: later(state.peerRead, peerRead) });
      if (last) this.#showLast(record, last);
    }
  }

  add(message) {
    const name = nameOfMessage(message, this.#me);
    if (isVisitorId(name.with)) return false;
    const record = this.#record(name);
    const { id, userId } = message;
    if (id <= record.state.cleared) return false;
    const known = id <= record.upTo || record.later.has(id);
    if (userId === this.#me) {
      record.state.mark = later(record.state.mark, id);
      this.#prune(record);
    } else if (!known && id > record.state.mark) {
      record.later.add(id);
    }
    const newest = id > record.last;
    record.at = later(record.at, id);
    this.#showLast(record, message);
    return newest || !known;
  }

  apply(event) {
    if (event.kind !== "room") return this.#messages.apply(event) !== null;
    const { room, action, users = [], name, version, id, history } = event;
    const mine = users.some(({ userId }) => userId === this.#me);
    if ((action === "leave" || action === "remove") && mine) return this.#left(room);
    const isEmpty = action === "create" || history === "joined";
    if (action === "create" || ((action === "add" || action === "join") && mine)) return this.#came(room, id, name, version, isEmpty);
    return this.#renamed(room, name, version);
  }

  accepted(detail) {
    const { id, room, version, message } = detail;
    const event = eventOf(detail, this.#me);
    if (event !== null) return event.of !== undefined ? this.apply(event) : this.add(event);
    if (message.kind !== "room" || id === undefined) return false;
    if (["create", "join"].includes(message.action)) return this.#came(room, id, message.name, version, message.action === "create");
    if (message.action === "leave") return this.#left(room);
    return this.#renamed(room, message.name, version);
  }

  changed({ conversations, all }) {
    if (all) for (const { state } of this.#records.values()) Object.assign(state, { muted: false, pinned: false });
    for (const { with: other, group, room, ...found } of conversations) {
      const record = this.#record({ with: other, group, room });
      for (const key of ["read", "mark", "peerRead", "cleared"]) found[key] = later(record.state[key], found[key]);
      Object.assign(record.state, found);
      this.#prune(record);
    }
  }

  get #listed() {
    return [...this.#records.values()].filter((record) => this.#isListed(record));
  }

  #isListed({ at, state }) {
    return at !== "" && at > state.hidden;
  }

  #unread({ upTo, counted, later: more, state }) {
    const mark = later(state.mark, state.cleared);
    const before = mark >= upTo ? 0 : (counted ?? 0);
    return Math.min(MOST_UNREAD, before + [...more].filter((id) => id > mark).length);
  }

  #shown(record) {
    const { about, at, name, version, last, state } = record;
    const shown = { ...about, ...state, at, unread: this.#unread(record) };
    if (last > state.cleared) shown.last = this.#messages.get(last);
    if (about.room) Object.assign(shown, { name, version });
    return shown;
  }

  /** `counted`: unread ones up to `upTo`, as the node counted them; null: it was not asked. `later`: ids of others' messages above it. */
  #record(name) {
    const about = nameOf(name, this.#me);
    const key = keyOf(about);
    if (!this.#records.has(key)) {
      this.#records.set(key, { about, state: { ...STATE }, at: "", name: "", version: 0, counted: null, upTo: "", last: "", later: new Set() });
    }
    return this.#records.get(key);
  }

  #showLast(record, message) {
    if (message.id < record.last) return;
    if (record.last !== "" && record.last !== message.id) this.#messages.remove(record.last);
    record.last = message.id;
    this.#messages.add(message);
  }

  #prune({ state, later: ids }) {
    for (const id of ids) if (id <= state.mark) ids.delete(id);
  }

  /** `isEmpty`: the user can read nothing from before, so there is nothing to ask the node. */
  #came(room, id, name, version, isEmpty) {
    const record = this.#record({ room });
    if (version < record.version) return false;
    if (record.at === "") {
      record.at = id;
      if (isEmpty) Object.assign(record, { counted: record.counted ?? 0, upTo: later(record.upTo, id) });
    }
    this.#renamed(room, name, version);
    return true;
  }

  #left(room) {
    const record = this.#records.get(keyOf({ room }));
    if (record?.last) this.#messages.remove(record.last);
    return this.#records.delete(keyOf({ room }));
  }

  #renamed(room, name, version) {
    const record = this.#records.get(keyOf({ room }));
    if (!record || version < record.version) return false;
    const before = record.name;
    Object.assign(record, { version, name: name ?? before });
    return record.name !== before;
  }
}

// ---- the client

/** imd.d.ts documents events, options and methods. */
export class Client extends EventTarget {
  #options;
  #storage;
  #store;
  #locks;
  #base;
  #timers = new Timers();
  #state = "idle";
  #running = false;
  #stopping = null;
  #turn = 0; // rises with each attempt and stop; after an `await`, another turn means: give up
  #storageFailed = false;
  #unlisten = [];

  #slot = null;
  #release = null;
  #early = []; // entries that were sent before a slot was found
  #shelf = []; // a copy of the outbox for a stopped client

  #ws = null;
  #connected = null; // the frame `connected`, while connected
  #userId;
  #limits = null;
  #features = null; // null before the first `connected`
  #heardAt = 0;
  #pingMs = 25 * SECOND;
  #serverAhead = 0; // the node's time minus clock()
  #triedAt = 0; // the beginning of this attempt
  #openedAt = 0;
  #failures = 0;
  #hasty = 0; // returns at once, since a connection lasted
  #leavingMs = null;
  #refusal = null; // an error before `connected`
  #asNewVisitor = false; // the stored token was refused
  #token = null; // the token of this connection or attempt
  #exp = 0;
  #offered = null; // a newer token, until the node answers
  #refusedTokens = new Set(); // since the last `connected`
  #refusedWhy = "";
  #asks = 0;
  #mayHurry = true;

  #era = {}; // replaced at each break in the numbers, so that late calls are recognised
  #received = 0; // last number given to the app
  #linkSeq = 0; // last number on this connection
  #acked = 0;
  #savedSeq = 0;
  #hole = null; // the number before the last hole, in this epoch
  #returned = null; // collects the promises of one message's listeners
  #chain = Promise.resolve();
  #pending = 0;

  #pace = new Pace(0);
  #inFlight = 0;
  #pausedUntil = 0;
  #pauses = 0;
  #unread = new Set(); // entries that the node may not have been able to read
  #unreadFrames = 0; // frames that it could not read, without saying which
  #requests = new Map(); // ref → request
  #refs = 0;
  #courier = null;
  #gone = new Set(); // ids of messages that were recalled, oldest first
  #answers = new WeakMap(); // entry → the detail of its `accepted`
  #waiters = new Map(); // clientMsgId → functions that settle promises of `accepted`
  #reading = null; // replaced at each reading of what left the inbox unseen
  #newer = null; // a newer `complete`, and the node's time when it was told
  #settled = () => {}; // for a courier: something was confirmed or refused

  #link = this.#linkOf();
  #states = new States(this.#link);
  #watching = new Watching(this.#link);
  #typing = new TypingHints(this.#link);
  #signals = new Signals(this.#link);

  constructor(options) {
    super();
    this.#options = {
      storageKey: "imd",
      pongSeconds: PONG_MS / SECOND,
      connectSeconds: CONNECT_MS / SECOND,
      historySeconds: HISTORY_MS / SECOND,
      minBackoffMs: SECOND,
      maxBackoffMs: 30 * SECOND,
      maxOutbox: 1000,
      maxInFlight: 16,
      ordered: true,
      dedupSeconds: 3600,
      features: FEATURES,
      ...options,
    };
    const { storage, storageKey, userId, isVisitor } = this.#options;
    this.#storage = storage === undefined ? defaultStorage() : (storage ?? new MemoryStorage());
    this.#store = new Store(this.#storage, (error) => this.#storageError(error));
    this.#locks = locksOf(this.#storage, this.#store);
    this.#base = `${storageKey}:${userId != null ? "u" + encodeURIComponent(userId) : isVisitor ? "visitor" : "token"}`;
    this.#userId = userId ?? null;
  }

  // -- for apps

  get state() {
    return this.#state;
  }

  get userId() {
    return this.#userId;
  }

  get device() {
    return this.#slot?.name ?? this.#options.device ?? "";
  }

  get limits() {
    return this.#limits;
  }

  get features() {
    return this.#features ?? [];
  }

  get outbox() {
    const stored = this.#slot ? [...this.#slot.items.values()].map((item) => item.entry) : this.#shelf;
    return [...stored, ...this.#early];
  }

  on(type, listener) {
    const heard = (event) => {
      const result = listener(event.detail);
      if (typeof result?.then === "function") this.#returned?.push(result);
    };
    this.addEventListener(type, heard);
    return () => this.removeEventListener(type, heard);
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#turn++;
    this.#failures = this.#hasty = 0;
    this.#refusedTokens.clear();
    this.#asNewVisitor = false;
    this.#mayHurry = true;
    if (!this.#stopping) this.#setState("connecting");
    this.#begin(this.#turn);
  }

  stop() {
    if (this.#stopping) {
      // Cancel a `start` that waits for the end of this stop.
      this.#running = false;
      this.#turn++;
    }
    this.#stopping ??= this.#stop().finally(() => (this.#stopping = null));
    return this.#stopping;
  }

  send(what) {
    return this.#post(checked(what, this.#dataBytes));
  }

  edit(message, what) {
    return this.#post({ kind: "edit", of: idOf(message), ...content(what, this.#dataBytes) });
  }

  recall(message) {
    return this.#post({ kind: "recall", of: idOf(message) });
  }

  react(message, reaction, on = true) {
    if (!isText(reaction)) no("reaction: a text");
    return this.#post({ kind: "react", of: idOf(message), reaction, on: Boolean(on) });
  }

  accepted(entry) {
    return new Promise((resolve, reject) => {
      const { clientMsgId, state, error } = entry;
      if (state === "accepted") return resolve(this.#answers.get(entry));
      if (state === "failed") return reject(new ImdError(error.code, error.reason));
      if (!this.#running) return reject(new ImdError("stopped", "the client is not started"));
      if (!this.#waiters.has(clientMsgId)) this.#waiters.set(clientMsgId, []);
      this.#waiters.get(clientMsgId).push({ resolve, reject });
    });
  }

  #post(what) {
    const entry = { clientMsgId: uuid(), ...what, queuedAt: Date.now(), state: "waiting" };
    if (needsEvents(entry) && !this.#knowsEvents) throw new ImdError("unsupported", NO_EVENTS);
    if ((this.#slot?.items.size ?? 0) + this.#early.length >= this.#options.maxOutbox) {
      throw new ImdError("outbox_full", `${this.#options.maxOutbox} messages are in the outbox`);
    }
    if (this.#slot) this.#slot.add(entry);
    else this.#early.push(entry);
    this.#emit("outbox", {});
    this.#pump();
    return entry;
  }

  /** False if the cluster is known not to take edits, rooms and so on. */
  get #knowsEvents() {
    return this.#features === null || this.#features.includes("events") || this.#limits?.dataBytes !== undefined;
  }

  /** undefined: no node has told it yet. */
  get #dataBytes() {
    return this.#limits?.dataBytes;
  }

  get #hasEvents() {
    return this.#features?.includes("events") ?? false;
  }

  cancel(clientMsgId) {
    const early = this.#early.findIndex((entry) => entry.clientMsgId === clientMsgId);
    const item = this.#slot?.items.get(clientMsgId);
    if (early >= 0) this.#early.splice(early, 1);
    else if (item && (item.entry.state === "failed" || item.since === null)) this.#slot.remove(item);
    else return false;
    this.#emit("outbox", {});
    return true;
  }

  retry(clientMsgId) {
    const item = this.#slot?.items.get(clientMsgId);
    if (item?.entry.state !== "failed") return false;
    this.#slot.remove(item);
    delete item.entry.error;
    item.entry.state = "waiting";
    this.#slot.add(item.entry);
    this.#emit("outbox", {});
    this.#pump();
    return true;
  }

  history(what) {
    return this.#ask("history", what).then(({ messages, more, moreAfter, rooms }) =>
      withoutUndefined({ messages, more: Boolean(more), moreAfter, rooms }),
    );
  }

  messages(ids) {
    return this.#ask("messages", { ids }).then(({ messages }) => messages);
  }

  changes(what) {
    return this.#ask("changes", what).then(({ events, more, complete }) => ({ events, more: Boolean(more), complete }));
  }

  // -- state of conversations, and what is told live

  get receipts() {
    return this.#states.receipts;
  }

  get knownConversations() {
    return this.#states.all;
  }

  get present() {
    return this.#watching.present;
  }

  conversation(what) {
    return this.#states.shown(this.#named(what));
  }

  read({ upTo, ...what }) {
    this.#needsState();
    this.#states.read(this.#named(what), upTo);
  }

  settings({ muted, pinned, hidden, cleared, marked, receipts, ...what }) {
    this.#needsState();
    const fields = withoutUndefined({ muted: muted ?? undefined, pinned: pinned ?? undefined, hidden, cleared: cleared ?? undefined, marked: marked ?? undefined });
    if (hidden === "") fields.hidden = null;
    if (receipts == null) return this.#states.set(this.#named(what), fields);
    if (Object.keys({ ...fields, ...what }).length) no("receipts: no conversation, and nothing else");
    this.#states.setReceipts(Boolean(receipts));
  }

  conversations({ limit, before, pinned } = {}) {
    const what = withoutUndefined({ limit, before: before ?? undefined, pinned: pinned || undefined });
    return this.#ask("conversations", what).then(({ conversations, more }) => ({ conversations, more: Boolean(more) }));
  }

  watch(users) {
    this.#needsState();
    this.#watching.watch(users);
  }

  typing(what) {
    this.#needsState();
    this.#typing.say(this.#named(what));
  }

  signal({ name, data, ...what }) {
    this.#needsState();
    return this.#signals.send(this.#named(what), { name, data });
  }

  block(userId, on = true) {
    return this.#ask("block", { userId, on }).then(() => undefined);
  }

  blocked() {
    return this.#ask("blocked", {}).then(({ users }) => users);
  }

  #needsState() {
    if (!this.#options.features?.includes("state")) throw new ImdError("unsupported", NO_STATE);
  }

  /** The conversation that the app names. Throws `invalid_message` unless exactly one is given. */
  #named({ with: other, group, room } = {}) {
    if (this.#options.isVisitor) return {};
    if ([other, group?.length, room].filter(Boolean).length !== 1) no("one of with, group and room");
    if (![other, room, ...(group ?? [])].every((name) => name == null || isText(name))) no("with, group, room: names");
    return nameOf({ with: other, group, room }, this.#userId);
  }

  /** The client as its parts see it. */
  #linkOf() {
    const client = this;
    return {
      timers: this.#timers,
      emit: (type, detail) => this.#emit(type, detail),
      write: (frame) => this.#write(frame),
      ref: () => `s${++this.#refs}`,
      has: (feature) => this.features.includes(feature),
      settled: () => this.#settled(),
      /** Milliseconds until a frame of that cost may be sent; 0: now, and its cost is taken. */
      wait: (cost) => {
        const ms = this.#pace.wait(cost);
        if (ms === 0) this.#pace.take(cost);
        return ms;
      },
      get isOpen() {
        return client.#connected !== null && client.#leavingMs === null;
      },
      get knowsEvents() {
        return client.#knowsEvents;
      },
      get dataBytes() {
        return client.#dataBytes;
      },
    };
  }

  /** A message of the inbox, or one that was accepted. True if it was cleared away. */
  #noteMessage(message) {
    const name = this.#options.isVisitor ? {} : nameOfMessage(message, this.#userId);
    if (message.userId === this.#userId) this.#states.wrote(name, message.id);
    else this.#typing.wrote(message.userId, name);
    return this.#states.hides(name, message.id);
  }

  #onLive(frame) {
    if (frame.type === "state") {
      if (!Number.isSafeInteger(frame.version) || !Array.isArray(frame.conversations)) {
        this.#error("bad_frame", "`state` without version and conversations");
        return this.#lost(undefined, "bad frame");
      }
      this.#states.got(frame);
    } else if (frame.type === "presence") this.#watching.got(frame);
    else if (frame.type === "typing") this.#typing.got(frame);
    else this.#signals.got(frame);
  }

  /** Rooms: actions go through the outbox, questions are promises. */
  rooms = {
    create: ({ name, users, ...rules }) => this.#room("create", undefined, { name, users: users && members(users), ...rules }),
    add: (room, users, options) => this.#room("add", room, { users: members(users), ...options }),
    remove: (room, users, options) => this.#room("remove", room, { users: members(users), ...options }),
    role: (room, users, options) => this.#room("role", room, { users: members(users), ...options }),
    set: (room, what) => this.#room("set", room, what),
    join: (room, options) => this.#room("join", room, options),
    leave: (room, options) => this.#room("leave", room, options),
    close: (room, options) => this.#room("close", room, options),
    list: (what) => this.#ask("rooms", what).then(({ rooms, more }) => ({ rooms, more: Boolean(more) })),
    members: (room, what) =>
      this.#ask("members", { room, ...what }).then(({ version, users, more }) => ({ room, version, users, more: Boolean(more) })),
  };

  #room(action, room, { name, users, posting, history, joining, data, version } = {}) {
    if (action === "create") isName("name", name);
    else isName("room", room);
    const what = { kind: "room", action, room };
    for (const [key, value] of Object.entries({ name, users, posting, history, joining, data, version })) if (value != null) what[key] = value;
    if (data != null) what.data = dataOf(data, this.#dataBytes);
    checkTexts(what);
    return this.#post(what);
  }

  /** A promise of the node's answer. `once`: it is not asked again on another connection. */
  #ask(type, what, once = false) {
    return new Promise((resolve, reject) => {
      if (!this.#running) return reject(new ImdError("stopped", "the client is not started"));
      checkTexts(what ?? {});
      if (this.#requests.size >= MAX_REQUESTS_WAITING) return reject(new ImdError("busy", "too many requests"));
      const ref = `q${++this.#refs}`;
      const timer = `request ${ref}`;
      const settle = (settled) => (value) => {
        this.#timers.cancel(timer);
        this.#requests.delete(ref);
        settled(value);
        this.#sendRequests();
      };
      const request = { type, what, resolve: settle(resolve), reject: settle(reject), once, sent: false, notBefore: 0 };
      this.#requests.set(ref, request);
      this.#timers.set(timer, this.#options.historySeconds * SECOND, () =>
        request.reject(new ImdError("timeout", "no answer in time")),
      );
      this.#sendRequests();
    });
  }

  // -- events

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #error(code, reason) {
    this.#emit("error", { code, reason: String(reason) });
  }

  #setState(state, detail = {}) {
    this.#state = state;
    this.#emit("state", { state, ...detail });
  }

  #storageError(error) {
    if (this.#storageFailed) return;
    this.#storageFailed = true;
    this.#error("storage", `${error?.message ?? error}; kept in memory`);
    this.#timers.set("storage", 60 * SECOND, () => (this.#storageFailed = false));
  }

  #listen() {
    const hear = (target, type, listener) => {
      if (typeof target?.addEventListener !== "function") return;
      target.addEventListener(type, listener);
      this.#unlisten.push(() => target.removeEventListener(type, listener));
    };
    const page = typeof document === "undefined" ? null : document;
    hear(globalThis, "online", () => this.#hurry());
    hear(globalThis, "offline", () => this.#doubt(OFFLINE_PONG_MS));
    hear(globalThis, "pageshow", () => this.#hurry());
    hear(globalThis, "pagehide", () => {
      this.#save();
      this.#states.save();
    });
    hear(page, "visibilitychange", () => page.visibilityState === "visible" && this.#hurry());
  }

  /** An event says that the network is back. */
  #hurry() {
    if (this.#connected) this.#doubt();
    else if (!this.#mayHurry) return;
    else if (this.#timers.has("retry")) this.#connect();
    else if (this.#state === "connecting" && this.#slot) {
      // An attempt from before may hang until its deadline. A recent one may still succeed: give it HURRY_MS.
      this.#timers.set("hurry", HURRY_MS - (clock() - this.#triedAt), () => {
        this.#hangUp();
        this.#connect();
      });
    }
  }

  /** An event says that the connection may be gone. */
  #doubt(withinMs) {
    if (this.#connected) this.#ping(withinMs);
  }

  // -- the slot

  /** Find a slot that nobody uses, then connect. */
  async #begin(turn) {
    await this.#stopping;
    if (turn !== this.#turn) return;
    if (this.#unlisten.length === 0) this.#listen();
    if (this.#slot === null) {
      let held = null;
      try {
        held = this.#options[SLOT] ?? (await this.#takeSlot());
      } catch (error) {
        this.#error("storage", error?.message ?? error);
      }
      if (turn !== this.#turn) return held?.release();
      if (held === null) {
        this.#setState("waiting", { reason: "another client uses this device", retryInMs: SECOND });
        return this.#timers.set("slot", SECOND, () => this.#begin(turn));
      }
      this.#release = held.release;
      const slot = (this.#slot = new Slot(this.#store, this.#base, held.name));
      this.#received = this.#savedSeq = slot.seq;
      this.#states.attach(slot);
      this.#early.splice(0).forEach((entry) => slot.add(entry));
      if (slot.items.size) this.#emit("outbox", {});
    }
    this.#connect();
  }

  /** {name, release}; null if `device` is in use. */
  async #takeSlot() {
    const { device } = this.#options;
    const hold = (name) => this.#locks.hold(`${this.#base}:${name}`);
    if (device != null) {
      const release = await hold(device);
      return release && { name: device, release };
    }
    // First the slots with messages to send, then the one that was used last.
    const names = this.#slotNames().sort((one, other) => this.#rank(other) - this.#rank(one));
    for (const name of names) {
      const release = await hold(name);
      if (release) return { name, release };
    }
    const name = `web-${uuid().replaceAll("-", "").slice(0, 16)}`;
    const release = await hold(name);
    const known = this.#slotNames(); // read again: another tab may have added one
    this.#store.write(`${this.#base}:slots`, [...known, name]);
    return release && { name, release };
  }

  #slotNames() {
    const names = this.#store.read(`${this.#base}:slots`);
    return Array.isArray(names) ? names : [];
  }

  #hasOutbox(name) {
    return ["out", "new"].some((place) => this.#store.get(`${this.#base}:${name}:${place}`));
  }

  #rank(name) {
    const waiting = this.#hasOutbox(name) ? 2 ** 52 : 0;
    return waiting + (this.#store.read(`${this.#base}:${name}`)?.attempt ?? 0);
  }

  // -- connecting

  async #connect() {
    const turn = ++this.#turn;
    this.#timers.cancel("retry");
    this.#triedAt = clock();
    this.#refusal = null;
    if (this.#state !== "connecting") this.#setState("connecting");
    if (turn !== this.#turn) return; // a listener stopped it
    let token;
    try {
      token = await this.#askToken();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#error("token", error?.message ?? error);
      return this.#lost(undefined, "no token");
    }
    if (turn !== this.#turn) return;
    if (this.#refusedTokens.has(token)) return this.#close(4001, this.#refusedWhy);
    this.#token = token;
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    const { url } = this.#options;
    let ws;
    try {
      ws = this.#ws = new Socket(hinted(typeof url === "function" ? url() : url, this.#hint));
    } catch (error) {
      this.#error("url", error?.message ?? error);
      return this.#close(undefined, "the WebSocket could not be made");
    }
    this.#timers.set("connect", this.#options.connectSeconds * SECOND, () => this.#lost(undefined, "not connected in time"));
    ws.onopen = () => this.#sendSignal();
    ws.onmessage = (event) => this.#arrived(event.data);
    ws.onclose = (event) => this.#lost(event.code, event.reason);
    ws.onerror = () => {}; // a close follows
  }

  /** The user that this connection will most likely be; null if nothing tells, or `hint` is off. */
  get #hint() {
    const { hint, userId, isVisitor } = this.#options;
    if (hint === false) return null;
    if (isVisitor) return userOfToken(this.#asNewVisitor ? null : this.#visitorToken);
    return userId ?? userOfToken(this.#token) ?? this.#userId;
  }

  async #askToken() {
    const { token } = this.#options;
    if (!token) return null;
    let expired;
    const deadline = new Promise((_, reject) => (expired = reject));
    const timer = `asking ${++this.#asks}`; // one of an abandoned attempt may still run
    this.#timers.set(timer, TOKEN_MS, () => expired(new Error("token() did not answer in time")));
    try {
      return (await Promise.race([token(), deadline])) ?? null;
    } finally {
      this.#timers.cancel(timer);
    }
  }

  #sendSignal() {
    const { userId, loginType, isCustomerService, isVisitor, ephemeral, features, presence } = this.#options;
    const slot = this.#slot;
    slot.attempt = Math.max(Date.now(), slot.attempt + 1);
    slot.save();
    const signal = { isConnect: true, v: 1, device: slot.name, attempt: slot.attempt, ack: true };
    const visitorToken = isVisitor && !this.#asNewVisitor ? this.#visitorToken : null;
    const optional = { userId, loginType, isCustomerService, isVisitor, ephemeral, token: this.#token, visitorToken };
    for (const [key, value] of Object.entries(optional)) if (value != null) signal[key] = value;
    if (features?.length) signal.features = features;
    if (presence === false) signal.presence = false;
    if (!this.#asNewVisitor) {
      // Otherwise these are the refused visitor's.
      if (features?.includes("state") && this.#states.version !== null) signal.state = this.#states.version;
      if (slot.epoch !== null) signal.cursor = { epoch: slot.epoch, seq: slot.seq };
    }
    this.#write(signal);
  }

  get #visitorToken() {
    return this.#store.get(`${this.#base}:visitorToken`);
  }

  #onConnected(frame) {
    if (typeof frame.epoch !== "string" || !Number.isSafeInteger(frame.seq)) {
      this.#error("bad_frame", "`connected` without epoch and seq");
      return this.#lost(undefined, "bad frame");
    }
    this.#timers.cancel("connect");
    this.#timers.cancel("hurry");
    const slot = this.#slot;
    const claimed = slot.epoch !== null;
    this.#connected = frame;
    this.#openedAt = clock();
    this.#refusedTokens.clear();
    this.#asNewVisitor = false;
    this.#leavingMs = null;
    this.#inFlight = 0;
    this.#unread.clear();
    this.#unreadFrames = 0;
    this.#pausedUntil = 0;
    this.#limits = frame.limits ?? null;
    this.#features = Array.isArray(frame.features) ? frame.features : [];
    this.#pace = new Pace(frame.limits?.messagesPerSecond ?? 0);
    this.#pingMs = (this.#options.pingSeconds ?? frame.pingSeconds ?? 25) * SECOND;
    this.#serverAhead = (frame.serverTime ?? Date.now()) - clock();
    if (frame.visitorToken != null) {
      const text = String(frame.visitorToken);
      if (text !== this.#visitorToken) this.#store.writeText(`${this.#base}:visitorToken`, text);
    }
    const sameUser = slot.owner === null || slot.owner === frame.userId;
    if (!sameUser) this.#changedOwner();
    slot.owner = frame.userId;
    this.#userId = frame.userId;
    this.#linkSeq = this.#acked = frame.seq;
    const broken = frame.recovered === false || (claimed && frame.epoch !== slot.epoch);
    const gap = broken && sameUser && !this.#options[SLOT];
    if (this.#options[SLOT]) {
      // A courier receives nothing: its cursor stays as it is.
    } else if (!claimed || !sameUser || gap) {
      this.#breakAt(frame);
    } else {
      // The node may be ahead: it got an acknowledgement, and the stored cursor was lost.
      if (frame.seq > slot.seq) slot.seq = this.#savedSeq = frame.seq;
      this.#received = Math.max(this.#received, frame.seq);
    }
    this.#heardAt = clock();
    this.#watch();
    if (frame.exp != null) this.#onToken(frame);
    const turn = this.#turn;
    this.#setState("open");
    this.#emit("connected", frame);
    if (gap) this.#emit("gap", {});
    if (turn !== this.#turn) return;
    if (!this.#options[SLOT]) slot.save();
    if (gap) this.#ackBreak(frame.seq);
    this.#sendRequests();
    this.#pump();
    this.#states.flush();
    this.#watching.flush();
    if (!this.#options[SLOT]) this.#openedEvents(gap);
    this.#timers.set("courier", SECOND, () => this.#lookForOrphans());
  }

  /** The stored numbers are void: continue from those of `connected` or `reset`. */
  #breakAt({ epoch, seq }) {
    this.#era = {};
    this.#hole = null;
    this.#slot.epoch = epoch;
    this.#slot.seq = seq;
    this.#received = this.#linkSeq = this.#acked = this.#savedSeq = seq;
    this.#timers.cancel("ack");
  }

  /** The outbox is another user's. A new visitor takes over the unsent messages of the forgotten one. */
  #changedOwner() {
    Object.assign(this.#slot, { complete: "", behind: false });
    this.#states.forget();
    this.#watching.forget();
    for (const item of [...this.#slot.items.values()]) {
      if (item.entry.state === "failed" || (this.#options.isVisitor && item.since === null)) continue;
      this.#fail(item, "other_user", `it was written as ${this.#slot.owner}`);
    }
  }

  // -- losing the connection

  #lost(code, reason) {
    const wasOpen = this.#connected !== null;
    this.#hangUp();
    if (code === 1009) this.#failLargest();
    this.#inFlight = 0;
    for (const item of this.#slot?.items.values() ?? []) {
      if (!item.inFlight) continue;
      item.inFlight = false;
      item.entry.state = "waiting";
    }
    for (const request of [...this.#requests.values()]) {
      request.sent = false;
      if (request.once) request.reject(new ImdError("lost", "the connection ended"));
    }
    if (wasOpen && clock() - this.#openedAt >= STEADY_MS) this.#failures = this.#hasty = 0;
    const refusal = this.#refusal;
    if (code === 4001) this.#refusedWhy = refusal?.reason ?? reason;
    if (permanentCode(code) && !(code === 4001 && this.#mayAskAgain())) {
      return this.#close(code, refusal?.reason ?? reason);
    }
    if (refusal && !refusal.temporary && code === undefined) return this.#close(undefined, refusal.reason);
    const asked = (refusal?.retryAfterMs ?? 0) * (1 + Math.random() / 2);
    const delay = Math.max(this.#pauseAfter(code), this.#leavingMs ?? 0, asked);
    this.#mayHurry = !busyCode(code) && this.#leavingMs === null;
    this.#leavingMs = null;
    this.#timers.set("retry", delay, () => this.#connect());
    const detail = { reason: refusal?.reason || reason || "", retryInMs: Math.round(delay) };
    this.#setState("waiting", code === undefined ? detail : { code, ...detail });
  }

  /** Milliseconds that the client itself waits before it comes back. */
  #pauseAfter(code) {
    if ((atOnceCode(code) || this.#leavingMs !== null) && this.#hasty < MAX_HASTY) {
      // A node that leaves is no failure of the client's: it is left at once, also during the login and between failures.
      // A few times only, or a node that closes each connection so would be stormed.
      this.#hasty++;
      return 0;
    }
    const { minBackoffMs, maxBackoffMs } = this.#options;
    const longest = Math.min(maxBackoffMs, minBackoffMs * 2 ** this.#failures);
    const atOnce = code === 4001 && this.#failures === 0;
    this.#failures = Math.min(this.#failures + 1, 30);
    return atOnce ? 0 : Math.random() * longest;
  }

  #mayAskAgain() {
    if (this.#options.isVisitor && this.#visitorToken !== null && !this.#asNewVisitor) {
      // The node has forgotten the visitor. Keep the token until there is another: the node may admit no visitors now.
      this.#asNewVisitor = true;
      return true;
    }
    if (!this.#options.token) return false;
    // Most likely the token has expired, or clocks differ. Another may serve; the same one would not.
    this.#refusedTokens.add(this.#token);
    if (this.#refusedTokens.size > MAX_REFUSED_TOKENS) this.#refusedTokens.delete(this.#refusedTokens.values().next().value);
    return true;
  }

  /** End; only the app's `start` begins again. */
  #close(code, reason) {
    this.#running = false;
    this.#turn++;
    this.#timers.clear();
    this.#courier?.stop();
    this.#unlisten.splice(0).forEach((stop) => stop());
    this.#reading = null;
    this.#endRequests("closed", reason);
    const detail = { reason: reason || "", permanent: true };
    this.#setState("closed", code === undefined ? detail : { code, ...detail });
  }

  /** Abandon the socket: its events are ignored from now on. */
  #hangUp() {
    this.#turn++;
    const ws = this.#ws;
    this.#save();
    this.#ws = this.#connected = this.#offered = null;
    this.#reading = null;
    for (const name of ["connect", "hurry", "ping", "pong", "ack", "save", "token", "pump", "release", "answer", "unread", "ask", "courier", "catch up", "state", "watch", "typing"]) {
      this.#timers.cancel(name);
    }
    this.#states.save();
    for (const part of [this.#states, this.#watching, this.#typing, this.#signals]) part.lost();
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.onerror = () => {};
    // The package `ws` would wait half a minute for a node that hangs.
    if (typeof ws.terminate === "function") ws.terminate();
    else if (ws.readyState < 2) ws.close();
  }

  async #stop() {
    if (!this.#running && this.#slot === null) return;
    this.#running = false;
    this.#turn++;
    this.#courier?.stop();
    const ws = this.#ws;
    if (ws) ws.onmessage = ws.onclose = null;
    this.#timers.clear();
    this.#reading = null;
    this.#endRequests("stopped", "the client was stopped");
    if (this.#pending && ws) await this.#atMost(CLOSE_MS, this.#chain);
    this.#save();
    this.#ack();
    if (ws) {
      const closed = new Promise((resolve) => (ws.onclose = ws.onerror = resolve));
      this.#connected = this.#ws = null;
      ws.close(1000);
      if (ws.readyState !== 3) await this.#atMost(CLOSE_MS, closed);
      ws.onclose = null;
      if (ws.readyState !== 3) ws.terminate?.();
    }
    for (const item of this.#slot?.items.values() ?? []) {
      item.inFlight = false;
      if (item.entry.state === "sent") item.entry.state = "waiting";
    }
    await this.#courier?.stop();
    this.#letGo();
    this.#timers.clear();
    this.#setState("closed", {});
  }

  #letGo() {
    this.#unlisten.splice(0).forEach((stop) => stop());
    this.#shelf = this.outbox.slice(0, this.#slot?.items.size);
    this.#states.detach();
    for (const part of [this.#watching, this.#typing, this.#signals]) part.lost();
    this.#slot = null; // another client may have it from now on
    this.#release?.();
    this.#release = null;
  }

  #atMost(ms, promise) {
    return new Promise((resolve) => {
      this.#timers.set("at most", ms, resolve);
      promise.then(resolve);
    }).finally(() => this.#timers.cancel("at most"));
  }

  // -- frames

  #write(frame) {
    const text = typeof frame === "string" ? frame : JSON.stringify(frame);
    if (this.#ws?.readyState === 1) this.#ws.send(text);
  }

  #arrived(data) {
    this.#heardAt = clock();
    this.#timers.cancel("pong");
    if (this.#connected && !this.#timers.has("ping")) this.#watch();
    const frame = typeof data === "string" ? parsed(data) : undefined;
    if (!isObject(frame)) return this.#error("bad_frame", "the node sent what is no frame");
    const { type } = frame;
    if (type === undefined) this.#onNumbered(frame);
    else if (type === "error") this.#onError(frame);
    else if (type === "connected") this.#connected || this.#onConnected(frame);
    else if (!this.#connected) this.#error("bad_frame", `${type} before connected`);
    else if (type === "accepted") this.#onAccepted(frame);
    else if (QUESTIONS.includes(type)) this.#onAnswer(frame);
    else if (LIVE.includes(type)) this.#onLive(frame);
    else if (type === "reset") this.#onReset(frame);
    else if (type === "leaving") this.#onLeaving(frame);
    else if (type === "token") this.#onToken(frame);
    // `pong` is only a sign of life. Unknown types are skipped.
  }

  #onNumbered(message) {
    const { seq, kind } = message;
    let { id } = message;
    if (!this.#connected || !Number.isSafeInteger(seq)) return this.#error("bad_frame", "a message without its number");
    if (seq <= this.#linkSeq || this.#options[SLOT]) return;
    if (seq !== this.#linkSeq + 1) {
      if (this.#hole !== this.#linkSeq) {
        this.#hole = this.#linkSeq;
        this.#error("hole", `${seq} came after ${this.#linkSeq}`);
        return this.#lost(undefined, "a hole in the numbers");
      }
      // The second time at the same place: go on after the hole.
      this.#emit("gap", {});
      if (!this.#connected) return;
      this.#openedEvents(true);
    }
    if (this.#hole === this.#linkSeq) this.#hole = null;
    this.#linkSeq = seq;
    if (seq <= this.#received) return this.#planAck(); // the app got it on an earlier connection
    this.#received = seq;
    const era = this.#era;
    let type = typeOf(message, this.#options.features ?? []);
    if (type !== null && isCopy(message, this.#userId)) {
      // A copy for one's own devices. It is no answer: only `accepted` ends an entry of the outbox.
      if (this.#wasSentHere(message)) type = "";
      else if (type === "message") type = "sent";
    }
    const known = type === null || (typeof id === "string" && !this.#slot.isNew(id));
    if (!known && type === "recall") this.#recalled(message.of);
    // One that was cleared away, and came late, is passed over.
    if (!known && (kind ?? "message") === "message" && this.#noteMessage(message)) type = "";
    const returned = known || type === "" ? [] : this.#tell(type, message);
    if (!known) this.#noteNumbered(id);
    if (!known && type === "") this.#slot.had(this.#slot.seq, id); // at once: `accepted` stores it
    if (known || type === "") id = undefined; // not to be stored again
    if (returned.length === 0 && this.#pending === 0) this.#had(era, seq, id);
    else this.#hadLater(era, seq, id, returned);
  }

  /** True for a message or event that this device, or a courier of it, has not heard the answer to yet. */
  #wasSentHere({ clientMsgId, id }) {
    const slots = [this.#slot, this.#courier?.#slot].filter(Boolean);
    const slot = slots.find(({ items }) => items.has(clientMsgId));
    if (!slot) return false;
    const item = slot.items.get(clientMsgId);
    item.placed = id;
    slot.keep(item);
    return true;
  }

  /** Call the listeners; returns the promises that they returned. */
  #tell(type, detail) {
    this.#returned = [];
    this.#emit(type, detail);
    const returned = this.#returned;
    this.#returned = null;
    return returned;
  }

  /** Count a message as handled once its listeners' promises, and those of earlier messages, are settled. */
  #hadLater(era, seq, id, returned) {
    this.#pending++;
    const before = this.#chain;
    const slot = this.#slot;
    this.#chain = (async () => {
      const results = await Promise.allSettled(returned);
      await before;
      this.#pending--;
      for (const { status, reason } of results) {
        if (status === "rejected") this.#error("listener", reason?.message ?? reason);
      }
      if (slot === this.#slot) this.#had(era, seq, id);
    })();
  }

  #had(era, seq, id) {
    if (era !== this.#era || !this.#slot) return;
    this.#slot.had(seq, id);
    if (!this.#timers.has("save")) this.#timers.set("save", 0, () => this.#save());
  }

  /** Store the cursor, then acknowledge: never the other way round. */
  #save() {
    const slot = this.#slot;
    this.#timers.cancel("save");
    if (!slot || slot.seq === this.#savedSeq || this.#options[SLOT]) return;
    slot.save();
    this.#savedSeq = slot.seq;
    this.#planAck();
  }

  #planAck() {
    const due = Math.min(this.#savedSeq, this.#linkSeq) - this.#acked;
    if (!this.#connected || due <= 0) return;
    if (due >= (this.#limits?.ackWindow ?? 2) / 2) this.#ack();
    else if (!this.#timers.has("ack")) this.#timers.set("ack", ACK_MS, () => this.#ack());
  }

  #ack() {
    this.#timers.cancel("ack");
    const seq = Math.min(this.#savedSeq, this.#linkSeq);
    if (!this.#connected || seq <= this.#acked || this.#options[SLOT]) return;
    this.#acked = seq;
    this.#write({ type: "ack", seq, epoch: this.#slot.epoch });
  }

  #onReset(frame) {
    if (this.#options[SLOT]) return;
    if (typeof frame.epoch !== "string" || !Number.isSafeInteger(frame.seq)) {
      return this.#error("bad_frame", "`reset` without epoch and seq");
    }
    this.#breakAt(frame);
    const turn = this.#turn;
    this.#emit("gap", {});
    if (turn !== this.#turn) return;
    this.#slot.save();
    this.#ackBreak(frame.seq);
    this.#openedEvents(true);
  }

  /** Confirm the break. The node would report it at each connect until then. */
  #ackBreak(seq) {
    this.#write({ type: "ack", seq, epoch: this.#slot.epoch });
  }

  #onLeaving({ reconnectMs }) {
    this.#leavingMs = Math.max(0, Number(reconnectMs) || 0);
    this.#emit("leaving", { reconnectMs: this.#leavingMs });
  }

  #onError(frame) {
    const { code, reason, ref, clientMsgId } = frame;
    const retryMs = frame.temporary ? this.#retryMs(frame) : 0;
    const item = this.#slot?.items.get(clientMsgId);
    if (!this.#connected) {
      this.#refusal = frame;
      this.#error(code, reason);
      // The signal is wrong, and the next one would be the same. After other refusals the node closes.
      if (!frame.temporary && code !== "forbidden") this.#lost(undefined, reason);
    } else if (item?.inFlight) {
      this.#answered(item);
      if (!frame.temporary) return this.#fail(item, code, reason);
      // Refused unseen, and never sent before: it is in no inbox.
      if (code === "rate_limited" && item.sends === 1) item.since = null;
      item.entry.state = "waiting";
      this.#slot.keep(item);
      if (code === "rate_limited" && Number(frame.retryAfterMs) > LONG_PAUSE_MS) {
        item.heldUntil = clock() + Number(frame.retryAfterMs);
      } else if (code === "unavailable" && (item.entry.kind ?? item.entry.room) !== undefined) {
        // The archive is behind, or a room is not loaded: others need not wait for that.
        const growing = Math.min(LONGEST_HOLD_MS, 500 * 2 ** Math.min(item.holds++, 10));
        item.heldUntil = clock() + Math.max(Number(frame.retryAfterMs) || 0, growing);
      } else {
        this.#pausedUntil = clock() + retryMs;
        this.#pauses++;
      }
      this.#pump();
    } else if (this.#requests.has(ref)) {
      const request = this.#requests.get(ref);
      if (!frame.temporary) return request.reject(new ImdError(code, reason));
      request.sent = false;
      request.notBefore = clock() + retryMs;
      this.#sendRequests();
    } else if (ref != null && [this.#states, this.#watching, this.#signals].some((part) => part.refused(frame))) {
      // The part deals with it.
    } else {
      if (this.#offered !== null && clientMsgId == null && ref == null) {
        // Nothing else is unanswered: most likely this answers the newer token. The old one stands.
        this.#offered = null;
        this.#planToken(Math.max(TOKEN_AGAIN_MS, retryMs));
      } else if (code === "bad_frame" && clientMsgId == null && ref == null) this.#notRead(code, reason);
      this.#error(code, reason);
    }
  }

  /**
   * The node could not read a frame, and does not say which. The other frames get their answers. So an entry that has none a while
   * later is given up, unless more entries than unreadable frames are left.
   */
  #notRead(code, reason) {
    for (const item of this.#slot.items.values()) if (item.inFlight) this.#unread.add(item);
    if (!this.#unread.size) return;
    this.#unreadFrames++;
    this.#planGivingUp(code, reason);
  }

  #planGivingUp(code, reason) {
    this.#timers.set("unread", UNREAD_MS, () => {
      if (this.#unread.size > this.#unreadFrames) return this.#planGivingUp(code, reason);
      for (const item of [...this.#unread]) {
        this.#answered(item);
        this.#fail(item, code, reason);
      }
    });
  }

  #retryMs({ retryAfterMs }) {
    const { minBackoffMs, maxBackoffMs } = this.#options;
    const growing = Math.random() * Math.min(maxBackoffMs, minBackoffMs * 2 ** Math.min(this.#pauses, 30));
    return Math.max(Number(retryAfterMs) || 0, growing);
  }

  // -- keeping watch on the node

  #watch() {
    this.#timers.set("ping", this.#heardAt + this.#pingMs - clock(), () => {
      if (clock() - this.#heardAt < this.#pingMs) this.#watch();
      else this.#ping();
    });
  }

  #ping(withinMs = this.#options.pongSeconds * SECOND) {
    if (this.#timers.has("pong")) return;
    this.#write({ type: "ping" });
    this.#timers.set("pong", withinMs, () => this.#lost(undefined, "a ping was not answered"));
  }

  // -- tokens

  #serverNow() {
    return clock() + this.#serverAhead;
  }

  /** Ask for a newer token a minute before the old one expires, or at half of a short life. */
  #planToken(leastMs = 0) {
    if (!this.#options.token) return;
    const left = this.#exp - this.#serverNow();
    // The token may be past its expiry, as a node has a leeway.
    const due = left > SECOND ? Math.max(left - 60 * SECOND, left / 2) : TOKEN_AGAIN_MS;
    const turn = this.#turn;
    this.#timers.set("token", Math.max(leastMs, due), async () => {
      let token = null;
      try {
        token = await this.#askToken();
      } catch (error) {
        if (turn === this.#turn) this.#error("token", error?.message ?? error);
      }
      if (turn !== this.#turn || !this.#connected) return;
      if (token === null || token === this.#token) return this.#planToken(TOKEN_AGAIN_MS);
      this.#offered = token;
      this.#write({ type: "token", token });
    });
  }

  #onToken({ exp }) {
    this.#token = this.#offered ?? this.#token;
    this.#offered = null;
    if (exp == null) return;
    this.#exp = exp;
    this.#planToken();
  }

  // -- the outbox

  /** Send every message that may be sent now: in order, one of each conversation, at the node's pace. */
  #pump() {
    if (!this.#connected || this.#leavingMs !== null || !this.#slot) return;
    const { maxInFlight, ordered } = this.#options;
    const paused = this.#pausedUntil - clock();
    if (paused > 0) return this.#pumpIn(paused);
    const busy = new Set();
    let released = Infinity; // milliseconds until the first held message may be sent
    for (const item of [...this.#slot.items.values()]) {
      if (this.#inFlight >= maxInFlight) break;
      if (item.entry.state === "failed") continue;
      const held = item.heldUntil - clock();
      if (held > 0) {
        released = Math.min(released, held);
      } else if (!item.inFlight && !busy.has(item.order)) {
        if (!this.#fits(item)) continue;
        const cost = Math.max(1, (item.entry.group?.length ?? 0) / 10);
        const wait = this.#pace.wait(cost);
        if (wait > 0) return this.#pumpIn(wait);
        this.#pace.take(cost);
        this.#sendItem(item);
        if (!this.#connected) return;
      }
      if (ordered || item.entry.kind !== undefined) busy.add(item.order);
    }
    if (released < Infinity) this.#timers.set("release", released, () => this.#pump());
  }

  #pumpIn(ms) {
    if (!this.#timers.has("pump")) this.#timers.set("pump", ms, () => this.#pump());
  }

  /** False for a message that cannot be sent: it has failed now. */
  #fits(item) {
    const { entry, since } = item;
    const { messageBytes = Infinity, groupMembers = Infinity } = this.#limits ?? {};
    const oldest = this.#serverNow() - this.#options.dedupSeconds * 0.9 * SECOND;
    if (!item.bytes) Object.assign(item, { bytes: bytesOf(JSON.stringify(entry)), wrong: wrongIn(entry, this.#dataBytes) });
    // A frame that is too large would end the connection, at each resend.
    const { msg = "" } = entry;
    if (item.place === "new" && !this.#knowsEvents) {
      this.#fail(item, "unsupported", NO_EVENTS);
    } else if (item.wrong) {
      // An older version has stored it: the node could not read it, at each resend.
      this.#fail(item, "invalid_message", item.wrong);
    } else if (msg.length > messageBytes || bytesOf(msg) > messageBytes || item.bytes > 6 * messageBytes + 60_000) {
      this.#fail(item, "too_large", `more than ${messageBytes} bytes`);
    } else if (entry.group?.length > groupMembers && entry.to === undefined) {
      this.#fail(item, "too_large", `more than ${groupMembers} members`);
    } else if (since !== null && since < oldest && expires(entry)) {
      this.#fail(item, "expired", UNSURE);
    } else {
      return true;
    }
    return false;
  }

  #sendItem(item) {
    if (item.since === null) {
      item.since = Math.round(this.#serverNow()); // it is the nodes that forget a clientMsgId, by their clock
      item.sends = 0;
      this.#slot.keep(item); // stored first: after a crash it counts as sent
    }
    item.sends++;
    item.inFlight = true;
    item.sentAt = clock();
    item.entry.state = "sent";
    this.#inFlight++;
    if (!this.#timers.has("answer")) this.#timers.set("answer", ANSWER_MS, () => this.#lookForAnswers());
    this.#write(frameOf(item.entry));
  }

  #lookForAnswers() {
    const sent = [...this.#slot.items.values()].filter((item) => item.inFlight).map((item) => item.sentAt);
    if (sent.length === 0) return;
    const oldest = clock() - Math.min(...sent);
    if (oldest >= ANSWER_MS) return this.#lost(undefined, "a message was not answered");
    this.#timers.set("answer", ANSWER_MS - oldest, () => this.#lookForAnswers());
  }

  #answered(item) {
    item.inFlight = false;
    this.#inFlight--;
    this.#unread.delete(item);
    if (this.#unread.size) return;
    this.#unreadFrames = 0;
    this.#timers.cancel("unread");
  }

  #onAccepted({ clientMsgId, id, sendTime, changed = true, room, version }) {
    const item = this.#slot.items.get(clientMsgId);
    if (!item || item.entry.state === "failed") return;
    if (item.inFlight) this.#answered(item);
    this.#pauses = 0;
    const { entry } = item;
    entry.state = "accepted";
    if (entry.kind === undefined && id !== undefined) {
      this.#noteMessage({ ...entry, id, userId: this.#userId });
      this.#typing.sent(this.#options.isVisitor ? {} : nameOf({ ...entry, with: entry.to }, this.#userId));
    }
    if (id !== undefined && this.#features.includes("sync")) this.#know(id);
    this.#slot.remove(item);
    const detail = { clientMsgId, id, sendTime, changed, message: entry };
    if (entry.kind === "room") Object.assign(detail, { room: room ?? entry.room, version });
    this.#answers.set(entry, detail);
    this.#settle(clientMsgId, "resolve", detail);
    this.#emit("accepted", detail);
    if (entry.kind === "recall") this.#recalled(entry.of);
    this.#emit("outbox", {});
    this.#pump();
  }

  #settle(clientMsgId, how, value) {
    const waiters = this.#waiters.get(clientMsgId) ?? [];
    this.#waiters.delete(clientMsgId);
    for (const waiter of waiters) waiter[how](value);
  }

  /** This device has sent it: a copy in the inbox is not for the app. Stored before the entry leaves the outbox. */
  #know(id) {
    const slot = this.#slot;
    if (slot.isNew(id)) slot.had(slot.seq, id);
    slot.save();
  }

  /** A message was recalled: its text, and texts for it, leave the outbox. */
  #recalled(of) {
    this.#gone.delete(of);
    this.#gone.add(of);
    if (this.#gone.size > MOST_RECALLED) this.#gone.delete(this.#gone.values().next().value);
    for (const item of [...(this.#slot?.items.values() ?? [])]) {
      const { entry } = item;
      const isEdit = entry.kind === "edit" && entry.of === of;
      // A message without an answer stays until it has one: sent again, it must be the same.
      if (!isEdit && !(item.placed === of && entry.state === "failed")) continue;
      if (item.inFlight) this.#answered(item);
      this.#slot.remove(item);
      if (entry.state !== "failed") this.#failed(item, "conflict", "the message was recalled");
      this.#emit("outbox", {});
    }
  }

  #fail(item, code, reason) {
    Object.assign(item.entry, { state: "failed", error: { code, reason } });
    this.#slot.keep(item);
    this.#failed(item, code, reason);
    this.#emit("outbox", {});
    if (!this.#timers.has("pump")) this.#pumpIn(0);
  }

  #failed({ entry }, code, reason) {
    entry.state = "failed";
    entry.error = { code, reason };
    this.#settle(entry.clientMsgId, "reject", new ImdError(code, reason));
    this.#emit("failed", { clientMsgId: entry.clientMsgId, code, reason, message: entry });
  }

  /** After 1009, fail the largest frame: it would end each connection. */
  #failLargest() {
    const sent = [...this.#slot.items.values()].filter((item) => item.inFlight);
    const largest = sent.sort((one, other) => other.bytes - one.bytes)[0];
    if (!largest) return;
    largest.inFlight = false;
    this.#fail(largest, "too_large", "the frame was too large for the node");
  }

  // -- questions

  #sendRequests() {
    if (!this.#connected || this.#leavingMs !== null) return;
    const now = clock();
    let sent = [...this.#requests.values()].filter((request) => request.sent).length;
    for (const [ref, request] of this.#requests) {
      if (sent >= MAX_REQUESTS) return;
      if (request.sent) continue;
      const { type, what } = request;
      if (!this.#knowsEvents && (type !== "history" || what?.room != null || what?.after != null || what?.around != null)) {
        return request.reject(new ImdError("unsupported", NO_EVENTS)); // which calls this again
      }
      const cost = type === "conversations" ? 1 + (what.limit ?? 30) / 10 : 1;
      const wait = Math.max(request.notBefore - now, this.#pace.wait(cost));
      if (wait > 0) {
        if (!this.#timers.has("ask")) this.#timers.set("ask", wait, () => this.#sendRequests());
        continue;
      }
      this.#pace.take(cost);
      request.sent = true;
      sent++;
      this.#write({ type, ref, ...what });
    }
  }

  #onAnswer(frame) {
    const request = this.#requests.get(frame.ref);
    if (request?.type !== frame.type) return;
    const lists = { changes: "events", members: "users", rooms: "rooms", conversations: "conversations", blocked: "users" };
    const list = lists[frame.type] ?? "messages";
    if (frame.type === "block" || Array.isArray(frame[list])) request.resolve(frame);
    else request.reject(new ImdError("bad_frame", `\`${frame.type}\` without ${list}`));
  }

  #endRequests(code, reason) {
    for (const clientMsgId of [...this.#waiters.keys()]) this.#settle(clientMsgId, "reject", new ImdError(code, reason || code));
    for (const request of [...this.#requests.values()]) request.reject(new ImdError(code, reason || code));
  }

  // -- events that left the inbox unseen

  // The inbox brings every event while it is continuous. So the slot remembers an id, `complete`: events up to it are
  // known. After a gap the client asks for the `changes` since then. Rooms are asked one by one.

  /** Connected, or at a gap. */
  #openedEvents(gap) {
    const slot = this.#slot;
    this.#newer = null;
    if (gap && slot.complete && !slot.behind) {
      slot.behind = true;
      slot.save();
    }
    if (!this.#hasEvents) return;
    if (slot.behind) this.#readChanges(this.#serverNow());
    else if (!slot.complete || this.#serverNow() - timeOfId(slot.complete) > COMPLETE_MS) this.#askComplete();
  }

  async #askComplete() {
    const reading = (this.#reading = {});
    try {
      const { complete } = await this.#ask("changes", { all: true, limit: 0 }, true);
      if (reading !== this.#reading) return;
      if (this.#slot.complete) this.#newer = { complete, at: this.#serverNow() };
      else this.#setComplete(complete, false);
    } catch {
      // Asked again at the next connect.
    }
  }

  /** The inbox, without a hole until here, has brought this message or event. */
  #noteNumbered(id) {
    if (!this.#newer || this.#slot.behind || timeOfId(id) <= this.#newer.at + CLOCKS_MS) return;
    // It was placed after the answer, so every event up to `complete` was placed before it.
    this.#setComplete(this.#newer.complete, false);
    this.#newer = null;
  }

  #setComplete(complete, behind) {
    Object.assign(this.#slot, { complete, behind });
    this.#slot.save();
  }

  /** Read everything after `complete`; again, until the archive has everything from before `since`, a time of the node. */
  async #readChanges(since) {
    const reading = (this.#reading = {});
    const slot = this.#slot;
    const stale = () => reading !== this.#reading || slot !== this.#slot;
    const again = () => this.#timers.set("catch up", CATCH_UP_MS, () => this.#readChanges(since));
    let least = "";
    const read = async (conversation) => {
      for (let after = slot.complete, more = true; more; ) {
        const answer = await this.#ask("changes", { ...conversation, after, limit: CATCH_UP_PAGE }, true);
        if (stale()) return;
        if (!least || answer.complete < least) least = answer.complete;
        for (const event of answer.events) {
          this.#tellUnnumbered(event);
          if (stale()) return;
          after = event.id;
        }
        more = answer.more && answer.events.length > 0;
      }
    };
    try {
      await read({ all: true });
      for (let after, more = !this.#options.isVisitor; more && !stale(); ) {
        const page = await this.#ask("rooms", { after, limit: CATCH_UP_PAGE }, true);
        for (const { room } of page.rooms) {
          if (stale()) return;
          // Most likely it was left meanwhile.
          await read({ room }).catch((error) => error.code === "not_found" || Promise.reject(error));
          after = room;
        }
        more = page.more && page.rooms.length > 0;
      }
    } catch {
      return stale() || again();
    }
    if (stale()) return;
    // An event of the lost inbox may be on its way to the archive. It is older than the gap's discovery.
    const behind = timeOfId(least) < since + CLOCKS_MS;
    if (behind) again();
    await this.#chain;
    if (slot === this.#slot) this.#setComplete(least > slot.complete ? least : slot.complete, behind);
  }

  /** Tell the app of an event that `changes` gave. */
  #tellUnnumbered(event) {
    const type = typeOf(event, FEATURES);
    if (type === null || type === "message" || !this.#slot.isNew(event.id)) return;
    if (type === "recall") this.#recalled(event.of);
    const slot = this.#slot;
    const returned = this.#tell(type, event);
    const had = () => slot === this.#slot && slot.had(slot.seq, event.id);
    if (returned.length === 0) return had();
    const before = this.#chain;
    this.#pending++;
    this.#chain = Promise.allSettled([...returned, before]).then(() => {
      this.#pending--;
      had();
    });
  }

  // -- the outboxes of closed tabs

  /** Adopt one slot with an outbox: a courier, a client as that device, sends the messages and stops. */
  async #lookForOrphans() {
    if (this.#options[SLOT] || this.#options.device != null) return;
    const turn = this.#turn;
    const again = () => this.#timers.set("courier", COURIER_MS, () => this.#lookForOrphans());
    again();
    if (this.#courier) return;
    for (const name of this.#slotNames()) {
      const hasWishes = this.features.includes("state") && this.#store.get(`${this.#base}:${name}:wishes`);
      if (name === this.#slot.name || !(hasWishes || this.#hasOutbox(name))) continue;
      const release = await this.#locks.hold(`${this.#base}:${name}`);
      if (release === null) continue;
      if (turn !== this.#turn) return release();
      return this.#adopt(name, release);
    }
  }

  #adopt(name, release) {
    const courier = new Client({ ...this.#options, [SLOT]: { name, release } });
    this.#courier = courier;
    const finish = () => {
      if (this.#courier !== courier) return;
      this.#courier = null;
      courier.stop();
      if (this.#connected) this.#timers.set("courier", 100, () => this.#lookForOrphans());
    };
    courier.on("error", (detail) => this.#emit("error", detail));
    courier.on("accepted", (detail) => {
      if (detail.id !== undefined && this.#slot && this.features.includes("sync")) this.#know(detail.id);
      this.#emit("accepted", detail);
      // The inbox's copy is passed over: this device knows it already.
      if (detail.message.kind === "recall") this.#recalled(detail.message.of);
    });
    const look = () => {
      const sendsWishes = courier.features.includes("state") && !courier.#states.isIdle;
      if (!sendsWishes && courier.outbox.every((entry) => entry.state === "failed")) {
        courier.#handOver(this);
        finish();
      }
    };
    courier.#settled = look;
    courier.on("outbox", look);
    courier.on("connected", look);
    courier.on("state", ({ permanent }) => permanent && finish());
    courier.start();
  }

  /** Move failed messages to the outbox that the app sees. Texts of recalled ones end here: the other client heard of the recall
   *  when they were not in its outbox. */
  #handOver(other) {
    if (!other.#slot || !this.#slot) return;
    for (const item of [...this.#slot.items.values()]) {
      const { entry, since, placed } = item;
      const isGone = other.#gone.has(entry.kind === "edit" ? entry.of : placed);
      if (!isGone) {
        const moved = other.#slot.add(entry, since);
        moved.placed = placed;
        other.#slot.keep(moved);
      }
      this.#slot.remove(item);
      const { clientMsgId, error } = entry;
      if (!isGone) other.#emit("failed", { clientMsgId, ...error, message: entry });
    }
    other.#emit("outbox", {});
  }
}
