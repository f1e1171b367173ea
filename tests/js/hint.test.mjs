// The user in the URL, where a gateway looks for it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, fakeNode, jwt, Storage, until } from "./kit.mjs";

const token = (sub) => jwt("a secret that only this test knows of", { sub });

/** The path of the first connection of a client with these options. */
async function path(fake, options) {
  const count = fake.paths.length;
  const made = client({ ...options, url: fake.url + (options.query ?? "") });
  await made.opened();
  await made.stop();
  assert.equal(fake.paths.length, count + 1);
  return fake.paths.at(-1);
}

test("the user, or the one that the token names", async () => {
  const fake = await fakeNode();
  assert.equal(await path(fake, { userId: "bob" }), "/ws?user=bob");
  assert.equal(await path(fake, { userId: "小 明+&=?" }), "/ws?user=%E5%B0%8F%20%E6%98%8E%2B%26%3D%3F");
  assert.equal(await path(fake, { token: () => token("小明") }), "/ws?user=%E5%B0%8F%E6%98%8E");
  assert.equal(await path(fake, { token: () => token("a/b"), query: "?v=1" }), "/ws?v=1&user=a%2Fb");
  assert.equal(await path(fake, { userId: "bob", query: "?" }), "/ws?user=bob");
});

test("none where it is not known, not wanted, or there already", async () => {
  const fake = await fakeNode();
  for (const text of ["no token", "a.b.c", "a.e30.c", token(7)]) {
    assert.equal(await path(fake, { token: () => text }), "/ws");
  }
  assert.equal(await path(fake, { userId: "bob", hint: false }), "/ws");
  assert.equal(await path(fake, { userId: "bob", query: "?user=alice" }), "/ws?user=alice");
  assert.equal(await path(fake, { token: () => token("\ud800") }), "/ws");
});

test("the last user, where a token does not tell", async () => {
  const fake = await fakeNode();
  const made = client({ url: fake.url, token: () => "opaque" });
  await made.opened();
  fake.link.cut();
  await until(() => fake.paths.length === 2);
  assert.deepEqual(fake.paths, ["/ws", "/ws?user=bob"]);
});

test("a visitor that comes back, and one whose token was refused", async () => {
  const fake = await fakeNode((frame, link) => {
    if (!frame.isConnect) return;
    if (frame.visitorToken === "visitor-1.secret" && refuse) return link.close(4001);
    link.welcome({ userId: "visitor-1", visitorToken: "visitor-1.secret" });
  });
  let refuse = false;
  const storage = new Storage();
  assert.equal(await path(fake, { isVisitor: true, storage }), "/ws");
  assert.equal(await path(fake, { isVisitor: true, storage }), "/ws?user=visitor-1");
  refuse = true;
  const made = client({ url: fake.url, isVisitor: true, storage });
  await made.opened();
  assert.deepEqual(fake.paths.slice(-2), ["/ws?user=visitor-1", "/ws"]);
});
