// Plays a scenario of tests/scenarios with imd.js, its clocks and its WebSocket being the test's own.
import { isDeepStrictEqual } from "node:util";
import { Clocks, TIME_MS } from "./clocks.mjs";
import { Client, ConversationsView, ImdError, RoomsView, View } from "../../imd/web/client/imd.js";

const COMPLETE = TIME_MS.toString(16).padStart(12, "0") + "0".repeat(16);
const EVENTS = ["message", "sent", "edit", "recall", "react", "room", "accepted", "failed", "gap", "leaving", "conversations", "presence", "typing", "signal", "refused"];
const ENTRIES = EVENTS.slice(0, 6);
const OPEN = 1;

class Storage {
  items = new Map();
  getItem = (key) => this.items.get(key) ?? null;
  setItem = (key, text) => void this.items.set(key, text);
  removeItem = (key) => void this.items.delete(key);
}

class Mismatch extends Error {}
const differ = (found, expected) => {
  throw new Mismatch(`${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
};
const isNothing = (value) => value === undefined || value === null || value === "" || value === false || value === 0 || isDeepStrictEqual(value, []);
const isName = (value) => typeof value === "string" && value.startsWith("$");
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

export class Player {
  clocks = new Clocks();
  storage = new Storage();
  names = new Map();
  answers = new Map();
  sockets = [];

  constructor(scenario) {
    this.scenario = scenario;
  }

  async play() {
    this.clocks.install();
    try {
      await this.begin();
      for (const [number, step] of this.scenario.steps.entries()) {
        const [kind] = Object.keys(step);
        try {
          await this[`do_${kind}`](step[kind], step);
          await this.clocks.settle();
        } catch (error) {
          throw new Error(`step ${number} ${JSON.stringify(step)}: ${error.message}`, { cause: error });
        }
      }
      // The client's end closes a socket, which needs no node.
      const stopped = this.client.stop();
      await this.clocks.advance(5000);
      await stopped;
    } finally {
      this.clocks.restore();
    }
  }

  /** A new process. */
  async begin() {
    const { holds = false, asks = false, tokens, ...options } = this.scenario.options ?? {};
    Object.assign(this, { holds, asks, sent: [], acked: null, events: [], errors: [], held: new Map(), view: new View("alice"), rooms: new RoomsView("alice"), list: new ConversationsView("alice") });
    const player = this;
    class WebSocket {
      readyState = 0;
      constructor() {
        player.sockets.push(this);
      }
      send(text) {
        player.frame(JSON.parse(text), this);
      }
      close() {
        this.readyState = 3;
        queueMicrotask(() => this.onclose?.({ code: 1000, reason: "" }));
      }
      terminate() {
        this.readyState = 3;
      }
    }
    const mayHave = {};
    if (tokens) {
      this.tokens ??= [...tokens];
      mayHave.token = () => this.tokens.shift() ?? Promise.reject(new Error("there is none"));
    }
    const given = { userId: options.isVisitor || tokens ? undefined : "alice", loginType: options.isVisitor ? undefined : "USER_TYPE", ...mayHave, ...options };
    this.client = new Client({ url: "ws://node/ws", device: "d", storage: this.storage, WebSocket, ...given, userId: given.userId ?? undefined });
    const { client } = this;
    for (const type of EVENTS) client.on(type, (detail) => this.client === client && this.happened(type, detail));
    client.on("error", ({ code }) => this.client === client && this.errors.push(code));
    client.start();
    await this.clocks.settle();
  }

  get socket() {
    return this.sockets.at(-1);
  }

  // ---- what the client did

  frame(frame, socket) {
    if (socket !== this.socket) return;
    if (frame.isConnect) this.signal = frame;
    else if (frame.type === "ack") this.acked = [frame.epoch, frame.seq];
    else if (frame.type === "ping") this.scenario.silent || queueMicrotask(() => this.gives({ type: "pong" }));
    else if (frame.type === "changes" && frame.limit === 0 && !this.asks) {
      queueMicrotask(() => this.gives({ type: "changes", ref: frame.ref, events: [], more: false, complete: COMPLETE }));
    } else this.sent.push(frame);
  }

  gives(frame) {
    const { socket } = this;
    const text = JSON.stringify(frame);
    if (socket.readyState === OPEN) socket.onmessage?.({ data: text });
  }

  happened(type, detail) {
    this.events.push({ type, ...detail });
    if (type === "accepted") {
      this.view.accepted(detail, "alice");
      this.rooms.accepted(detail);
      this.list.accepted(detail);
    }
    if (type === "conversations") this.list.changed(detail);
    if (!ENTRIES.includes(type)) return;
    if (type === "message" || type === "sent") this.list.add(detail);
    else this.list.apply(detail);
    if (type === "room") this.rooms.apply(detail);
    else if (type === "message" || type === "sent") this.view.add(detail);
    else this.view.apply(detail);
    if (this.holds) return new Promise((resolve) => this.held.set(detail.id, resolve));
  }

  // ---- comparing

  filled(value) {
    if (isName(value)) return this.names.get(value);
    if (Array.isArray(value)) return value.map((each) => this.filled(each));
    if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.filled(each)]));
    return value;
  }

  match(expected, found, exact = false) {
    if (isName(expected)) {
      if (!this.names.has(expected) && found) this.names.set(expected, found);
      if (!found || this.names.get(expected) !== found) differ(found, this.names.get(expected) ?? expected);
    } else if (expected === null) {
      if (!isNothing(found)) differ(found, null);
    } else if (Array.isArray(expected)) {
      if (!Array.isArray(found) || found.length !== expected.length) differ(found, expected);
      expected.forEach((each, i) => this.match(each, found[i], exact));
    } else if (isObject(expected)) {
      const keys = (object) => Object.keys(object).sort();
      if (!isObject(found) || (exact && !isDeepStrictEqual(keys(expected), keys(found)))) differ(found, expected);
      for (const [name, value] of Object.entries(expected)) this.match(value, found[name], exact);
    } else if (!Object.is(expected, found)) {
      differ(found, expected);
    }
  }

  // ---- steps: what happens

  async do_open(given, { signal = {} }) {
    const { socket } = this;
    if (!socket || socket.readyState !== 0) throw new Mismatch("the client does not connect");
    socket.readyState = OPEN;
    socket.onopen();
    this.match(signal, this.signal);
    if (given === null) return;
    const { state, events = state, ...fields } = this.filled(given);
    const limits = { messageBytes: 1000, groupMembers: 5, ackWindow: 8, messagesPerSecond: 0 };
    const newer = events ? { features: ["events", "sync", ...(state ? ["state"] : [])] } : {};
    if (events) Object.assign(limits, { dataBytes: 4096, roomMembers: 1000, editSeconds: 86400, recallSeconds: 86400 });
    const usual = { v: 1, userId: "alice", device: "d", epoch: "e", seq: 0, recovered: true, pingSeconds: 25 };
    this.gives({ type: "connected", ...usual, serverTime: TIME_MS + Math.round(this.clocks.now), limits, ...newer, ...fields });
  }

  async do_repeat(count, { do: todo }) {
    for (let i = 0; i < count; i++) {
      const step = JSON.parse(JSON.stringify(todo).replaceAll("#", i));
      const [kind] = Object.keys(step);
      await this[`do_${kind}`](step[kind], step);
    }
  }

  async do_refused(retryAfterMs, { until }) {
    let frame = this.sent.shift();
    for (; frame.msg !== until; frame = this.sent.shift()) {
      const refusal = { type: "error", code: "rate_limited", reason: "", temporary: true, retryAfterMs };
      await this.do_node({ clientMsgId: frame.clientMsgId, ...refusal });
    }
    await this.do_node({ type: "accepted", clientMsgId: frame.clientMsgId, id: "x", sendTime: 1 });
    this.events.splice(0);
  }

  async do_taken(count) {
    for (let i = 0; i < count; i++) await this.do_node({ type: "accepted", clientMsgId: this.sent.shift().clientMsgId, id: `x${i}`, sendTime: 1 });
  }

  async do_node(frames) {
    for (const frame of [frames].flat()) {
      this.gives(this.filled(frame));
      await this.clocks.settle();
    }
  }

  async do_close(code) {
    this.socket.readyState = 3;
    this.socket.onclose({ code: code ?? undefined, reason: "" });
  }

  do_wait(ms) {
    return this.clocks.advance(ms);
  }

  async do_clock(ms) {
    this.clocks.day = ms;
  }

  async do_reload() {
    // A kill leaves nothing but the storage.
    this.clocks.forget();
    this.socket.readyState = 3;
    const { items } = this.storage;
    this.storage = new Storage();
    this.storage.items = new Map(items);
    await this.begin();
  }

  /** An entry that an older version has stored; a `reload` finds it. */
  async do_older(entry) {
    const numbers = (this.storage.getItem("imd:ualice:d:new") ?? "").split(",").filter(Boolean);
    const n = 50 + numbers.length;
    this.storage.setItem("imd:ualice:d:new", [...numbers, n].join(","));
    const kept = { queuedAt: TIME_MS, state: "waiting", ...entry };
    this.storage.setItem(`imd:ualice:d:new${n}`, JSON.stringify({ entry: kept, since: null }));
  }

  async do_start() {
    this.client.start();
  }

  async do_stop() {
    await this.client.stop();
  }

  async do_handled(id) {
    this.held.get(id)();
  }

  async do_call(name, { args = {}, as, gives, fails }) {
    let result;
    try {
      result = this.call(name, this.filled(args));
    } catch (error) {
      return this.match(fails ?? null, error.code);
    }
    if (fails !== undefined) throw new Mismatch("it did not fail");
    if (as !== undefined) {
      const answer = { settled: false };
      Promise.resolve(result).then(
        (value) => Object.assign(answer, { settled: true, value }),
        (error) => Object.assign(answer, { settled: true, error }),
      );
      this.answers.set(as, answer);
    } else {
      Promise.resolve(result).catch(() => {});
    }
    if (gives !== undefined) this.match(gives, result);
  }

  call(name, args) {
    const { client } = this;
    const { id, room, users, ...rest } = args;
    switch (name) {
      case "cancel":
      case "retry":
        return client[name](args.clientMsgId);
      case "edit":
        return client.edit(id, rest);
      case "recall":
        return client.recall(id);
      case "react":
        return client.react(id, rest.reaction, rest.on);
      case "messages":
        return client.messages(args.ids);
      case "watch":
        return client.watch(args.users);
      case "block":
        return client.block(args.userId, args.on);
      case "rooms.create":
      case "rooms.list":
        return client.rooms[name.slice(6)](args);
      case "rooms.add":
      case "rooms.remove":
      case "rooms.role":
        return client.rooms[name.slice(6)](room, users, rest);
    }
    if (name.startsWith("rooms.")) return client.rooms[name.slice(6)](room, rest);
    return client[name](args);
  }

  // ---- steps: what is expected

  do_sent(frames) {
    this.match(frames, this.sent.splice(0), true);
  }

  do_acked(expected) {
    this.match(expected, this.acked);
    this.acked = null;
  }

  do_events(expected) {
    this.match(expected, this.events.splice(0));
  }

  do_errors(expected) {
    this.match(expected, this.errors.splice(0));
  }

  do_state(expected) {
    this.match(expected, this.client.state);
  }

  do_outbox(expected) {
    this.match(expected, this.client.outbox);
  }

  do_answer(name, { is, fails }) {
    const { settled, value, error } = this.answers.get(name);
    if (!settled) throw new Mismatch("there is no answer yet");
    if (error && !(error instanceof ImdError)) throw error;
    this.match(fails ?? null, error?.code);
    if (is !== undefined) this.match(is, value);
  }

  get #stored() {
    return [...this.storage.items.values()].join("\n");
  }

  do_keeps(texts) {
    for (const text of texts) if (!this.#stored.includes(text)) throw new Mismatch(`${text} is not in the store`);
  }

  do_lacks(texts) {
    for (const text of texts) if (this.#stored.includes(text)) throw new Mismatch(`${text} is in the store`);
  }

  do_page(messages) {
    for (const message of messages) this.view.add(message);
  }

  do_view(expected) {
    this.match(expected, this.view.messages);
  }

  do_page_of_list(page) {
    this.list.put(this.filled(page));
  }

  do_list(expected, { unread, incomplete }) {
    this.match(expected, this.list.all);
    if (unread !== undefined) this.match(unread, this.list.unread);
    if (incomplete !== undefined) this.match(incomplete, this.list.incomplete);
  }

  do_known(expected, { receipts = true }) {
    const key = ({ with: other, room }) => (room ? `room ${room}` : other ? `with ${other}` : "group");
    const found = this.client.knownConversations.sort((one, other) => (key(one) < key(other) ? -1 : 1));
    this.match(expected, found);
    this.match(receipts, this.client.receipts);
  }

  do_present(expected) {
    this.match(expected, Object.fromEntries(this.client.present), true);
  }

  do_page_of_rooms(page) {
    this.rooms.put(page);
  }

  do_rooms(expected) {
    this.match(expected, this.rooms.all);
  }
}
