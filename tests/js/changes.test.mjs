// imd.js and a real node: edits, recalls and reactions.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { View } from "../../imd/web/client/imd.js";
import { client, name, sharedNode, Storage, until } from "./kit.mjs";

let real;
before(async () => {
  real = await sharedNode();
});
const join = (userId, options) => {
  const made = client({ url: real.url, userId, ...options });
  made.view = new View();
  for (const type of ["message", "sent"]) made.on(type, (message) => made.view.add(message));
  for (const type of ["edit", "recall", "react"]) made.on(type, (event) => made.view.apply(event));
  made.on("accepted", (detail) => made.view.accepted(detail, userId));
  return made;
};
const looks = ({ id, msg, recalled, edited, reactions }) => ({ id, msg, recalled, edited: edited?.id, reactions: reactions?.length ? reactions : [] });

test("everybody's view is what the history shows", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, laptop, b] = [join(alice, { device: "phone" }), join(alice, { device: "laptop" }), join(bob)];
  await Promise.all([a.opened(), laptop.opened(), b.opened()]);
  const [one, two] = ["one", "two"].map((msg) => a.send({ to: bob, msg }));
  const first = await a.accepted(one);
  const second = await a.accepted(two);
  // Queued behind one another: the archive may not have the messages yet.
  const edits = ["ONE", "One!"].map((msg) => a.edit(first, { msg }));
  a.recall(second);
  a.send({ to: bob, msg: "three" });
  b.react(first.id, "👍");
  await until(() => a.outbox.length === 0 && b.outbox.length === 0);
  assert.deepEqual(edits.map(({ state }) => state), ["accepted", "accepted"]);
  a.react(first, "👍");
  b.react(first, "🎉");
  b.react(first, "🎉", false);
  await until(() => a.outbox.length === 0 && b.outbox.length === 0);
  const shown = async () => {
    const { messages } = await b.history({ with: alice });
    return JSON.stringify(messages.map(looks));
  };
  const views = () => [a, laptop, b].map(({ view }) => JSON.stringify(view.messages.map(looks)));
  await until(async () => {
    const page = await shown();
    return views().every((view) => view === page);
  });
  const [last, gone] = b.view.messages;
  assert.deepEqual([last.msg, last.reactions, gone.msg], ["One!", [{ reaction: "👍", count: 2, users: [bob, alice] }], ""]);
  assert.ok(gone.recalled > 0);
  await assert.rejects(b.accepted(b.edit(first, { msg: "mine" })), { code: "forbidden" });
  await assert.rejects(a.accepted(a.edit(second, { msg: "again" })), { code: "conflict" });
  assert.equal((await a.accepted(a.recall(second))).changed, false);
  assert.deepEqual([b.of("edit").length, laptop.of("edit").length, a.of("edit").length], [2, 2, 0]);
});

test("an edit that is queued while the node is away is sent when it is back, after a reload", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  let a = join(alice, { device: "d", storage });
  const b = join(bob);
  const { id } = await a.accepted(a.send({ to: bob, msg: "one" }));
  await a.stop();
  a = join(alice, { device: "d", storage, url: "ws://127.0.0.1:9/ws" });
  a.edit(id, { msg: "two" });
  await until(() => a.state === "waiting");
  await a.stop();
  a = join(alice, { device: "d", storage });
  await until(() => b.of("edit").length === 1 && a.outbox.length === 0);
  assert.equal(b.view.get(id).msg, "two");
});
