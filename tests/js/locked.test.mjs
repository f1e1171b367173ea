// imd.js in pages whose browser keeps something from them: storage, locks, or parts of either.
import assert from "node:assert/strict";
import { test } from "node:test";
import { asPage, client, fakeNode, forbidden, Storage, until } from "./kit.mjs";

const denied = () => Promise.reject(new DOMException("The request was denied.", "SecurityError"));
const refuses = { request: denied };
const throws = { request: forbidden };
const silent = { request: () => new Promise(() => {}) };
const works = { request: async (name, options, run) => run({ name }) };
const noLocks = Object.defineProperty({}, "locks", { get: forbidden });

class Unreadable {
  getItem = forbidden;
  setItem = forbidden;
  removeItem = forbidden;
}
class Unwritable extends Storage {
  full = true;
}

const LOCKED = {
  "all is blocked": { localStorage: forbidden, navigator: { locks: refuses } },
  "storage is there, and throws": { localStorage: new Unreadable(), navigator: { locks: refuses } },
  "storage takes nothing": { localStorage: new Unwritable(), navigator: { locks: throws } },
  "there is no storage": { localStorage: null, navigator: { locks: refuses } },
  "locks cannot be looked at": { localStorage: new Storage(), navigator: noLocks },
  "only locks are refused": { localStorage: new Storage(), navigator: { locks: refuses } },
  "only storage is blocked": { localStorage: forbidden, navigator: { locks: works } },
  "locks are never answered": { localStorage: new Storage(), navigator: { locks: silent } },
};

for (const [what, globals] of Object.entries(LOCKED)) {
  test(what, async () => {
    await asPage(globals, async () => {
      const fake = await fakeNode();
      const tabs = [1, 2].map(() => client({ url: fake.url, isVisitor: true }));
      await Promise.all(tabs.map((tab) => tab.opened()));
      assert.notEqual(tabs[0].device, tabs[1].device);
      tabs[0].send({ to: "alice", msg: "hi" });
      fake.links.forEach((link) => link.message(1));
      await until(() => tabs[0].outbox.length === 0 && tabs.every((tab) => tab.texts().length === 1));
      await Promise.all(tabs.map((tab) => tab.stop()));
      tabs[0].start();
      await tabs[0].opened();
      await tabs[0].stop();
    });
  });
}

test("a device of one's own, without locks: the second tab waits for the first", async () => {
  await asPage({ localStorage: new Storage(), navigator: { locks: refuses } }, async () => {
    const fake = await fakeNode();
    const [one, two] = [1, 2].map(() => client({ url: fake.url, userId: "bob", device: "phone" }, { start: false }));
    one.start();
    await one.opened();
    two.start();
    await until(() => two.state === "waiting");
    await one.stop();
    await two.opened();
    await two.stop();
  });
});

test("a page that sleeps: locks are refused for the moment only", async () => {
  let asked = 0;
  const request = (name, options, run) => {
    if (asked++) return works.request(name, options, run);
    return Promise.reject(new DOMException("The document is not active.", "InvalidStateError"));
  };
  const localStorage = new Storage();
  await asPage({ localStorage, navigator: { locks: { request } } }, async () => {
    const fake = await fakeNode();
    const b = client({ url: fake.url, userId: "bob" });
    await b.opened();
    assert.ok(b.of("state").some(({ state }) => state === "waiting"));
    assert.deepEqual([...localStorage.items.keys()].filter((key) => key.endsWith(":lease")), []);
    await b.stop();
  });
});

test("a lease from the future, as after the clock was set back, is no free place while it is renewed", async () => {
  const localStorage = new Storage();
  const lease = JSON.stringify({ by: "another tab", at: Date.now() + 3600_000 });
  localStorage.setItem("imd:ubob:phone:lease", lease);
  await asPage({ localStorage, navigator: {} }, async () => {
    const fake = await fakeNode();
    const b = client({ url: fake.url, userId: "bob", device: "phone" });
    await until(() => b.of("state").filter(({ state }) => state === "waiting").length > 1);
    assert.equal(localStorage.getItem("imd:ubob:phone:lease"), lease);
    localStorage.removeItem("imd:ubob:phone:lease");
    await b.opened();
    await b.stop();
  });
});
