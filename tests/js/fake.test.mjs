// imd.js with a fake node, for answers that real nodes give rarely or never.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../../imd/web/client/imd.js";
import { accept, asPage, client, fakeNode, numbers, Storage, until, usual, WebSocket } from "./kit.mjs";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const join = (fake, options) => client({ url: fake.url, userId: "bob", ...options });
const ids = (made) => made.of("message").map(({ id }) => id);

test("acknowledgements: the cursor first, many in one, none before the listener's promise", async () => {
  const fake = await fakeNode();
  const storage = new Storage();
  const b = join(fake, { storage });
  let release;
  b.on("message", ({ seq }) => (seq === 10 ? new Promise((resolve) => (release = resolve)) : undefined));
  await b.opened();
  const { writes } = storage;
  for (let seq = 1; seq <= 9; seq++) fake.link.message(seq);
  await until(() => fake.link.of("ack").at(-1)?.seq === 9);
  assert.ok(fake.link.of("ack").length <= 3, "4 is half of the window");
  assert.ok(storage.writes - writes < 9);
  assert.equal(fake.link.of("ack").at(-1).epoch, "E");
  fake.link.message(10);
  fake.link.message(11);
  await until(() => b.of("message").length === 11);
  await pause(300);
  assert.equal(fake.link.of("ack").at(-1).seq, 9);
  // The connection breaks: 10 and 11 come again, are not delivered again, and are acknowledged in the end.
  fake.link.cut();
  await until(() => fake.links.length === 2 && b.state === "open");
  assert.deepEqual(fake.link.frames[0].cursor, { epoch: "E", seq: 9 });
  assert.ok(fake.link.frames[0].attempt > fake.links[0].frames[0].attempt);
  release();
  await pause(10);
  assert.deepEqual(fake.link.of("ack"), [], "never more than this connection has brought");
  fake.link.send({ type: "reset", epoch: "E", seq: 9, recovered: true });
});

test("across epochs, known messages are dropped by their ids, after a reload too", async () => {
  const storage = new Storage();
  const fake = await fakeNode();
  let b = join(fake, { storage });
  await b.opened();
  for (let seq = 1; seq <= 150; seq++) fake.link.message(seq);
  await until(() => fake.link.of("ack").at(-1)?.seq === 150);
  fake.link.send({ type: "reset", epoch: "F", seq: 40, recovered: false });
  fake.link.message(41, "id-149");
  fake.link.message(42, "new");
  await until(() => ids(b).includes("new"));
  assert.equal(b.of("gap").length, 1);
  await until(() => fake.link.of("ack").at(-1)?.seq === 42);
  const acks = fake.link.of("ack").filter(({ epoch }) => epoch === "F");
  assert.equal(acks[0].seq, 40, "the break was seen");
  await b.stop();

  fake.onFrame = (frame, link) => frame.isConnect && link.welcome({ epoch: "G", seq: 5, recovered: false });
  b = join(fake, { storage });
  await b.opened();
  assert.deepEqual(fake.link.frames[0].cursor, { epoch: "F", seq: 42 });
  ["id-1", "id-100", "newer", "new"].forEach((id, i) => fake.link.message(6 + i, id));
  await until(() => fake.link.of("ack").at(-1)?.seq === 9);
  assert.deepEqual(ids(b), ["newer"]);
  assert.equal(b.of("gap").length, 1);
});

test("a temporary error: the message is sent again after the pause, and the order stays", async () => {
  let refused = 0;
  const taken = [];
  const fake = await fakeNode((frame, link) => {
    if (frame.isConnect) return link.welcome();
    const { clientMsgId, msg } = frame;
    if (msg && Number(msg) % 5 === 0 && refused++ < 7) {
      const code = refused % 2 ? "rate_limited" : "unavailable";
      return link.send({ type: "error", clientMsgId, code, reason: "", temporary: true, retryAfterMs: 30 });
    }
    taken.push(msg);
    accept(link, frame);
  });
  const a = join(fake);
  numbers(20).forEach((msg) => a.send({ to: "alice", msg }));
  await until(() => a.outbox.length === 0);
  assert.deepEqual(taken, numbers(20));
  assert.ok(refused >= 7);
});

