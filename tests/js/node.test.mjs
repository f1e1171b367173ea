// imd.js and a real node that does well.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, name, node, numbers, Storage, until, WebSocket } from "./kit.mjs";

let real;
before(async () => (real = await node({ limits: { messages_per_second: 400, burst: 400 } })));
const join = (options, how) => client({ url: real.url, ...options }, how);

test("messages arrive in order, once, and are in the history", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  numbers(30).forEach((msg) => a.send({ to: bob, msg }));
  await until(() => b.texts().length === 30 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), numbers(30));
  assert.deepEqual(a.of("accepted").map(({ message }) => message.msg), numbers(30));
  await until(async () => (await b.history({ with: alice })).messages.length === 30);
  const page = await b.history({ with: alice, limit: 10 });
  assert.deepEqual(page.messages.map(({ msg }) => msg), numbers(10, 20));
  assert.equal(page.more, true);
  const pages = await Promise.all(numbers(9).map(() => b.history({ all: true, before: page.messages[0].id, limit: 5 })));
  pages.forEach(({ messages }) => assert.deepEqual(messages.map(({ msg }) => msg), numbers(5, 15)));
  await assert.rejects(b.history({ with: alice, all: true }), { code: "invalid_message" });
});

test("after a reload it goes on where it was", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const a = join({ userId: alice });
  let b = join({ userId: bob, storage });
  await b.opened();
  const { device } = b;
  a.send({ to: bob, msg: "one" });
  await until(() => b.texts().length === 1);
  await b.stop();
  a.send({ to: bob, msg: "two" });
  await until(() => a.of("accepted").length === 2);
  b = join({ userId: bob, storage });
  await until(() => b.texts().length === 1);
  assert.deepEqual(b.texts(), ["two"]);
  assert.equal(b.device, device);
  assert.equal(b.of("connected")[0].recovered, true);
  assert.equal(b.of("gap").length, 0);
});

test("the outbox survives a reload, in order, and nothing goes out twice", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const away = join({ userId: alice, storage, url: "ws://127.0.0.1:9/ws" });
  const sent = numbers(20).map((msg) => away.send({ to: bob, msg }).clientMsgId);
  await until(() => away.device !== "");
  await away.stop();
  const b = join({ userId: bob });
  const a = join({ userId: alice, storage });
  await until(() => b.texts().length === 20 && a.outbox.length === 0);
  assert.deepEqual(b.of("message").map(({ clientMsgId }) => clientMsgId), sent);
  const again = join({ userId: alice, storage });
  await again.opened();
  assert.deepEqual(again.outbox, []);
  assert.deepEqual([...storage.items.keys()].filter((key) => /:out\d/.test(key)), []);
});

test("a flood goes out at the node's pace, in order, and none is refused", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const heard = [];
  class Heard extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => heard.push(data));
    }
  }
  const [a, b] = [join({ userId: alice, maxOutbox: 500, WebSocket: Heard }), join({ userId: bob })];
  await a.opened();
  const before = Date.now();
  numbers(500).forEach((msg) => a.send({ to: bob, msg }));
  assert.throws(() => a.send({ to: bob, msg: "one too many" }), { code: "outbox_full" });
  await until(() => b.texts().length === 500);
  assert.deepEqual(b.texts(), numbers(500));
  await until(() => a.outbox.length === 0);
  assert.ok(Date.now() - before > 200, "400 a second");
  // On a slow machine this takes so long that the client pings, too. The answer with a `ref` is about the archive; `state` comes
  // by itself.
  const others = ["pong", "state"];
  const frames = heard.map((text) => JSON.parse(text)).filter(({ type, ref }) => !others.includes(type) && ref === undefined);
  assert.deepEqual(frames.filter(({ type }) => type !== "accepted").map(({ type, code }) => code ?? type), ["connected"]);
  assert.equal(frames.length, 501);
});

