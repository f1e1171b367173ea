// The users whom this user blocks. No device hears of another's blocks: the node is asked when a conversation opens.

/** Needs the feature `state`; without it nobody is blocked. */
export class Blocks {
  isKnown = false; // the node has answered
  #users = new Set();
  #asked = 0; // an answer to an earlier question than the last change is old

  constructor(session) {
    this.session = session;
  }

  /** The other of a pair, who can be blocked; null for everything else. */
  static other({ others, isGroup, isVisitors }) {
    return !isGroup && !isVisitors && others.length ? others[0] : null;
  }

  /** This user blocks the other of this pair. */
  has(conversation) {
    return this.#users.has(Blocks.other(conversation));
  }

  /** Ask the node, for a pair. */
  async look(conversation) {
    const { hasState, client } = this.session;
    if (!hasState || !conversation || Blocks.other(conversation) === null) return;
    const asked = ++this.#asked;
    const users = await client.blocked().catch(() => null); // no connection: the next one asks again
    if (users !== null && asked === this.#asked) this.#know(users);
  }

  /** Block a user, or no longer. Rejects with ImdError. */
  async set(userId, on) {
    await this.session.client.block(userId, on);
    this.#asked++;
    const others = [...this.#users].filter((user) => user !== userId);
    this.#know(on ? [...others, userId] : others);
  }

  #know(users) {
    this.#users = new Set(users);
    this.isKnown = true;
    this.session.store.changed();
  }
}
