// Support for the tests of imd.js: real nodes (made by the trial process), clients, waits, a proxy, a fake node.
import { createHash, createHmac, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { connect, createServer as createTcpServer } from "node:net";
import { after } from "node:test";
import { Client } from "../../imd/web/client/imd.js";

const WAIT_MS = 180_000;
export const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;

// Registered here: an `after` within a hook or a test would run at that one's end.
const ends = [];
after(async () => {
  for (const end of ends.reverse()) await end();
});

/** Wait for a condition, with a deadline. */
export async function until(condition, what = condition.toString()) {
  for (const end = performance.now() + WAIT_MS; ; ) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Call `run` as in a page: with these globals, a `document`, and a window, which is its argument. */
export async function asPage(globals, run) {
  const page = new EventTarget();
  const stubs = {
    document: new EventTarget(),
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
    ...globals,
  };
  const kept = Object.keys(stubs).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const [name, value] of Object.entries(stubs)) {
    const get = typeof value === "function" && value.isGetter;
    Object.defineProperty(globalThis, name, get ? { get: value, configurable: true } : { value, configurable: true, writable: true });
  }
  try {
    return await run(page);
  } finally {
    for (const [name, descriptor] of kept) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete globalThis[name];
    }
  }
}

/** For `asPage`: a global whose reading throws. */
export function forbidden() {
  throw new DOMException("Access is denied for this document.", "SecurityError");
}
forbidden.isGetter = true;

// ---- real nodes

