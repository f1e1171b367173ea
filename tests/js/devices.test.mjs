// imd.js and a real node: what messages carry, and one's own other devices.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, name, proxy, sharedNode, Storage, until } from "./kit.mjs";

let real;
before(async () => {
  real = await sharedNode();
});
const join = (options) => client({ url: real.url, ...options });

test("messages carry replyTo, mentions and data, live and in the history", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  await Promise.all([a.opened(), b.opened()]);
  assert.deepEqual([...a.features].sort(), ["events", "state", "sync"]);
  const extras = { replyTo: "0".repeat(28), mentions: [bob], data: { a: [1, "b", null] } };
  const { id } = await a.accepted(a.send({ to: bob, msg: "hi", ...extras }));
  const [message] = await until(() => b.of("message").length && b.of("message"));
  const { replyTo, mentions, data } = message;
  assert.deepEqual({ id: message.id, replyTo, mentions, data }, { id, ...extras });
  const page = await until(async () => {
    const found = await b.history({ with: alice, limit: 5 });
    return found.messages.length && found;
  });
  assert.deepEqual(page.messages[0].data, extras.data);
});

test("what one device sends appears on the others, once, and not on itself", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const phone = join({ userId: alice, device: "phone" });
  let laptop = join({ userId: alice, device: "laptop", storage });
  const b = join({ userId: bob });
  await Promise.all([phone.opened(), laptop.opened(), b.opened()]);
  const { id } = await phone.accepted(phone.send({ to: bob, msg: "one" }));
  await until(() => laptop.of("sent").length === 1 && b.texts().length === 1);
  assert.deepEqual([laptop.of("sent")[0].id, laptop.of("sent")[0].to], [id, bob]);
  b.send({ to: alice, msg: "two" });
  await until(() => phone.texts().length === 1 && laptop.texts().length === 1);
  assert.deepEqual([phone.of("sent"), laptop.texts(), b.of("sent")], [[], ["two"], []]);
  await laptop.stop();
  await phone.accepted(phone.send({ to: bob, msg: "three" }));
  laptop = join({ userId: alice, device: "laptop", storage });
  await until(() => laptop.of("sent").length === 1);
  assert.deepEqual([laptop.of("sent")[0].msg, laptop.texts()], ["three", []]);
});

/** An admin's two tabs, and somebody's message, which an admin may remove but not change. The tab `closed` never gets to a node. */
async function tabs() {
  const storage = new Storage();
  const way = await proxy(real.url);
  const [userId, bob] = [name("admin"), name("bob")];
  const [open, b] = [join({ userId, storage, url: way.url }), join({ userId: bob })];
  await Promise.all([open.opened(), b.opened()]);
  const closed = join({ userId, storage, url: "ws://127.0.0.1:9/ws" });
  await until(() => closed.device !== "");
  const key = `imd:u${userId}:${closed.device}:new`;
  const { room } = await open.accepted(open.rooms.create({ name: "Weekend", users: [bob] }));
  const { id } = await b.accepted(b.send({ room, msg: "hi" }));
  await until(() => open.texts().length === 1);
  /** The closed tab's outbox is empty: connected anew, the other tab has sent it, and has taken over what failed. */
  const adopted = async () => {
    assert.notEqual(storage.getItem(key), "");
    way.cut();
    await until(() => storage.getItem(key) === "");
  };
  return { storage, open, closed, b, id, adopted };
}

test("a closed tab's recall, sent by another tab, takes the other tab's texts for the message along", async () => {
  const { storage, open, closed, id, adopted } = await tabs();
  await assert.rejects(open.accepted(open.edit(id, { msg: "unkind words" })), { code: "forbidden" });
  assert.equal(open.outbox.length, 1, "it can be read, and tried again");
  closed.recall(id);
  await closed.stop();
  await adopted();
  assert.deepEqual(open.outbox, []);
  assert.doesNotMatch(JSON.stringify([...storage.items]), /unkind/);
});

test("a closed tab's change of a message that was recalled meanwhile is not handed to another tab", async () => {
  const { storage, open, closed, b, id, adopted } = await tabs();
  closed.edit(id, { msg: "unkind words" });
  await closed.stop();
  await b.accepted(b.recall(id));
  await until(() => open.of("recall").length === 1);
  await adopted();
  assert.deepEqual([open.outbox, open.of("failed")], [[], []]);
  assert.doesNotMatch(JSON.stringify([...storage.items]), /unkind/);
});

test("a closed tab's change that is refused is handed to another tab, and goes when its message is recalled", async () => {
  const { storage, open, closed, b, id, adopted } = await tabs();
  closed.edit(id, { msg: "unkind words" });
  await closed.stop();
  await adopted();
  assert.deepEqual(open.outbox.map(({ msg, error }) => [msg, error.code]), [["unkind words", "forbidden"]]);
  await b.accepted(b.recall(id));
  await until(() => open.of("recall").length === 1);
  assert.deepEqual(open.outbox, []);
  assert.doesNotMatch(JSON.stringify([...storage.items]), /unkind/);
});