test("two tabs are two devices, and neither loses the other's outbox", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const away = { userId: alice, storage, url: "ws://127.0.0.1:9/ws" };
  const tabs = [join(away), join(away), join(away)];
  await until(() => tabs.every((tab) => tab.device !== ""));
  assert.equal(new Set(tabs.map((tab) => tab.device)).size, 3);
  tabs.forEach((tab, i) => numbers(3, 10 * i).forEach((msg) => tab.send({ to: bob, msg })));
  await Promise.all(tabs.map((tab) => tab.stop()));
  // Only one is opened again.
  const [a, b] = [join({ userId: alice, storage }), join({ userId: bob })];
  await until(() => a.of("accepted").length === 9 && b.texts().length === 9);
  for (const i of [0, 1, 2]) {
    const texts = b.texts().filter((text) => Math.floor(text / 10) === i);
    assert.deepEqual(texts, numbers(3, 10 * i));
  }
  assert.deepEqual(a.of("state").filter(({ code }) => code === 4003), []);
  const second = join({ userId: alice, storage });
  await second.opened();
  assert.notEqual(second.device, a.device);
  await b.send({ to: alice, msg: "to both" });
  await until(() => a.texts().length === 1 && second.texts().length === 1);
});

test("a device that is in use is waited for", async () => {
  const options = { userId: name("alice"), storage: new Storage(), device: "phone" };
  const first = join(options);
  await first.opened();
  const second = join(options);
  await until(() => second.state === "waiting");
  await first.stop();
  await second.opened();
  assert.deepEqual(first.of("state").map(({ code }) => code).filter(Boolean), []);
});

test("a visitor stays the same, unless the node has forgotten it", async () => {
  const storage = new Storage();
  const options = { isVisitor: true, storage };
  let visitor = join(options);
  await visitor.opened();
  const { userId } = visitor;
  assert.match(userId, /^visitor-/);
  await visitor.stop();
  visitor = join(options);
  await visitor.opened();
  assert.equal(visitor.userId, userId);
  await visitor.stop();
  storage.setItem("imd:visitor:visitorToken", `${userId}.wrong`);
  visitor = join(options, { start: false });
  visitor.send({ msg: "is anyone there?" });
  visitor.start();
  await until(() => visitor.of("accepted").length === 1);
  assert.notEqual(visitor.userId, userId);
});

test("what can never be accepted fails, and can be tried again or taken out", async () => {
  const bob = name("bob");
  const [a, b] = [join({ userId: name("alice") }), join({ userId: bob })];
  await a.opened();
  const escaped = "\u0001".repeat(65_536); // six bytes each, in JSON
  a.send({ to: bob, msg: escaped });
  await until(() => b.texts().length === 1);
  assert.equal(b.texts()[0], escaped);
  const large = a.send({ to: bob, msg: "x".repeat(3_000_000) });
  const wide = a.send({ group: numbers(501), msg: "hi" });
  const wrong = a.send({ to: "x".repeat(200), msg: "hi" });
  a.send({ to: bob, msg: "fine" });
  await until(() => a.of("failed").length === 3 && b.texts().length === 2 && a.of("accepted").length === 2);
  assert.equal(large.error.code, "too_large");
  assert.equal(wide.error.code, "too_large");
  assert.equal(wrong.error.code, "invalid_message");
  assert.equal(a.outbox.length, 3);
  assert.ok(a.retry(wrong.clientMsgId));
  await until(() => a.of("failed").length === 4);
  for (const entry of [large, wide, wrong]) assert.ok(a.cancel(entry.clientMsgId));
  assert.deepEqual(a.outbox, []);
  assert.equal(a.of("state").length, 2, "the connection stayed");
  assert.throws(() => a.send({ to: bob, msg: "" }), { code: "invalid_message" });
  assert.throws(() => a.send({ to: bob, msg: "\ud800" }), { code: "invalid_message" });
  assert.throws(() => a.send({ to: [bob], msg: "hi" }), { code: "invalid_message" });
});

test("a storage that is full loses nothing", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const away = join({ userId: alice, storage, url: "ws://127.0.0.1:9/ws" });
  await until(() => away.device !== "");
  storage.full = true;
  away.send({ to: bob, msg: "one" });
  assert.equal(away.of("error")[0].code, "storage");
  storage.full = false;
  away.send({ to: bob, msg: "two" });
  await away.stop();
  const b = join({ userId: bob });
  const a = join({ userId: alice, storage });
  await until(() => b.texts().length === 2);
  storage.full = true;
  a.send({ to: bob, msg: "three" });
  await until(() => b.texts().length === 3 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), ["one", "two", "three"]);
});

test("an error of the connect signal ends it, with the reason", async () => {
  const a = join({ userId: name("alice"), loginType: "WIZARD" });
  await until(() => a.state === "closed");
  assert.equal(a.of("state").at(-1).permanent, true);
  assert.equal(a.of("error")[0].code, "invalid_message");
});