async function call(path, body = {}) {
  const answer = await fetch(process.env.IMD_CONTROL + path, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** The node without settings that all files share: nobody stops it. */
export const sharedNode = () => call("shared");

/** A node of its own. `act` is start, stop, kill, pause or resume. */
export async function node(ini) {
  const { name, url } = await call("new", ini);
  const act = (what) => call(`${name}/${what}`);
  ends.push(() => act("kill"));
  return { url, act };
}

/** A JWT of HS256. */
export function jwt(secret, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const head = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${head}.${createHmac("sha256", secret).update(head).digest("base64url")}`;
}

// ---- clients

/** A storage that tests can inspect, and can make fail. */
export class Storage {
  items = new Map();
  full = false;
  writes = 0;
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, text) {
    if (this.full) throw new Error("quota exceeded");
    this.writes++;
    this.items.set(key, text);
  }
  removeItem(key) {
    this.items.delete(key);
  }
}

export const name = (word) => `${word}-${randomUUID().slice(0, 8)}`;

/** A started client that records its events: all in `events`, one type by `of("message")`. */
export function client(options, { start = true } = {}) {
  const made = new Client({
    WebSocket,
    loginType: options.isVisitor ? undefined : "USER_TYPE",
    minBackoffMs: 20,
    maxBackoffMs: 300,
    ...options,
  });
  made.events = [];
  made.of = (type) => made.events.filter((event) => event.type === type).map((event) => event.detail);
  made.texts = () => made.of("message").map((message) => message.msg);
  made.opened = () => until(() => made.state === "open", "open");
  for (const type of ["state", "connected", "message", "sent", "edit", "recall", "react", "room", "accepted", "failed", "gap", "error", "leaving", "outbox", "conversations", "presence", "typing", "signal", "refused"]) {
    made.on(type, (detail) => void made.events.push({ type, detail }));
  }
  ends.push(() => made.stop());
  if (start) made.start();
  return made;
}

export const numbers = (count, from = 0) => Array.from({ length: count }, (_, i) => `${from + i}`);

// ---- a proxy whose connections can be cut

/** `mute`: the node's bytes are dropped. `cut()` ends all connections without a close frame. */
export async function proxy(target) {
  const { port, hostname } = new URL(target);
  const pairs = new Set();
  const made = { mute: false, cuts: 0 };
  const server = createTcpServer((inner) => {
    const outer = connect(port, hostname);
    const pair = [inner, outer];
    pairs.add(pair);
    inner.on("data", (data) => outer.write(data));
    outer.on("data", (data) => made.mute || inner.write(data));
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => {
        pairs.delete(pair);
        pair.forEach((one) => one.destroy());
      });
    }
  });
  made.cut = () => {
    made.cuts++;
    pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
  };
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    made.cut();
    server.close();
  });
  made.url = `ws://127.0.0.1:${server.address().port}/ws`;
  return made;
}

// ---- a node that the test controls

class Link {
  frames = []; // from the client
  closed = false;
  #socket;
  #fake;
  #data = Buffer.alloc(0);

  constructor(socket, fake) {
    this.#socket = socket;
    this.#fake = fake;
    socket.on("data", (data) => this.#read(data));
    socket.on("error", () => {});
    socket.on("close", () => (this.closed = true));
  }

  of(type) {
    return this.frames.filter((frame) => frame.type === type && !frame.isConnect);
  }

  send(frame) {
    this.raw(1, Buffer.from(typeof frame === "string" ? frame : JSON.stringify(frame)));
  }

  /** Answer `connected`; `fields` replace those of a usual answer. */
  welcome(fields = {}) {
    const limits = { messageBytes: 1000, groupMembers: 5, ackWindow: 8, messagesPerSecond: 0 };
    const usual = { v: 1, userId: "bob", device: "d", epoch: "E", seq: 0, recovered: true, pingSeconds: 25 };
    this.send({ type: "connected", ...usual, limits, serverTime: Date.now(), ...fields });
  }

  message(seq, id = `id-${seq}`) {
    this.send({ seq, id, userId: "alice", to: "bob", msg: id, sendTime: seq });
  }

  close(code) {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.raw(8, payload);
  }

  cut() {
    this.#socket.destroy();
  }

  raw(opcode, payload) {
    const head = [0x80 | opcode];
    if (payload.length < 126) head.push(payload.length);
    else head.push(126, payload.length >> 8, payload.length & 255);
    this.#socket.write(Buffer.concat([Buffer.from(head), payload]));
  }

  #read(data) {
    this.#data = Buffer.concat([this.#data, data]);
    while (this.#data.length >= 6) {
      const short = this.#data[1] & 127;
      const at = short === 126 ? 4 : 2;
      const length = short === 126 ? this.#data.readUInt16BE(2) : short;
      if (this.#data.length < at + 4 + length) return;
      const mask = this.#data.subarray(at, at + 4);
      const payload = Buffer.from(this.#data.subarray(at + 4, at + 4 + length)).map((byte, i) => byte ^ mask[i % 4]);
      const opcode = this.#data[0] & 15;
      this.#data = this.#data.subarray(at + 4 + length);
      if (opcode === 8) {
        this.raw(8, payload);
        this.#socket.end();
      } else if (opcode === 1) {
        const frame = JSON.parse(payload.toString());
        this.frames.push(frame);
        this.#fake.onFrame(frame, this);
      }
    }
  }
}

/** `links` are its connections, `link` is the last one, `paths` are their paths with queries. `onFrame` answers frames; by default it welcomes and accepts. */
export async function fakeNode(onFrame) {
  const fake = { links: [], paths: [], asked: 0, onFrame: onFrame ?? usual };
  Object.defineProperty(fake, "link", { get: () => fake.links.at(-1) });
  const server = createServer();
  server.on("upgrade", (request, socket) => {
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = createHash("sha1").update(key).digest("base64");
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    fake.paths.push(request.url);
    fake.links.push(new Link(socket, fake));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    fake.links.forEach((link) => link.cut());
    server.close();
  });
  fake.url = `ws://127.0.0.1:${server.address().port}/ws`;
  return fake;
}

let ids = 0;
export const accept = (link, { clientMsgId }) =>
  link.send({ type: "accepted", clientMsgId, id: `a-${++ids}`, sendTime: 1 });

export function usual(frame, link) {
  if (frame.isConnect) link.welcome();
  else if (frame.type === "ping") link.send({ type: "pong" });
  else if (frame.type === undefined) accept(link, frame);
}
