// imd.js when the time of day is set, and when a connect hangs.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { accept, asPage, client, fakeNode, numbers, Storage, until, usual } from "./kit.mjs";

const HOUR = 3600_000;
const timeOfDay = Date.now;
const setClock = (ms) => (Date.now = () => timeOfDay() + ms);
afterEach(() => setClock(0));
const join = (fake, options) => client({ url: fake.url, userId: "bob", ...options });

for (const step of [-HOUR, HOUR]) {
  test(`the clock is set by ${step / HOUR} h: pings, pace, pauses and history go on`, async () => {
    const limits = { messageBytes: 1000, groupMembers: 5, ackWindow: 8, messagesPerSecond: 50 };
    let refused = 0;
    const fake = await fakeNode((frame, link) => {
      const { clientMsgId, ref } = frame;
      const busy = { type: "error", code: "rate_limited", reason: "", temporary: true, retryAfterMs: 50 };
      if (frame.isConnect) link.welcome({ limits });
      else if (frame.msg === "5" && refused++ < 2) link.send({ ...busy, clientMsgId });
      else if (ref && refused++ < 4) link.send({ ...busy, ref });
      else if (ref) link.send({ type: "history", ref, messages: [], more: false });
      else usual(frame, link);
    });
    const b = join(fake, { pingSeconds: 0.3 });
    await b.opened();
    setClock(step);
    for (const count of [1, 2, 3]) await until(() => fake.link.of("ping").length >= count, `ping ${count}`);
    numbers(80).forEach((msg) => b.send({ to: "alice", msg }));
    await until(() => b.of("accepted").length > 0);
    setClock(0);
    await until(() => b.outbox.length === 0);
    setClock(step);
    assert.deepEqual(await b.history({ with: "alice" }), { messages: [], more: false });
    assert.equal(fake.links.length, 1);
    assert.deepEqual(b.of("failed"), []);
  });

  test(`the clock is set by ${step / HOUR} h: how long an answer is owed goes by the node's clock`, async () => {
    const storage = new Storage();
    const fake = await fakeNode((frame, link) => frame.isConnect && link.welcome({ serverTime: timeOfDay() }));
    const b = join(fake, { storage });
    const entry = b.send({ to: "alice", msg: "sent once" });
    await until(() => fake.link?.frames.some(({ msg }) => msg));
    setClock(step);
    fake.link.cut();
    await until(() => fake.links.length === 2 && fake.link.frames.some(({ msg }) => msg), "sent again");
    await b.stop();
    // After a restart, too. And by the node's clock its time is over.
    let ahead = 0;
    fake.onFrame = (frame, link) => frame.isConnect && link.welcome({ serverTime: timeOfDay() + ahead });
    const again = join(fake, { storage });
    await until(() => fake.links.length === 3 && fake.link.frames.some(({ msg }) => msg), "sent again");
    ahead = HOUR;
    fake.link.cut();
    await until(() => again.of("failed").length === 1);
    assert.deepEqual([again.of("failed")[0].code, again.of("failed")[0].clientMsgId], ["expired", entry.clientMsgId]);
  });
}

test("a token that lasts, and a clock that is set: asked for when its time has come, not before", async () => {
  let asked = 0;
  const now = timeOfDay();
  const fake = await fakeNode((frame, link) => {
    if (frame.isConnect) link.welcome({ serverTime: now, exp: now + 3000 });
    else if (frame.type === "token") link.send({ type: "token", exp: now + HOUR });
  });
  setClock(-HOUR);
  const b = join(fake, { userId: undefined, token: () => `token ${++asked}` });
  await b.opened();
  setClock(HOUR);
  await until(() => fake.link.of("token").length === 1);
  assert.deepEqual([asked, fake.link.of("token")[0].token], [2, "token 2"]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(asked, 2);
});

for (const sign of ["online", "pageshow", "visibilitychange"]) {
  test(`a connect hangs, and ${sign} says that the network is back`, async () => {
    await asPage({ navigator: {} }, async (page) => {
      document.visibilityState = "visible";
      const target = sign === "visibilitychange" ? document : page;
      const fake = await fakeNode(() => {});
      const b = join(fake, { connectSeconds: 1e6, storage: null });
      await until(() => fake.links.length === 1 && fake.link.frames.length === 1);
      fake.onFrame = usual;
      target.dispatchEvent(new Event(sign));
      target.dispatchEvent(new Event(sign));
      await b.opened();
      assert.equal(fake.links.length, 2);
      // One that is through in time is left alone, before and after.
      target.dispatchEvent(new Event(sign));
      await until(() => fake.link.of("ping").length === 1);
      assert.deepEqual(b.of("state").map(({ state }) => state), ["connecting", "open"]);
      assert.equal(fake.links.length, 2);
      await b.stop();
    });
  });
}

test("token() hangs, and the network is back: it is asked again", async () => {
  await asPage({ navigator: {} }, async (page) => {
    const fake = await fakeNode();
    let asked = 0;
    const b = join(fake, { userId: undefined, storage: null, token: () => (asked++ ? "good" : new Promise(() => {})) });
    await until(() => asked === 1);
    page.dispatchEvent(new Event("online"));
    await b.opened();
    assert.equal(asked, 2);
    await b.stop();
  });
});

test("a sign of the network does not hurry a client back to a node that is overloaded", async () => {
  await asPage({ navigator: {} }, async (page) => {
    const fake = await fakeNode((frame, link) => frame.isConnect && link.close(4100));
    const b = join(fake, { minBackoffMs: 1e9, maxBackoffMs: 1e9, storage: null });
    await until(() => b.state === "waiting");
    page.dispatchEvent(new Event("online"));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual([b.state, fake.links.length], ["waiting", 1]);
    await b.stop();
  });
});
