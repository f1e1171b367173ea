// Signing in: with a name in open mode, with a token in jwt mode. The browser keeps it.
import { h, icon, kept } from "../lib/dom.js";
import { initial, tint } from "../lib/format.js";
import { t } from "../lib/text.js";

const RECENT = 4;

/** The claims of a JWT; none if it cannot be read. The page checks nothing: the node does. */
function claimsOf(token) {
  try {
    const claims = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(claims), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** The user that a JWT names; null without one. */
export function userOf(token) {
  const { sub } = claimsOf(token);
  return typeof sub === "string" && sub ? sub : null;
}

/** Whether the node refused a token for its times alone, while it is valid by this browser's clock: one clock is wrong. */
export function onlyTime(token, reason) {
  if (/not valid yet/.test(reason)) return true;
  return /expired/.test(reason) && claimsOf(token ?? "").exp * 1000 > Date.now();
}

/** A name is kept by its tab, so that two tabs can be two people; a token by the browser. */
export const remembered = {
  get(mode) {
    return kept.get(`imd.${mode}.login`, null, "sessionStorage") ?? kept.get(`imd.${mode}.login`);
  },
  set(who) {
    const key = `imd.${who.mode}.login`;
    if (who.token) kept.set(key, who);
    else {
      kept.set(key, who, "sessionStorage");
      const names = kept.get(`imd.${who.mode}.names`, []).filter((name) => name !== who.userId);
      kept.set(`imd.${who.mode}.names`, [who.userId, ...names].slice(0, RECENT));
    }
  },
  forget(mode) {
    kept.set(`imd.${mode}.login`, null);
    kept.set(`imd.${mode}.login`, null, "sessionStorage");
  },
};

/** The form. `done` is called with {mode, userId, token}. */
export function loginView(mode, settings, refused, done) {
  const withToken = settings.authMode === "jwt";
  const problem = h("p", { class: "login-problem", role: "alert" }, refused ? t("login.refused") : "");
  const input = withToken
    ? h("textarea", { id: "who", rows: 4, class: "field mono", spellcheck: "false", autocomplete: "off" })
    : h("input", { id: "who", class: "field", maxlength: "128", autocomplete: "username", autocapitalize: "none", spellcheck: "false" });
  input.setAttribute("aria-describedby", "who-hint");
  const submit = (event) => {
    event?.preventDefault();
    const given = input.value.trim();
    const userId = withToken ? userOf(given) : given;
    if (!userId || userId.length > 128 || (!withToken && /^visitor-|[\0-\x1f\x7f]/.test(userId))) {
      problem.textContent = t(withToken ? "login.bad.token" : "login.bad.name");
      input.focus();
      return;
    }
    done({ mode, userId, ...(withToken ? { token: given } : {}) });
  };
  if (withToken) input.addEventListener("keydown", (event) => event.key === "Enter" && submit(event));
  const names = withToken ? [] : kept.get(`imd.${mode}.names`, []);
  const recent =
    names.length > 0 &&
    h(
      "div",
      { class: "login-recent" },
      h("p", {}, t("login.recent")),
      h(
        "div",
        { class: "chips" },
        names.map((name) =>
          h(
            "button",
            { type: "button", class: "chip", onclick: () => done({ mode, userId: name }) },
            h("span", { class: `avatar small tint-${tint(name)}`, "aria-hidden": "true" }, initial(name)),
            name,
          ),
        ),
      ),
    );
  const view = h(
    "main",
    { class: "login" },
    h(
      "form",
      { class: "card", onsubmit: submit },
      h("div", { class: "logo", "aria-hidden": "true" }, icon(mode === "desk" ? "headset" : "bubble")),
      h("h1", {}, t(mode === "desk" ? "login.agent" : "login.chat")),
      h("label", { for: "who" }, t(withToken ? "login.token" : "login.name")),
      input,
      problem,
      h("button", { class: "button", type: "submit" }, t("login.go")),
      h("p", { class: "hint", id: "who-hint" }, t(withToken ? "login.token.hint" : "login.name.hint")),
      recent,
    ),
  );
  return { view, focus: () => input.focus() };
}
