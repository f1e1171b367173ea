// imd.js and a real node that wants tokens.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, jwt, name, node, until } from "./kit.mjs";

const SECRET = "only for the tests of the client in JavaScript";
let real;
before(async () => (real = await node({ auth: { mode: "jwt", secret: SECRET } })));
const token = (sub, seconds) => jwt(SECRET, { sub, exp: Date.now() / 1000 + seconds, loginType: "USER_TYPE" });
const join = (options) => client({ url: real.url, loginType: undefined, ...options });

test("a newer token is handed in before the old one expires", async () => {
  const alice = name("alice");
  let asked = 0;
  const a = join({ token: async () => token(alice, asked++ ? 600 : 5) });
  await a.opened();
  assert.equal(a.userId, alice);
  await until(() => asked === 2);
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, a.of("connected")[0].exp - Date.now() + 300)));
  assert.equal(a.state, "open");
  assert.deepEqual(a.of("state").map(({ state }) => state), ["connecting", "open"]);
  assert.deepEqual(a.of("error"), []);
});

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
