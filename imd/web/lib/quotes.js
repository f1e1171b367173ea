// The messages that others answer: read by their ids when they are not there.

const MOST = 50; // ids of one question

/** A message in one line. */
export const quoteOf = ({ msg, recalled }, t) => (recalled ? t("message.recalled") : msg.slice(0, 200));

export class Quotes {
  #wanted = new Set();
  #missing = new Set(); // asked for, and not readable
  #asking = false;

  /** `seen` takes a message into the view; `changed` is called when some have come. */
  constructor(client, view, { seen, changed }) {
    this.client = client;
    this.view = view;
    this.seen = seen;
    this.changed = changed;
  }

  /** The message; null while it is being read; undefined if this user cannot read it. */
  get(id) {
    const message = this.view.get(id);
    if (message) return message;
    if (this.#missing.has(id)) return undefined;
    this.#wanted.add(id);
    this.#ask();
    return null;
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    await null; // what is drawn now is asked for at once
    try {
      while (this.#wanted.size) {
        const ids = [...this.#wanted].slice(0, MOST);
        const found = await this.client.messages(ids);
        for (const message of found) this.seen(message);
        for (const id of ids) {
          this.#wanted.delete(id);
          if (!this.view.get(id)) this.#missing.add(id);
        }
        this.changed();
      }
    } catch {
      // No connection, or too many questions. The next drawing asks again.
    } finally {
      this.#asking = false;
    }
  }
}