test("maxInFlight messages are unanswered at most, one of each conversation", async () => {
  const fake = await fakeNode((frame, link) => frame.isConnect && link.welcome());
  const a = join(fake, { maxInFlight: 3 });
  numbers(10).forEach((msg, i) => a.send({ to: `user-${i >> 1}`, msg }));
  await a.opened();
  const messages = () => fake.link.frames.filter(({ msg }) => msg);
  await until(() => messages().length === 3);
  await pause(50);
  assert.deepEqual(messages().map(({ msg }) => msg), ["0", "2", "4"]);
  accept(fake.link, messages()[0]);
  await until(() => messages().length === 4);
  assert.equal(messages()[3].msg, "1");
});

test("a message that may be in an inbox is not sent again when the node may have forgotten it", async () => {
  const storage = new Storage();
  const fake = await fakeNode((frame, link) => frame.isConnect && link.welcome());
  const a = join(fake, { storage, dedupSeconds: 0.5 });
  const first = a.send({ to: "alice", msg: "sent" });
  const second = a.send({ to: "alice", msg: "never sent" });
  await until(() => first.state === "sent");
  await a.stop();
  await pause(500);
  fake.onFrame = usual;
  const again = join(fake, { storage, dedupSeconds: 0.5 });
  await until(() => again.of("accepted").length === 1 && again.of("failed").length === 1);
  assert.equal(again.of("failed")[0].code, "expired");
  assert.equal(again.of("accepted")[0].clientMsgId, second.clientMsgId);
  assert.ok(again.retry(first.clientMsgId));
  await until(() => again.outbox.length === 0);
});

test("another user's outbox is not sent", async () => {
  const storage = new Storage();
  const fake = await fakeNode((frame, link) => frame.isConnect && link.welcome());
  const a = join(fake, { storage, userId: undefined });
  a.send({ to: "alice", msg: "from bob" });
  await a.opened();
  await a.stop();
  fake.onFrame = (frame, link) => (frame.isConnect ? link.welcome({ userId: "eve" }) : usual(frame, link));
  const e = join(fake, { storage, userId: undefined });
  await until(() => e.of("failed").length === 1);
  assert.equal(e.of("failed")[0].code, "other_user");
  assert.equal(e.userId, "eve");
  assert.deepEqual(fake.link.frames.filter(({ msg }) => msg), []);
});

test("close codes by the table, and by their range", async () => {
  const expected = { 4000: "closed", 4002: "closed", 4003: "closed", 4004: "closed", 4077: "closed" };
  for (const code of [4000, 4002, 4003, 4004, 4077, 4100, 4101, 4177, 4200, 4277, 4400, 1011]) {
    const fake = await fakeNode();
    const b = join(fake);
    await b.opened();
    fake.link.close(code);
    const { detail } = await until(() => b.events.find(({ detail }) => detail.code === code));
    assert.equal(detail.state, expected[code] ?? "waiting", `${code}`);
    assert.equal(detail.permanent ?? false, code in expected, `${code}`);
    if (code >= 4200 && code < 4300) assert.equal(detail.retryInMs, 0);
    if (code in expected) b.start();
    await until(() => fake.links.length === 2 && b.state === "open");
    await b.stop();
  }
});

test("back-off grows, with jitter, and a sign of the network ends it", async () => {
  const fake = await fakeNode((frame, link) => frame.isConnect && link.cut());
  const b = join(fake, { minBackoffMs: 4, maxBackoffMs: 64 });
  await until(() => fake.links.length >= 10);
  const waits = b.of("state").filter(({ state }) => state === "waiting").map(({ retryInMs }) => retryInMs);
  waits.forEach((wait, i) => assert.ok(wait <= Math.min(64, 4 * 2 ** i), `${waits}`));
  await b.stop();

  await asPage({}, async (page) => {
    const slow = join(fake, { minBackoffMs: 1e9, maxBackoffMs: 1e9, pongSeconds: 1e6 });
    await until(() => slow.state === "waiting");
    fake.onFrame = usual;
    page.dispatchEvent(new Event("online"));
    await slow.opened();
    // Nobody answers: it does not wait for as long as with a network.
    fake.onFrame = () => {};
    page.dispatchEvent(new Event("offline"));
    await until(() => fake.link.of("ping").length === 1);
    await until(() => slow.state === "waiting");
    await slow.stop();
  });
});

