// The chat and the agents' desk: signing in, the open conversation, the link to the node.
import { failureOf, reasonOf } from "../lib/changes.js";
import { batched, h, icon } from "../lib/dom.js";
import { initial, tint } from "../lib/format.js";
import { addressOf, List, placeAt } from "./list.js";
import { loginView, onlyTime, remembered } from "./login.js";
import { lookAndLanguage, toggle } from "./menu.js";
import { nodeSettings } from "../lib/node.js";
import { Notifier } from "./notify.js";
import { RoomDialog } from "./room.js";
import { Session } from "./session.js";
import { StartDialog } from "./start.js";
import { t } from "../lib/text.js";
import { Thread } from "./thread.js";

const QUIET_MS = 1500; // a shorter break of the connection is not shown
const BACK_MS = 2500;
const CLOCK_MS = 5000; // before a token is retried that is refused for its times alone

const mode = document.documentElement.dataset.mode;

/** One signed-in user's screen. `ended(refused)` is called when it is over. */
class App {
  constructor(session, ended) {
    this.session = session;
    this.ended = ended;
    this.thread = null;
    this.troubled = false; // trouble with the connection has been shown
    this.said = null; // the message whose words are announced
    this.announcer = h("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
    this.title = batched(() => this.#drawTitle());
    this.notifier = new Notifier(session, (address) => (location.hash = address));
    session.addEventListener("change", () => this.#changed());
    session.addEventListener("arrived", ({ detail }) => this.#arrived(detail));
    session.addEventListener("failed", ({ detail }) => this.#announce(failureOf(detail, t)));
    session.addEventListener("altered", ({ detail }) => this.#altered(detail));
    session.addEventListener("state", () => this.#linkChanged());
    session.addEventListener("left", () => this.#end(false));
    session.addEventListener("refused", ({ detail }) => this.#notDone(detail));
    this.onHash = () => this.#open(true);
    this.onKey = (event) => this.#key(event);
    window.addEventListener("hashchange", this.onHash);
    document.addEventListener("keydown", this.onKey);
    // Before the first conversation is shown, as that reads its history.
    session.start();
    this.#build();
  }

  #end(refused) {
    if (this.over) return;
    this.over = true;
    this.#calm();
    window.removeEventListener("hashchange", this.onHash);
    document.removeEventListener("keydown", this.onKey);
    this.notifier.close();
    this.thread?.close();
    this.list.close();
    this.room?.close();
    this.ended(refused);
  }

  // ---- the page

  #build() {
    const { session } = this;
    this.thread?.close();
    this.list?.close();
    this.thread = null;
    this.list = new List(session, () => this.dialog.open());
    this.link = h("div", { class: "link", hidden: true });
    this.menu = this.#menu();
    this.room?.close();
    this.dialog = new StartDialog(session);
    const search = h("input", {
      class: "field search",
      type: "search",
      placeholder: t("list.search"),
      "aria-label": t("list.search"),
      oninput: () => this.list.search(search.value),
      onkeydown: (event) => {
        if (event.key === "ArrowDown") this.list.element.querySelector("a.row")?.focus();
        if (event.key === "Escape" && search.value) {
          search.value = "";
          this.list.search("");
        }
      },
    });
    this.search = search;
    const me = h(
      "button",
      { class: "me", type: "button", popovertarget: "menu", title: t("menu.open") },
      h("span", { class: `avatar tint-${tint(session.me)}`, "aria-hidden": "true" }, initial(session.me), (this.dot = h("span", { class: "dot" }))),
      h("span", { class: "me-text" }, h("span", { class: "me-name" }, session.me), h("span", { class: "me-about" }, t(mode === "desk" ? "app.agent" : "app.chat"))),
      h("span", { class: "hidden-text" }, t("menu.open")),
    );
    const add = h(
      "button",
      { class: "button-icon accent", type: "button", title: t("list.new"), "aria-label": t("list.new"), onclick: () => this.dialog.open() },
      icon("plus"),
    );
    this.side = h(
      "div",
      { class: "side" },
      h("header", { class: "bar" }, me, mode === "desk" && this.#break(), add),
      h("div", { class: "search-row" }, icon("search"), search),
      this.list.element,
    );
    this.main = h("div", { class: "main" });
    const heading = h("h1", { class: "hidden-text" }, t(mode === "desk" ? "app.agent" : "app.chat"));
    this.root = h("main", { class: "app" }, heading, this.side, this.main, this.link);
    document.body.replaceChildren(this.root, this.menu, this.dialog.element, this.announcer);
    this.list.draw();
    this.#open(false);
    this.#linkChanged();
    this.#drawTitle();
  }

  #menu() {
    return h(
      "div",
      { id: "menu", class: "menu", popover: "auto", role: "dialog", "aria-label": t("menu.open") },
      h("p", { class: "menu-who" }, t("me.signed", { name: this.session.me })),
      ...lookAndLanguage(() => this.#build()),
      (this.receipts = this.#receipts()).element,
      this.notifier.isPossible && this.#notifications(),
      h("button", { class: "button secondary", type: "button", onclick: () => this.#leave() }, t("menu.logout")),
    );
  }

  /** For messages that come while nobody looks at the page. */
  #notifications() {
    const { input, element } = toggle(t("notify.label"), this.notifier.isOn, async (on) => {
      input.checked = await this.notifier.turn(on);
      if (!this.notifier.isPossible) this.#tell(t("notify.denied"));
    });
    return element;
  }

  /** A setting of the user, the same on all devices. */
  #receipts() {
    const { input, element } = toggle(t("receipts.label"), true, (on) => this.session.client.settings({ receipts: on }));
    input.setAttribute("aria-describedby", "receipts-hint");
    return { input, element: h("div", { hidden: true }, element, h("p", { id: "receipts-hint", class: "menu-hint" }, t("receipts.hint"))) };
  }

  #drawReceipts() {
    const { hasState, client } = this.session;
    this.receipts.element.hidden = !hasState;
    this.receipts.input.checked = client.receipts;
  }

  /** An agent on a break is not connected: other agents get the visitors, or they wait. */
  #break() {
    const { session } = this;
    const words = (on) => t(on ? "desk.on" : "desk.off");
    const { element, text } = toggle(words(!session.paused), !session.paused, (on) => {
      session.pause(!on);
      text.textContent = words(on);
    });
    return element;
  }

  /** Show the conversation that the address names. */
  #open(byHand) {
    const { session } = this;
    const place = placeAt(location.hash, session.me);
    const conversation = place && session.store.conversation(place);
    if (conversation) session.rooms.enter(conversation);
    if (this.thread && conversation === this.thread.conversation) return;
    this.room?.close();
    this.thread?.close();
    this.thread = null;
    session.store.open = conversation?.key ?? null;
    session.live.watch(conversation);
    session.blocks.look(conversation);
    this.root.classList.toggle("with-thread", conversation !== null);
    if (conversation) {
      this.thread = new Thread(session, conversation, {
        back: () => this.#back(),
        announce: (text, message) => this.#announce(text, message),
        tell: (words) => this.#tell(words),
        details: () => this.#details(conversation),
      });
      this.main.replaceChildren(this.thread.element);
      // On a phone the keyboard would cover the messages.
      this.thread.begin(byHand && matchMedia("(hover: hover)").matches);
    } else {
      const hint = mode === "desk" ? t("thread.none.agent") : t("thread.none.hint");
      const face = h("div", { class: "logo", "aria-hidden": "true" }, icon(mode === "desk" ? "headset" : "bubble"));
      this.main.replaceChildren(h("div", { class: "nothing" }, face, h("p", { class: "strong" }, t("thread.none")), h("p", {}, hint)));
    }
    this.list.draw();
    this.title();
  }

  #back() {
    const { conversation } = this.thread;
    history.pushState(null, "", location.pathname + location.search);
    this.#open(true);
    const address = addressOf(conversation, this.session.me);
    (this.list.element.querySelector(`a[href="${CSS.escape(address)}"]`) ?? this.search).focus();
  }

  /** A room's members and settings. */
  #details(conversation) {
    this.room?.close();
    this.room = new RoomDialog(this.session, conversation);
    document.body.append(this.room.element);
    this.room.open();
  }

  /** A room's action that was refused: its dialog tells, or the strip at the edge. */
  #notDone(entry) {
    const words = t("room.refused", { why: reasonOf(entry.error?.code, t) });
    if (this.dialog.refused(entry, words) || this.room?.refused(entry, words)) return;
    this.#tell(words);
  }

  /** Words that are shown for a moment. */
  #tell(words) {
    this.#showLink(words);
    this.hiding = setTimeout(() => (this.link.hidden = true), BACK_MS);
  }

  #key(event) {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const typing = event.target.closest?.("input, textarea");
    if (event.altKey && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const rows = [...this.list.element.querySelectorAll("a.row")];
      const now = rows.findIndex((row) => row.getAttribute("aria-current"));
      const next = rows[now < 0 ? 0 : now + (event.key === "ArrowDown" ? 1 : -1)];
      if (next) location.hash = next.getAttribute("href");
      event.preventDefault();
    } else if (!typing && event.key === "/") {
      this.search.focus();
      event.preventDefault();
    } else if (!typing && event.key === "n" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      this.dialog.open();
      event.preventDefault();
    }
  }

  // ---- events

  #changed() {
    if (this.over) return;
    this.list.drawSoon();
    this.thread?.drawSoon();
    this.room?.drawSoon();
    this.#drawReceipts();
    this.notifier.draw();
    this.title();
    this.#unsay();
  }

