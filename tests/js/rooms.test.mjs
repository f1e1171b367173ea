// imd.js and a real node: rooms, from their making to their end.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { RoomsView } from "../../imd/web/client/imd.js";
import { client, name, sharedNode, until } from "./kit.mjs";

let real;
before(async () => {
  real = await sharedNode();
});
const join = async (userId) => {
  const made = client({ url: real.url, userId });
  made.view = new RoomsView(userId);
  made.on("room", (event) => made.view.apply(event));
  made.on("accepted", (detail) => made.view.accepted(detail));
  await made.opened();
  return made;
};

test("a room is made, written in, changed and left; everybody's view is the same as the list", async () => {
  const [alice, bob, carol] = ["alice", "bob", "carol"].map(name);
  const [a, b, c] = [await join(alice), await join(bob), await join(carol)];
  const made = await a.accepted(a.rooms.create({ name: "Weekend", users: [bob], data: { colour: "red" } }));
  const { room } = made;
  assert.match(room, /^r-/);
  assert.equal(made.version, 1);
  await until(() => b.of("room").length === 1);
  assert.deepEqual([b.view.get(room).name, b.view.get(room).role, b.view.get(room).data], ["Weekend", "member", { colour: "red" }]);
  // Queued at once: the message after the change that lets carol in.
  a.rooms.add(room, { userId: carol, role: "admin" });
  const said = a.send({ room, msg: "welcome" });
  const { id } = await a.accepted(said);
  await until(() => c.texts().length === 1 && b.texts().length === 1);
  const [message] = c.of("message");
  assert.deepEqual([message.id, message.room, message.roomVersion, message.kind, message.msg], [id, room, 2, "message", "welcome"]);
  assert.deepEqual(c.events.filter(({ type }) => type === "room" || type === "message").map(({ type }) => type), ["room", "message"]);
  await c.accepted(c.rooms.set(room, { name: "Sunday", posting: "admins" }));
  const { users } = await b.rooms.members(room);
  assert.deepEqual(Object.fromEntries(users.map(({ userId, role }) => [userId, role])), { [alice]: "owner", [bob]: "member", [carol]: "admin" });
  await assert.rejects(b.accepted(b.send({ room, msg: "may I?" })), { code: "forbidden" });
  await assert.rejects(b.accepted(b.rooms.add(room, name("dave"))), { code: "forbidden" });
  await assert.rejects(a.accepted(a.rooms.close(room, { version: 1 })), { code: "conflict" });
  assert.equal((await a.accepted(a.rooms.add(room, bob))).changed, false);
  await until(() => b.view.get(room)?.name === "Sunday");
  for (const one of [b, c]) {
    const { rooms } = await one.rooms.list();
    assert.deepEqual(rooms.map(({ room: id, name: title, role, version, count }) => [id, title, role, version, count]), one.view.all.map(({ room: id, name: title, role, version, count }) => [id, title, role, version, count]));
  }
  await a.accepted(a.rooms.remove(room, bob));
  await until(() => b.view.all.length === 0);
  await assert.rejects(b.accepted(b.send({ room, msg: "still here" })), { code: "not_found" });
});

test("a closed room is closed to a view that has the list only", async () => {
  const bob = name("bob");
  const [a, b] = [await join(name("alice")), await join(bob)];
  const { room } = await a.accepted(a.rooms.create({ name: "Weekend", users: [bob] }));
  await a.accepted(a.rooms.close(room));
  await until(() => b.view.get(room)?.closed);
  const fresh = new RoomsView(bob);
  fresh.put(await b.rooms.list());
  assert.deepEqual(fresh.get(room), b.view.get(room));
});
