/** The JavaScript client of imd. docs/clients.md is its manual. */

/** `waiting`: between two attempts. `closed`: stopped, or ended by the node for good. */
export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

/** A received message, or one of the history, which has no `seq`. */
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

/** A message in the outbox. Its `state` and `error` change. */
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

/** The synchronous interface of localStorage. */
export interface StorageLike {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface Options {
  /** Such as `wss://example.com/ws`. A function is called at each attempt. */
  url: string | (() => string);
  userId?: string;
  /** Default: a name from the storage; each tab has its own. */
  device?: string;
  loginType?: "USER_TYPE" | "CUSTOMER_TYPE";
  isCustomerService?: boolean;
  isVisitor?: boolean;
  /** Called at each attempt, and before the present token expires. If the node refuses a token (4001), it is called again, with
   *  backoff, until the node accepts one. A token that was refused since the last `connected` ends the client: `closed`. */
  token?: () => string | null | Promise<string | null>;
  /** Default: a page's localStorage, else memory. null: memory. */
  storage?: StorageLike | null;
  /** Prefix of the keys in the storage: `imd`. */
  storageKey?: string;
  /** A class like the browser's WebSocket. Needed in Node 20. */
  WebSocket?: any;
  /** False: the user does not stand in the WebSocket's URL, where a gateway looks for it. */
  hint?: boolean;
  /** True: the node forgets the device when it disconnects. */
  ephemeral?: boolean;
  /** Silence of the node before the client pings it. Default: the node's interval. */
  pingSeconds?: number;
  /** Deadline of the pong: 10. */
  pongSeconds?: number;
  /** From the beginning of an attempt to `connected`: 15. */
  connectSeconds?: number;
  /** Deadline of a `history()`: 20. */
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
  /** In order, once. If a listener of `on` returns a promise, the message is handled when that is settled. */
  message: Message;
  accepted: { clientMsgId: string; id: string; sendTime: number; message: Outgoing };
  failed: { clientMsgId: string; code: string; reason: string; message: Outgoing };
  /** Messages may be missing: read `history({all: true})`, and drop known ones by `id`. */
  gap: Record<string, never>;
  error: { code: string; reason: string };
  leaving: { reconnectMs: number };
  /** The outbox has changed. */
  outbox: Record<string, never>;
}

/** The error that `send` throws and `history` rejects with. */
export class ImdError extends Error {
  readonly code: string;
  readonly reason: string;
  constructor(code: string, reason: string);
}

export class Client extends EventTarget {
  constructor(options: Options);
  /** Connect, and stay connected. Also after `stop`, and after `closed` with `permanent`. */
  start(): void;
  /** Disconnect. No timer runs afterwards; the outbox stays as it is. */
  stop(): Promise<void>;
  readonly state: State;
  /** The user as the node named it; before the first `connected`, the option. */
  readonly userId: string | null;
  /** Empty until `start` has found a free slot. */
  readonly device: string;
  readonly limits: Limits | null;
  /** Oldest first; accepted ones are no longer in it. */
  readonly outbox: readonly Outgoing[];
  /** Put a message into the outbox, connected or not. Throws ImdError: `invalid_message`, or `outbox_full`. */
  send(what: { to?: string; group?: string[]; msg: string; contentType?: string }): Outgoing;
  /** Remove a message that has failed, or was never sent, from the outbox. False for any other. */
  cancel(clientMsgId: string): boolean;
  /** Put a failed message at the end of the outbox again, under the same clientMsgId. */
  retry(clientMsgId: string): boolean;
  /** A page of the archive, oldest first. Waits for a connection. Rejects with ImdError. */
  history(what: {
    with?: string;
    group?: string[];
    all?: true;
    before?: string;
    limit?: number;
  }): Promise<{ messages: Message[]; more: boolean }>;
  /** Call `listener` with each event's detail. Returns a function that ends this. */
  on<T extends keyof Events>(type: T, listener: (detail: Events[T]) => unknown): () => void;
}