  #arrived(message) {
    const { thread, session } = this;
    this.notifier.arrived(message, session.store.of(message));
    if (!thread || message.userId === session.me) return;
    if (session.keyOf(message) === thread.conversation.key) thread.arrived(message);
  }

  /** A message on the screen looks different: said to who does not see it. */
  #altered({ kind, of, userId }) {
    const message = this.session.store.view.get(of);
    if (!this.thread || !message || userId === this.session.me || kind === "react") return;
    if (this.session.keyOf(message) !== this.thread.conversation.key) return;
    this.#announce(t(kind === "recall" ? "message.is.recalled" : "message.is.edited"));
  }

  #drawTitle() {
    if (this.over) return;
    const unread = this.session.counts.total;
    this.notifier.badge(unread);
    const name = t(mode === "desk" ? "app.agent" : "app.chat");
    document.title = unread ? `(${unread > 99 ? "99+" : unread}) ${name}` : name;
  }

  /** `message`: the one that the text is of. */
  #announce(text, message = null) {
    this.announcer.textContent = text;
    this.said = message;
  }

  /** The message that was announced has been removed or changed: its words do not stay for screen readers either. */
  #unsay() {
    if (this.said && this.session.shown(this.said.id)?.msg !== this.said.msg) this.#announce("");
  }

  // ---- the link to the node

  #linkChanged() {
    const { session } = this;
    if (!this.root || this.over) return;
    const { state, code, permanent, reason } = session.state;
    if (state === "closed" && permanent && code === 4001) return this.#refused(reason);
    this.root.dataset.link = state;
    this.thread?.drawSoon(); // the cluster may have events now
    this.#drawReceipts();
    this.dot.className = `dot ${state}`;
    if (state === "open") return this.#linkBack();
    if (session.paused) return this.#showLink(null);
    if (state === "closed" && permanent) {
      const again = h("button", { class: "button-link", type: "button", onclick: () => session.start() }, t(code === 4003 ? "link.use" : "link.again"));
      return this.#showLink(code === 4003 ? t("link.replaced") : t("link.ended", { reason: reason || String(code ?? "") }), again);
    }
    // A notice that is shown changes at once. A new one waits QUIET_MS from the first of several attempts on.
    if (this.troubled) this.#showTrouble();
    else this.quiet ??= setTimeout(() => this.#showTrouble(), QUIET_MS);
  }

  #showTrouble() {
    this.troubled = true;
    const away = this.session.state.state === "waiting" || !navigator.onLine;
    this.#showLink(t(this.wrongClock ? "link.clock" : away ? "link.waiting" : "link.connecting"));
  }

  /** Cancel what was to be shown or tried later. */
  #calm() {
    for (const timer of [this.quiet, this.hiding, this.again]) clearTimeout(timer);
    this.quiet = this.hiding = this.again = null;
  }

  #linkBack() {
    const { session } = this;
    this.thread?.linkBack();
    this.wrongClock = false;
    if (mode === "desk" && session.kind && session.kind !== "CUSTOMER_SERVICE") return this.#showLink(t("desk.not.agent"));
    if (!this.troubled) return this.#showLink(null);
    this.troubled = false;
    this.#showLink(t("link.back"));
    this.hiding = setTimeout(() => (this.link.hidden = true), BACK_MS);
  }

  #showLink(words, ...more) {
    this.#calm();
    this.link.hidden = words === null;
    if (words === null || words === this.link.firstChild?.textContent) return;
    this.link.replaceChildren(h("span", {}, words), ...more);
    this.#announce(words);
  }

  async #refused(reason) {
    const { session } = this;
    if (onlyTime(session.who.token, reason)) {
      this.wrongClock = true;
      this.root.dataset.link = "waiting";
      this.dot.className = "dot waiting";
      this.#showTrouble();
      this.again = setTimeout(() => session.start(), CLOCK_MS);
      return;
    }
    this.#end(true);
    remembered.forget(mode);
    await this.session.stop();
  }

  async #leave() {
    const { session } = this;
    const n = session.outbox.filter((entry) => entry.state !== "failed").length;
    if (n && !window.confirm(n === 1 ? t("logout.unsent.one") : t("logout.unsent", { n }))) return;
    this.#end(false);
    remembered.forget(mode);
    await session.leave();
  }
}

function languageCorner(redraw) {
  return h("details", { class: "corner" }, h("summary", { "aria-label": t("menu.open"), title: t("menu.open") }, icon("more")), h("div", { class: "menu" }, ...lookAndLanguage(redraw)));
}

async function main() {
  document.title = t(mode === "desk" ? "app.agent" : "app.chat");
  const looking = setTimeout(() => document.body.replaceChildren(h("main", { class: "looking" }, h("h1", {}, t("login.looking")))), QUIET_MS);
  const settings = await nodeSettings();
  clearTimeout(looking);

  const enter = (who) => {
    remembered.set(who);
    new App(new Session(settings, who), signIn);
  };
  const signIn = (refused) => {
    document.title = t(mode === "desk" ? "app.agent" : "app.chat");
    const { view, focus } = loginView(mode, settings, refused, enter);
    view.append(languageCorner(() => signIn(refused)));
    document.body.replaceChildren(view);
    focus();
  };
  const who = remembered.get(mode);
  // A sign-in that was kept under another mode of the node does not serve.
  if (who && Boolean(who.token) === (settings.authMode === "jwt")) enter(who);
  else signIn(false);
}

main();
