// Values that no node could read, or would take: imd.js refuses them at the call, with an error that names the field.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../../imd/web/client/imd.js";

const HALF = "\ud83d"; // an emoji that was cut in the middle
const to = "bob";

class Silent {
  readyState = 0;
  close() {
    this.readyState = 3;
    queueMicrotask(() => this.onclose?.({ code: 1000, reason: "" }));
  }
}

/** A client that is not connected. */
const made = (t) => {
  const client = new Client({ url: "ws://node/ws", userId: "alice", WebSocket: Silent });
  client.start();
  t.after(() => client.stop());
  return client;
};
const nested = (levels) => (levels === 1 ? {} : { a: nested(levels - 1) });
const circle = {};
circle.circle = circle;
let deepest = {};
for (let i = 0; i < 100_000; i++) deepest = { a: deepest };

const CALLS = {
  msg: [(c) => c.send({ to, msg: `cut ${HALF}` }), (c) => c.edit("m1", { msg: HALF })],
  to: [(c) => c.send({ to: HALF, msg: "x" })],
  group: [(c) => c.send({ group: [to, HALF], msg: "x" })],
  mentions: [(c) => c.send({ to, msg: "x", mentions: [HALF] })],
  replyTo: [(c) => c.send({ to, msg: "x", replyTo: HALF })],
  reaction: [(c) => c.react("m1", HALF)],
  users: [(c) => c.rooms.create({ name: "x", users: [HALF] }), (c) => c.rooms.role("r-1", [{ userId: to, role: HALF }]), (c) => c.watch([HALF])],
  name: [(c) => c.rooms.set("r-1", { name: HALF }), (c) => c.signal({ with: to, name: HALF })],
  posting: [(c) => c.rooms.create({ name: "x", posting: HALF })],
  muted: [(c) => c.settings({ with: to, muted: HALF })],
  data: [{ a: HALF }, { [HALF]: 1 }, { a: [{ b: HALF }] }, nested(33), deepest, circle, { a: 1n }, [], "x", new Date(0), { a: "x".repeat(4089) }].flatMap((data) => [
    (c) => c.send({ to, msg: "x", data }),
    (c) => c.edit("m1", { msg: "x", data }),
    (c) => c.rooms.create({ name: "x", data }),
    (c) => c.signal({ with: to, name: "x", data }),
  ]),
};

for (const [field, calls] of Object.entries(CALLS)) {
  test(`${field} is named, and nothing enters the outbox`, (t) => {
    const client = made(t);
    for (const call of calls) assert.throws(() => call(client), { code: "invalid_message", reason: new RegExp(`^${field}: `) });
    assert.deepEqual(client.outbox, []);
  });
}

test("questions with a lone surrogate are not asked", async (t) => {
  const client = made(t);
  for (const call of [() => client.history({ with: HALF }), () => client.messages([HALF]), () => client.block(HALF), () => client.rooms.members(HALF)]) {
    await assert.rejects(call, { code: "invalid_message" });
  }
});

test("`data` is sent as it was at the call", async (t) => {
  const client = made(t);
  const data = { a: ["😀"], at: new Date(0), left: undefined };
  const entry = client.send({ to, msg: "x", data });
  data.a[0] = HALF;
  assert.deepEqual(entry.data, { a: ["😀"], at: "1970-01-01T00:00:00.000Z" });
  client.send({ to, msg: "x", data: nested(32) });
  client.send({ to, msg: "x", data: { a: "x".repeat(4088) } });
});
