/** The JavaScript client of imd. docs/clients.md explains it. */

/** `waiting`: between two attempts. `closed`: stopped, or not to come back by itself. */
export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

/** A message as it is delivered, or read from the history (without `seq` then). */
export interface Message {
  seq?: number;
  id: string;
  clientMsgId?: string;
  userId: string;
  fromUserType?: string;
  to?: string;
  group?: string[];
  msg: string;
  contentType?: string;
  /** Milliseconds since 1970, by the servers' clock. */
  sendTime: number;
  isVisitor?: boolean;
}

/** A message in the outbox. Fields change as it goes its way. */
export interface Outgoing {
  readonly clientMsgId: string;
  readonly to?: string;
  readonly group?: string[];
  readonly msg: string;
  readonly contentType?: string;
  /** Milliseconds since 1970, by this device's clock. */
  readonly queuedAt: number;
  readonly state: "waiting" | "sent" | "accepted" | "failed";
  readonly error?: { code: string; reason: string };
}

export interface Limits {
  messageBytes: number;
  groupMembers: number;
  ackWindow: number;
  messagesPerSecond: number;
}

/** What localStorage is; getItem must answer at once. */
export interface StorageLike {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface Options {
  /** Such as `wss://example.com/ws`. A function is asked at each attempt. */
  url: string | (() => string);
  userId?: string;
  /** Left out: one that is kept in the storage; each tab has its own. */
  device?: string;
  loginType?: "USER_TYPE" | "CUSTOMER_TYPE";
  isCustomerService?: boolean;
  isVisitor?: boolean;
  /** Asked at each attempt, and for a newer one before the old one expires. When the node refuses what it gave (4001), it is asked
   *  again, backing off, until the node takes one. One that was refused before, since the last `connected`, ends it: `closed`. */
  token?: () => string | null | Promise<string | null>;
  /** Default: a page's localStorage, else memory. null: memory. */
  storage?: StorageLike | null;
  /** What the keys in the storage begin with; `imd` if left out. */
  storageKey?: string;
  /** A class like the browser's WebSocket. Needed in Node 20. */
  WebSocket?: any;
  /** True: the node forgets the device when it disconnects. */
  ephemeral?: boolean;
  /** Silence after which the node is asked for a sign of life. Default: what the node says. */
  pingSeconds?: number;
  /** How long that sign may take: 10. */
  pongSeconds?: number;
  /** From the beginning of an attempt to `connected`: 15. */
  connectSeconds?: number;
  /** Until a `history()` is given up: 20. */
  historySeconds?: number;
  /** 1000 */
  minBackoffMs?: number;
  /** 30000 */
  maxBackoffMs?: number;
  /** Entries of the outbox, failed ones included: 1000. */
  maxOutbox?: number;
  /** Unanswered messages at a time: 16. */
  maxInFlight?: number;
  /** False: several messages of one conversation may be unanswered at a time; a temporary error may then
   *  change their order. Default: true. */
  ordered?: boolean;
  /** The node's `[inbox] dedup_seconds`: 3600. */
  dedupSeconds?: number;
}

export interface Connected {
  userId: string;
  device: string;
  fromUserType: string;
  channel: string;
  epoch: string;
  seq: number;
  recovered: boolean;
  serverTime: number;
  limits: Limits;
  pingSeconds: number;
  visitorToken?: string;
  exp?: number;
  [field: string]: unknown;
}

/** The `detail` of each event. */
export interface Events {
  state: { state: State; code?: number; reason?: string; retryInMs?: number; permanent?: boolean };
  connected: Connected;
  /** In order, once. If a listener of `on` answers a promise, the message counts as had when it is settled. */
  message: Message;
  accepted: { clientMsgId: string; id: string; sendTime: number; message: Outgoing };
  failed: { clientMsgId: string; code: string; reason: string; message: Outgoing };
  /** Messages may be missing: read `history({all: true})`, and drop by `id` what is there. */
  gap: Record<string, never>;
  error: { code: string; reason: string };
  leaving: { reconnectMs: number };
  /** The outbox has changed. */
  outbox: Record<string, never>;
}

/** What `send` throws and `history` rejects with. */
export class ImdError extends Error {
  readonly code: string;
  readonly reason: string;
  constructor(code: string, reason: string);
}

export class Client extends EventTarget {
  constructor(options: Options);
  /** Connect, and stay connected. Also after `stop`, and after `closed` with `permanent`. */
  start(): void;
  /** Disconnect. Nothing of the client runs after it; what is in the outbox stays there. */
  stop(): Promise<void>;
  readonly state: State;
  /** Who the node says this is; before the first `connected`, the option. */
  readonly userId: string | null;
  /** Empty until `start` has found which one is free. */
  readonly device: string;
  readonly limits: Limits | null;
  /** Oldest first; accepted ones are no longer in it. */
  readonly outbox: readonly Outgoing[];
  /** Into the outbox, connected or not. Throws ImdError: `invalid_message`, or `outbox_full`. */
  send(what: { to?: string; group?: string[]; msg: string; contentType?: string }): Outgoing;
  /** Take a failed one, or one that was never sent, out of the outbox. */
  cancel(clientMsgId: string): boolean;
  /** Put a failed one at the end of the outbox again, under the same clientMsgId. */
  retry(clientMsgId: string): boolean;
  /** A page of the archive, oldest first. Waits for a connection. Rejects with ImdError. */
  history(what: {
    with?: string;
    group?: string[];
    all?: true;
    before?: string;
    limit?: number;
  }): Promise<{ messages: Message[]; more: boolean }>;
  /** `listener` gets the event's detail. The answer takes it off again. */
  on<T extends keyof Events>(type: T, listener: (detail: Events[T]) => unknown): () => void;
}
