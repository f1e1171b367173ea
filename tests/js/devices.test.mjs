// imd.js and a real node: what messages carry, and one's own other devices.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, name, sharedNode, Storage, until } from "./kit.mjs";

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
