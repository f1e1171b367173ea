// imd.js and a real node that is killed, stopped and hangs, and connections that break.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, name, node, numbers, proxy, Storage, until } from "./kit.mjs";

let real, way;
before(async () => {
  real = await node({ limits: { messages_per_second: 1000 } });
  way = await proxy(real.url);
});
const join = (options) => client({ url: way.url, ...options });

test("through connections that break, everything arrives in order, once", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  const sent = numbers(300);
  for (const msg of sent) {
    a.send({ to: bob, msg });
    if (msg % 50 === 25) {
      const { length } = b.texts();
      await until(() => b.texts().length > length);
      way.cut();
    }
  }
  await until(() => b.texts().length >= 300 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), sent);
  assert.deepEqual(a.of("accepted").map(({ message }) => message.msg), sent);
});

test("an `accepted` that was lost: sent again, delivered once, answered with the first id", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const a = join({ userId: alice });
  const b = client({ url: real.url, userId: bob });
  await a.opened();
  way.mute = true;
  const [first, second] = ["one", "two"].map((msg) => a.send({ to: bob, msg }));
  await until(() => b.texts().length === 1);
  assert.equal(first.state, "sent");
  assert.equal(a.cancel(first.clientMsgId), false, "it may be delivered");
  way.mute = false;
  way.cut();
  await until(() => b.texts().length === 2 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), ["one", "two"]);
  assert.deepEqual(a.of("accepted").map(({ id }) => id), b.of("message").map(({ id }) => id));
  assert.equal(second.state, "accepted");
});

test("an acknowledgement that was lost: what was had does not come again", async () => {
  const bob = name("bob");
  const storage = new Storage();
  const a = client({ url: real.url, userId: name("alice") });
  let b = join({ userId: bob, storage });
  await b.opened();
  numbers(20).forEach((msg) => a.send({ to: bob, msg }));
  await until(() => b.texts().length === 20);
  way.cut();
  await b.opened();
  await b.stop();
  b = join({ userId: bob, storage });
  a.send({ to: bob, msg: "20" });
  await until(() => b.texts().length);
  assert.deepEqual(b.texts(), ["20"]);
});

test("a node that is killed and comes back", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  await Promise.all([a.opened(), b.opened()]);
  const sent = numbers(200);
  sent.slice(0, 150).forEach((msg) => a.send({ to: bob, msg }));
  await until(() => b.texts().length > 20);
  await real.act("kill");
  await until(() => a.state === "waiting" && b.state === "waiting");
  sent.slice(150).forEach((msg) => a.send({ to: bob, msg }));
  await real.act("start");
  await until(() => b.texts().length >= 200 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), sent);
});

test("a node that hangs is given up, and found again", async () => {
  const bob = name("bob");
  const quick = { pingSeconds: 0.2, pongSeconds: 2, connectSeconds: 4 };
  const [a, b] = [join({ userId: name("alice"), ...quick }), join({ userId: bob, ...quick })];
  await Promise.all([a.opened(), b.opened()]);
  await real.act("pause");
  a.send({ to: bob, msg: "into the dark" });
  await until(() => a.of("state").some(({ reason }) => reason === "a ping was not answered"));
  await until(() => a.of("state").some(({ reason }) => reason === "not connected in time"));
  await real.act("resume");
  await until(() => b.texts().length === 1 && a.outbox.length === 0);
  assert.deepEqual(b.texts(), ["into the dark"]);
});

test("a node that leaves says so, and is waited for", async () => {
  const bob = name("bob");
  const [a, b] = [join({ userId: name("alice") }), join({ userId: bob })];
  await Promise.all([a.opened(), b.opened()]);
  await real.act("stop");
  await until(() => a.of("leaving").length === 1);
  const closed = await until(() => a.of("state").find(({ code }) => code === 4200));
  assert.ok(closed.retryInMs >= a.of("leaving")[0].reconnectMs);
  a.send({ to: bob, msg: "welcome back" });
  await real.act("start");
  await until(() => b.texts().length === 1);
});
