// The state of a visitor's conversation: up to where each side has read, and who is typing.
import { kept } from "../lib/dom.js";

const later = (one, other) => (one > other ? one : other);

/** `key`: where the browser keeps the visitor's own mark, which alone counts in a cluster without state. `changed` is called when
 *  a mark has changed, `typing` when an agent begins to type or stops. */
export class State {
  #client;
  #key;
  #writers = new Set();

  constructor(client, key, { changed, typing }) {
    this.#client = client;
    this.#key = key;
    client.on("conversations", changed);
    client.on("typing", ({ userId, on }) => {
      if (on) this.#writers.add(userId);
      else this.#writers.delete(userId);
      typing();
    });
  }

  get #mark() {
    return later(kept.get(this.#key, ""), this.#client.conversation({}).mark);
  }

  /** The agent who is typing. */
  get writer() {
    return [...this.#writers][0];
  }

  /** The messages of others that the visitor has not seen, here or in another tab. One's own message ends them: it was written below. */
  unread(messages) {
    const { userId } = this.#client;
    const own = messages.findLast((message) => message.userId === userId)?.id ?? "";
    const mark = later(this.#mark, own);
    return messages.filter((message) => message.id > mark && message.userId !== userId).length;
  }

  /** The visitor sees these messages. */
  seen(messages) {
    const { userId, features } = this.#client;
    const id = messages.findLast((message) => message.userId !== userId)?.id;
    if (id === undefined) return;
    if (kept.get(this.#key, "") < id) kept.set(this.#key, id);
    if (features.includes("state")) this.#client.read({ upTo: id });
  }

  /** True for a message that the agent has read. */
  isRead(id) {
    return this.#client.features.includes("state") && id <= this.#client.conversation({}).peerRead;
  }

  /** The visitor is writing. */
  write() {
    this.#client.typing({});
  }
}