test("frames that make no sense change nothing", async () => {
  const fake = await fakeNode();
  const b = join(fake);
  await b.opened();
  const { link } = fake;
  const odd = ["{", "[]", "null", "7", '"x"', "{}", '{"seq":"1"}', '{"seq":1.5}', '{"type":7}', '{"type":"teleport"}'];
  for (const text of [...odd, '{"type":"accepted"}', '{"type":"history"}', '{"type":"reset"}', '{"type":"error"}']) {
    link.send(text);
  }
  link.send({ type: "connected" });
  link.raw(2, Buffer.from("binary"));
  link.send({ seq: 1, kind: "sticker", id: "x" });
  link.message(2);
  link.message(2);
  await until(() => ids(b).length === 1 && link.of("ack").at(-1)?.seq === 2);
  assert.equal(b.of("state").length, 2);
  assert.ok(b.of("error").length >= 5);
});

test("a hole: it asks again; a second time it goes on, and says so", async () => {
  const fake = await fakeNode();
  const b = join(fake);
  await b.opened();
  fake.link.message(2);
  await until(() => fake.links.length === 2 && b.state === "open");
  assert.deepEqual(ids(b), []);
  fake.link.message(2);
  await until(() => ids(b).length === 1);
  assert.equal(b.of("gap").length, 1);
});

test("a hole that was mended is forgotten: the next one is asked for, too", async () => {
  const fake = await fakeNode();
  const b = join(fake);
  await b.opened();
  for (const last of [1, 3, 5]) {
    const { length } = fake.links;
    fake.link.message(last);
    await until(() => b.of("message").at(-1)?.seq === last);
    fake.link.message(last + 2);
    fake.onFrame = (frame, link) => frame.isConnect && link.welcome({ seq: frame.cursor.seq });
    await until(() => fake.links.length > length && b.state === "open");
    fake.link.message(last + 1);
  }
  await until(() => b.of("message").length === 6);
  assert.deepEqual(ids(b), [1, 2, 3, 4, 5, 6].map((seq) => `id-${seq}`));
  assert.deepEqual([b.of("gap").length, b.of("error").filter(({ code }) => code === "hole").length], [0, 3]);
});

test("1009 fails the largest, so that the others get through", async () => {
  const fake = await fakeNode((frame, link) => (frame.msg?.length > 500 ? link.close(1009) : usual(frame, link)));
  const a = join(fake);
  const large = a.send({ to: "alice", msg: "x".repeat(600) });
  const small = a.send({ to: "carol", msg: "x" });
  await until(() => a.outbox.length === 1 && small.state === "accepted");
  assert.equal(large.error.code, "too_large");
});

test("a node that says nothing is given up", async () => {
  const fake = await fakeNode(() => {});
  const b = join(fake, { connectSeconds: 0.1 });
  await until(() => fake.links.length >= 3);
  assert.ok(b.of("state").some(({ reason }) => reason === "not connected in time"));
  await assert.rejects(
    client({ url: fake.url, userId: "bob", historySeconds: 0.1 }).history({ with: "alice" }),
    { code: "timeout" },
  );
});

