// The messages that others answer: read by their ids when they are not there.

const MOST = 50; // ids of one question

export class Quotes {
  #wanted = new Set();
  #missing = new Set(); // asked for, and not readable
  #asking = false;

  constructor(session) {
    this.session = session;
  }

  /** The message; null while it is being read; undefined if this user cannot read it. */
  get(id) {
    const message = this.session.store.view.get(id);
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
    const { client, store } = this.session;
    try {
      while (this.#wanted.size) {
        const ids = [...this.#wanted].slice(0, MOST);
        const found = await client.messages(ids);
        for (const message of found) store.seen(message);
        for (const id of ids) {
          this.#wanted.delete(id);
          if (!store.view.get(id)) this.#missing.add(id);
        }
        store.changed();
      }
    } catch {
      // No connection, or too many questions. The next drawing asks again.
    } finally {
      this.#asking = false;
    }
  }
}
