// imd.js and a real node that wants tokens.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { client, fakeNode, jwt, name, node, until } from "./kit.mjs";

const SECRET = "only for the tests of the client in JavaScript";
let real;
before(async () => (real = await node({ auth: { mode: "jwt", secret: SECRET, leeway_seconds: 1 } })));
const token = (sub, seconds) => jwt(SECRET, { sub, exp: Date.now() / 1000 + seconds, loginType: "USER_TYPE" });
const join = (options) => client({ url: real.url, loginType: undefined, ...options });

test("an expired one is asked for again, once", async () => {
  const alice = name("alice");
  const tokens = [token(alice, -5), token(alice, 600)];
  const a = join({ token: () => tokens.shift() });
  await a.opened();
  assert.equal(a.of("state").find(({ code }) => code).code, 4001);

  let asked = 0;
  const b = join({ token: () => (asked++, "no token") });
  await until(() => b.state === "closed");
  assert.deepEqual(b.of("state").at(-1).permanent, true);
  assert.equal(b.of("state").at(-1).code, 4001);
  assert.equal(asked, 2);
});

test("without a token it is over at once; with a token() that fails it tries again", async () => {
  const a = join({ userId: name("alice") });
  await until(() => a.state === "closed");
  assert.deepEqual(a.of("state").map(({ state }) => state), ["connecting", "closed"]);

  let asked = 0;
  const bob = name("bob");
  const b = join({
    token: async () => {
      if (asked++ < 2) throw new Error("the login server is away");
      return token(bob, 600);
    },
  });
  await b.opened();
  assert.deepEqual(b.of("error").map(({ code }) => code), ["token", "token"]);
});

test("refused tokens: at once, then backing off, for ever; the end is one that was tried before", async () => {
  const fake = await fakeNode((frame, link) => (frame.token === "good" ? link.welcome() : link.close(4001)));
  const tokens = Array.from({ length: 40 }, (_, i) => `token ${i}`);
  const asked = [];
  const token = () => (asked.push(tokens.shift() ?? "good"), asked.at(-1));
  const a = join({ url: fake.url, token, minBackoffMs: 2, maxBackoffMs: 16 });
  await a.opened();
  assert.equal(asked.length, 41);
  const waits = a.of("state").filter(({ state }) => state === "waiting").map(({ retryInMs }) => retryInMs);
  assert.equal(waits[0], 0);
  assert.ok(waits.some((wait) => wait > 2), `${waits}`);
  tokens.push("other", "good");
  fake.link.close(4001);
  await until(() => a.state === "closed");
  assert.deepEqual(asked.slice(-3), ["good", "other", "good"]);
  const { code, permanent } = a.of("state").at(-1);
  assert.deepEqual([code, permanent], [4001, true]);
  a.start();
  await a.opened();
});

// Each of these waits for some seconds to pass.
describe("in their time", { concurrency: true }, () => {
  test("a newer token is handed in before the old one expires", async () => {
    // The newer one is asked for when a fifth of the life is left: a slow machine needs seconds of that.
    const alice = name("alice");
    let asked = 0;
    const a = join({ token: async () => token(alice, asked++ ? 600 : 20) });
    await a.opened();
    assert.equal(a.userId, alice);
    await until(() => asked === 2);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, a.of("connected")[0].exp - Date.now() + 300)));
    assert.equal(a.state, "open");
    assert.deepEqual(a.of("state").map(({ state }) => state), ["connecting", "open"]);
    assert.deepEqual(a.of("error"), []);
  });

  test("a token from a clock that is ahead: others are asked for until one is good", async () => {
    const alice = name("alice");
    let now = null; // of the first one
    let asked = 0;
    const token = () => {
      now ??= Date.now() / 1000;
      return jwt(SECRET, { sub: alice, jti: `${asked++}`, nbf: now + 8, exp: now + 600, loginType: "USER_TYPE" });
    };
    const a = join({ token });
    await a.opened();
    assert.ok(asked >= 3, `${asked}`);
    const refused = a.of("state").filter(({ code }) => code === 4001);
    assert.equal(refused.length, asked - 1);
    for (const { state, reason } of refused) assert.deepEqual([state, reason], ["waiting", "unauthorized: token not valid yet"]);
  });

  test("a renewal that is refused: the old token stands, and a newer one is asked for again", async () => {
    let good = false;
    const fake = await fakeNode((frame, link) => {
      if (frame.isConnect) link.welcome({ exp: Date.now() + 2000 });
      else if (frame.type === "token" && good) link.send({ type: "token", exp: Date.now() + 3600_000 });
      else if (frame.type === "token") link.send({ type: "error", code: "forbidden", reason: "unauthorized: token not valid yet" });
    });
    let asked = 0;
    const a = join({ url: fake.url, token: () => (asked++ ? "two" : "one") });
    await a.opened();
    await until(() => fake.link.of("token").length === 1);
    good = true;
    await until(() => fake.link.of("token").length === 2);
    assert.deepEqual(fake.link.of("token").map(({ token }) => token), ["two", "two"]);
    assert.deepEqual([a.state, fake.links.length], ["open", 1]);
  });
});