test("nothing runs after stop()", async () => {
  const fake = await fakeNode();
  const quiet = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const before = quiet();
  const made = Array.from({ length: 5 }, () => new Client({ url: fake.url, userId: "bob", WebSocket }));
  made[0].start();
  await until(() => made[0].state === "open");
  made[0].send({ to: "alice", msg: "hi" });
  made[1].start(); // stopped while it connects
  const history = made[0].history({ with: "alice" });
  const rejected = assert.rejects(history, { code: "stopped" });
  await Promise.all(made.map((one) => one.stop()));
  await rejected;
  await until(() => quiet() <= before, "no timers");
  await assert.rejects(made[0].history({ with: "alice" }), { code: "stopped" });
  made[0].start();
  await until(() => made[0].state === "open");
  made[0].stop();
  made[0].start(); // at once
  const { length } = fake.links;
  await until(() => fake.links.length > length && made[0].state === "open");
  made[0].stop();
  made[0].start();
  await made[0].stop();
  assert.equal(made[0].state, "closed");
  await until(() => quiet() <= before, "no timers");
});

test("an outbox of a tab that is gone goes out as that tab's device", async () => {
  const storage = new Storage();
  const fake = await fakeNode((frame, link) => frame.isConnect && link.welcome());
  const tabs = [join(fake, { storage }), join(fake, { storage })];
  await Promise.all(tabs.map((tab) => tab.opened()));
  const devices = tabs.map((tab) => tab.device);
  const entry = tabs[1].send({ to: "alice", msg: "one" });
  tabs[1].send({ to: "alice", msg: "two" });
  await until(() => fake.links.some((link) => link.frames.some(({ msg }) => msg)));
  await tabs[1].stop();
  assert.deepEqual(tabs[1].outbox.map(({ msg }) => msg), ["one", "two"], "can still be seen");
  fake.onFrame = (frame, link) => (frame.msg === "two" ? refuse(link, frame) : usual(frame, link));
  const refuse = (link, { clientMsgId }) => link.send({ type: "error", clientMsgId, code: "forbidden", reason: "" });
  fake.links.forEach((link) => link.cut());
  await until(() => tabs[0].of("accepted").length === 1 && tabs[0].of("failed").length === 1);
  assert.equal(tabs[0].of("accepted")[0].clientMsgId, entry.clientMsgId);
  const link = fake.links.find(({ frames }) => frames.some(({ msg }) => msg === "two"));
  assert.equal(link.frames[0].device, devices[1]);
  assert.deepEqual(tabs[0].outbox.map(({ msg, state }) => [msg, state]), [["two", "failed"]]);
});

for (const locks of ["Web Locks", "leases"]) {
  test(`tabs share their slots by ${locks}`, async (context) => {
    if (locks === "Web Locks" && !globalThis.navigator?.locks) return context.skip("this Node has none");
    await asPage({ navigator: locks === "leases" ? {} : navigator }, async () => {
      const fake = await fakeNode();
      const storage = new Storage();
      const [one, two] = [join(fake, { storage }), join(fake, { storage })];
      await Promise.all([one.opened(), two.opened()]);
      assert.notEqual(one.device, two.device);
      const { device } = one;
      await one.stop();
      const three = join(fake, { storage });
      await three.opened();
      assert.equal(three.device, device);
      await Promise.all([two.stop(), three.stop()]);
      assert.deepEqual([...storage.items.keys()].filter((key) => key.endsWith(":lease")), []);
    });
  });
}

test("accepted(): the answer, the refusal, and the end of the client", async () => {
  const fake = await fakeNode((frame, link) => {
    if (frame.isConnect || frame.msg === "good") return usual(frame, link);
    if (frame.msg !== "bad") return;
    link.send({ type: "error", clientMsgId: frame.clientMsgId, code: "forbidden", reason: "no", temporary: false });
  });
  const a = join(fake);
  const [good, bad, silent] = ["good", "bad", "silent"].map((msg) => a.send({ to: msg, msg }));
  const answer = await a.accepted(good);
  assert.deepEqual([answer.message, answer.changed], [good, true]);
  assert.equal((await a.accepted(good)).id, answer.id, "said once more");
  await assert.rejects(a.accepted(bad), { code: "forbidden" });
  await assert.rejects(a.accepted(bad), { code: "forbidden" });
  const unanswered = assert.rejects(a.accepted(silent), { code: "stopped" });
  await a.stop();
  await unanswered;
  await assert.rejects(a.accepted(silent), { code: "stopped" });
  assert.equal(a.outbox.find(({ msg }) => msg === "silent").state, "waiting");
});
