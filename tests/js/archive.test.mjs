// imd.js and a real node: questions about the archive.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, name, node, sharedNode, Storage, until } from "./kit.mjs";

let real;
before(async () => {
  real = await sharedNode();
});
const knowsComplete = (storage) => [...storage.items.values()].some((text) => /"complete":"[0-9a-f]{28}"/.test(text));
const join = (options) => client({ url: real.url, ...options });

test("messages by their ids, and pages in both directions", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  const ids = [];
  for (const msg of ["one", "two", "three"]) ids.push((await a.accepted(a.send({ to: bob, msg }))).id);
  await until(async () => (await b.messages(ids)).length === 3);
  assert.deepEqual((await b.messages([ids[2], "f".repeat(28), ids[0]])).map(({ id }) => id), [ids[0], ids[2]]);
  const page = await b.history({ with: alice, after: ids[0], limit: 1 });
  assert.deepEqual([page.messages.map(({ id }) => id), page.more, page.moreAfter], [[ids[1]], true, true]);
  const around = await b.history({ with: alice, around: ids[1], limit: 3 });
  assert.deepEqual(around.messages.map(({ msg }) => msg), ["one", "two", "three"]);
});

test("how far the archive is, is stored at the first connect", async () => {
  const storage = new Storage();
  const a = join({ userId: name("alice"), storage });
  await until(() => knowsComplete(storage));
  const { events, more, complete } = await a.changes({ all: true });
  assert.deepEqual([events, more, complete.length], [[], false, 28]);
});

test("an event that left the inbox unseen is read from the archive, after the gap", async () => {
  const small = await node({ inbox: { max_messages: 20 }, limits: { messages_per_second: 1000 } });
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const a = client({ url: small.url, userId: alice });
  let b = client({ url: small.url, userId: bob, device: "phone", storage });
  await until(() => knowsComplete(storage));
  await b.stop();
  const { room } = await a.accepted(a.rooms.create({ name: "Weekend", users: [bob] }));
  for (let i = 0; i < 60; i++) a.send({ to: bob, msg: `${i}` });
  await until(() => a.outbox.length === 0);
  b = client({ url: small.url, userId: bob, device: "phone", storage });
  await until(() => b.of("room").length === 1);
  assert.equal(b.of("gap").length, 1);
  assert.deepEqual([b.of("room")[0].room, b.of("room")[0].action, b.of("room")[0].seq], [room, "create", undefined]);
});
