// Clocks that only the test moves, and chance that is always 1.

export const TIME_MS = 1_764_000_000_000; // the node's time, and the time of day, when a scenario begins

/** Clocks that only the test moves, in place of the real ones. */
export class Clocks {
  now = 0;
  day = 0; // milliseconds that the time of day is set by
  #timers = new Map();
  #count = 0;
  #real = {};

  install() {
    const set = (again) => (callback, ms = 0) => {
      const id = ++this.#count;
      this.#timers.set(id, { at: this.now + Math.max(0, ms), callback, again: again ? ms : null, id });
      return id;
    };
    const clear = (id) => void this.#timers.delete(id);
    this.#real = { setTimeout, clearTimeout, setInterval, clearInterval, random: Math.random, today: Date.now, performance: performance.now };
    Object.assign(globalThis, { setTimeout: set(false), clearTimeout: clear, setInterval: set(true), clearInterval: clear });
    Math.random = () => 1;
    Date.now = () => TIME_MS + Math.round(this.now) + this.day;
    performance.now = () => this.now + 5000;
  }

  restore() {
    const { random, today, performance: now, ...globals } = this.#real;
    Object.assign(globalThis, globals);
    Math.random = random;
    Date.now = today;
    performance.now = now;
  }

  /** No timer runs any more. */
  forget() {
    this.#timers.clear();
  }

  /** Let promises go on, and run the timers that are due. */
  async settle() {
    for (let quiet = 0; quiet < 3; ) {
      await new Promise((resolve) => setImmediate(resolve));
      quiet = this.#runFirst(this.now) ? 0 : quiet + 1;
    }
  }

  async advance(ms) {
    const end = this.now + ms;
    await this.settle();
    while (this.#runFirst(end)) await this.settle();
    this.now = end;
    await this.settle();
  }

  #runFirst(end) {
    const [first] = [...this.#timers.values()].sort((one, other) => one.at - other.at || one.id - other.id);
    if (!first || first.at > end) return false;
    this.now = Math.max(this.now, first.at);
    if (first.again === null) this.#timers.delete(first.id);
    else first.at += first.again;
    first.callback();
    return true;
  }
}
