// imd.js and a real node: marks, settings, the list, presence, typing, signals, blocks.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { ConversationsView } from "../../imd/web/client/imd.js";
import { client, name, numbers, proxy, sharedNode, Storage, until } from "./kit.mjs";

let real;
before(async () => {
  real = await sharedNode();
});
const join = (options) => client({ url: real.url, ...options });

test("a mark reaches the other and one's own other device; it and a setting survive a reload", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const [a, phone] = [join({ userId: alice }), join({ userId: bob, device: "phone" })];
  let laptop = join({ userId: bob, device: "laptop", storage });
  await Promise.all([a.opened(), phone.opened(), laptop.opened()]);
  const { id } = await a.accepted(a.send({ to: bob, msg: "hi" }));
  phone.read({ with: alice, upTo: id });
  assert.equal(phone.conversation({ with: alice }).mark, id);
  await until(() => laptop.conversation({ with: alice }).read === id && a.conversation({ with: bob }).peerRead === id);
  phone.settings({ with: alice, muted: true, pinned: true });
  phone.settings({ receipts: false });
  await until(() => laptop.conversation({ with: alice }).pinned && !laptop.receipts);
  phone.read({ room: `r-${"0".repeat(32)}`, upTo: id });
  await until(() => phone.of("refused").length === 1);
  assert.equal(phone.of("refused")[0].code, "not_found");
  await laptop.stop();
  laptop = join({ userId: bob, device: "laptop", storage });
  await laptop.opened();
  const { read, muted } = laptop.conversation({ with: alice });
  assert.deepEqual({ read, muted }, { read: id, muted: true });
  phone.settings({ with: alice, muted: false });
  await until(() => laptop.conversation({ with: alice }).muted === false);
  assert.ok(laptop.of("conversations").every(({ all }) => !all));
});

test("a mark that was refused is sent again on another connection only, or for another id", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const way = await proxy(real.url);
  const [a, b] = [join({ userId: alice }), join({ userId: bob, url: way.url })];
  const ids = [];
  for (const msg of numbers(3)) ids.push((await a.accepted(a.send({ to: bob, msg }))).id);
  const there = (id) => ({ room: `r-${"0".repeat(32)}`, upTo: id });
  const refusals = () => b.of("refused").map(({ frame }) => frame.upTo);
  // The frames are answered in their order: what is confirmed was sent behind what is not refused.
  const confirmed = async (id) => {
    b.read({ with: alice, upTo: id });
    await until(() => a.conversation({ with: bob }).peerRead === id);
  };
  await Promise.all([a.opened(), b.opened()]);
  b.read(there(ids[1]));
  await until(() => refusals().length === 1);
  // A page marks what it shows with each drawing.
  b.read(there(ids[1]));
  b.read(there(ids[1]));
  await confirmed(ids[0]);
  assert.deepEqual(refusals(), [ids[1]]);
  b.read(there(ids[2]));
  await until(() => refusals().length === 2);
  b.read(there(ids[2]));
  await confirmed(ids[1]);
  assert.deepEqual(refusals(), [ids[1], ids[2]]);
  // Another node may think otherwise of it, or this one by now.
  const before = b.of("connected").length;
  way.cut();
  await until(() => b.of("connected").length > before);
  b.read(there(ids[2]));
  await until(() => refusals().length === 3);
});

test("the list and the inbox together count each message once; a mark empties it", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const [a, b] = [join({ userId: alice }), join({ userId: bob })];
  const view = new ConversationsView(bob);
  for (const type of ["message", "sent"]) b.on(type, (message) => void view.add(message));
  for (const type of ["edit", "recall", "react", "room"]) b.on(type, (event) => void view.apply(event));
  b.on("conversations", (detail) => view.changed(detail));
  let last;
  for (const msg of numbers(3)) last = await a.accepted(a.send({ to: bob, msg }));
  const { room } = await a.accepted(a.rooms.create({ name: "Weekend", users: [bob] }));
  await until(async () => {
    view.put(await b.conversations());
    return !view.incomplete && view.all.length === 2;
  });
  const [first, second] = view.all;
  assert.deepEqual([first.room, first.name, first.unread], [room, "Weekend", 0]);
  assert.deepEqual([second.with, second.unread, second.last.msg, view.unread], [alice, 3, "2", 3]);
  b.read({ with: alice, upTo: last.id });
  assert.equal(view.unread, 0);
  await until(async () => (await b.conversations()).conversations.every(({ unread }) => !unread));
});

test("presence, typing and signals; a block ends them, and messages", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const a = join({ userId: alice });
  a.watch([bob]);
  await until(() => a.present.get(bob) === false);
  const b = join({ userId: bob });
  await until(() => a.present.get(bob) === true);
  await b.opened();
  b.typing({ with: alice });
  await until(() => a.of("typing").some(({ userId, on }) => userId === bob && on));
  assert.equal(b.signal({ with: alice, name: "call.offer", data: { a: [1] } }), true);
  await until(() => a.of("signal").length === 1);
  assert.deepEqual(a.of("signal")[0], { userId: bob, with: bob, name: "call.offer", data: { a: [1] } });
  b.send({ to: alice, msg: "hi" });
  await until(() => a.of("typing").some(({ on }) => !on));
  await a.block(bob);
  assert.deepEqual(await a.blocked(), [bob]);
  b.send({ to: alice, msg: "hi again" });
  await until(() => b.of("failed").length === 1);
  assert.equal(b.of("failed")[0].code, "forbidden");
  await until(() => a.present.get(bob) === false);
  await a.block(bob, false);
  assert.deepEqual(await a.blocked(), []);
});

test("a closed tab's mark is sent by another tab", async () => {
  const [alice, bob] = [name("alice"), name("bob")];
  const storage = new Storage();
  const nowhere = "ws://127.0.0.1:9/ws";
  let url = nowhere;
  const a = join({ userId: alice });
  const { id } = await a.accepted(a.send({ to: bob, msg: "hi" }));
  const closed = join({ userId: bob, storage, url: nowhere });
  await until(() => closed.device !== "");
  const other = join({ userId: bob, storage, url: () => url });
  await until(() => other.device !== "");
  closed.read({ with: alice, upTo: id });
  await closed.stop();
  const kept = () => [...storage.items.keys()].filter((key) => key.endsWith(":wishes"));
  assert.equal(kept().length, 1);
  url = real.url;
  await until(() => a.conversation({ with: bob }).peerRead === id && other.conversation({ with: alice }).read === id);
  await until(() => kept().length === 0);
});
