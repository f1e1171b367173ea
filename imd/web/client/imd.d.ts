/** The JavaScript client of imd. docs/clients.md is its manual. */

/** `waiting`: between two attempts. `closed`: stopped, or ended by the node for good. */
export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

export type Role = "owner" | "admin" | "member";

/** A room's member. Without a role: `member` when added. */
export interface Member {
  userId: string;
  role?: Role;
}

/** Equal reactions to a message: `users` are at most 20, the first ones and oneself. */
export interface Reactions {
  reaction: string;
  count: number;
  users: string[];
}

interface Numbered {
  /** None in the history and in `changes`. */
  seq?: number;
  id: string;
  clientMsgId?: string;
  userId: string;
  fromUserType?: string;
  to?: string;
  group?: string[];
  room?: string;
  /** Milliseconds since 1970, by the servers' clock. */
  sendTime: number;
  isVisitor?: boolean;
}

/** A received message, or one of the history. */
export interface Message extends Numbered {
  /** Only in a room. */
  kind?: "message";
  roomVersion?: number;
  msg: string;
  contentType?: string;
  /** The id of the message that is answered. */
  replyTo?: string;
  mentions?: string[];
  data?: Record<string, unknown>;
  /** Of the history and of a View: the last edit. */
  edited?: { id: string; time: number };
  /** Of the history and of a View: the time of the recall. `msg` is empty. */
  recalled?: number;
  reactions?: Reactions[];
  /** The id of the last reaction that is counted. */
  reactionsUpTo?: string;
}

/** `of` is the id of the message. */
export interface Edit extends Numbered {
  kind: "edit";
  of: string;
  msg: string;
  contentType?: string;
  mentions?: string[];
  data?: Record<string, unknown>;
}

export interface Recall extends Numbered {
  kind: "recall";
  of: string;
}

export interface React extends Numbered {
  kind: "react";
  of: string;
  reaction: string;
  /** False: it was taken back. */
  on: boolean;
}

export type RoomAction = "create" | "add" | "remove" | "role" | "set" | "join" | "leave" | "close";

/** Rules of a room. */
export interface Rules {
  posting?: "all" | "admins";
  history?: "all" | "joined";
  joining?: "invite" | "open";
  data?: Record<string, unknown>;
}

export interface RoomEvent extends Rules {
  seq?: number;
  kind: "room";
  id: string;
  clientMsgId?: string;
  room: string;
  /** The room's version from now on. */
  version: number;
  action: RoomAction;
  userId: string;
  fromUserType?: string;
  /** The users concerned; of a `create` the first 50 members. */
  users?: Required<Member>[];
  /** Members afterwards. */
  count: number;
  name?: string;
  sendTime: number;
}

/** A room of one's own. */
export interface Room extends Rules {
  room: string;
  name: string;
  role: Role;
  count: number;
  version: number;
  /** True for good once an owner has closed it. */
  closed?: boolean;
}

/** An entry of the outbox. Its `state` and `error` change. Without `kind` it is a message. */
export interface Outgoing {
  readonly clientMsgId: string;
  readonly kind?: "edit" | "recall" | "react" | "room";
  readonly to?: string;
  readonly group?: string[];
  readonly room?: string;
  /** Of a message and an edit. */
  readonly msg?: string;
  readonly contentType?: string;
  readonly replyTo?: string;
  readonly mentions?: string[];
  readonly data?: Record<string, unknown>;
  /** The id of the message that an edit, a recall or a reaction is about. */
  readonly of?: string;
  readonly reaction?: string;
  readonly on?: boolean;
  /** Of a room. */
  readonly action?: RoomAction;
  readonly name?: string;
  readonly users?: Member[];
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
  /** These four: where there are events. */
  dataBytes?: number;
  roomMembers?: number;
  editSeconds?: number;
  recallSeconds?: number;
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
  /** Asked for when connecting: `["events", "sync", "state"]`. Empty: messages only, as in 0.1. */
  features?: string[];
  /** False: this connection makes nobody see the user online. */
  presence?: boolean;
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

/** The name of a conversation. Of a list: the others. A visitor has one conversation, without a name. */
export interface Name {
  with?: string;
  group?: string[];
  room?: string;
}

/** A conversation's marks and settings, with what the node has not confirmed yet. Ids are empty where there is none. */
export interface Conversation extends Name {
  /** The id up to which the user has read. */
  read: string;
  /** The effective mark: the higher of `read` and the newest message of one's own that this client knows. */
  mark: string;
  /** The id up to which the other has read; empty if that is unknown, or hidden by either. */
  peerRead: string;
  /** A number: the time until which, in milliseconds since 1970. */
  muted: boolean | number;
  pinned: boolean;
  /** Not in the list until something newer than this id comes. */
  hidden: string;
  /** Nothing up to this id is shown. */
  cleared: string;
  /** Marked as unread by hand. */
  marked: boolean;
}

/** A conversation in a page of the list. Values at their default may be left out. */
export interface ListedConversation extends Name, Partial<Omit<Conversation, keyof Name>> {
  /** Its place: the id of its last message, or of the event that brought the user into a room. */
  at: string;
  last?: Message;
  /** Messages of others above the effective mark; 100 means 100 or more. */
  unread?: number;
  /** Of a room. */
  name?: string;
  version?: number;
}

/** The settings of a conversation: what is given changes. `hidden: null` shows it again. */
export interface Settings {
  muted?: boolean | number;
  pinned?: boolean;
  hidden?: string | null;
  cleared?: string;
  marked?: boolean;
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
  features?: string[];
  pingSeconds: number;
  visitorToken?: string;
  exp?: number;
  [field: string]: unknown;
}

/** The node's answer to an entry of the outbox. */
export interface Accepted {
  clientMsgId: string;
  /** Absent if nothing had to be done. */
  id?: string;
  sendTime?: number;
  /** False: nothing had to be done. */
  changed: boolean;
  /** Of a room's action. */
  room?: string;
  version?: number;
  message: Outgoing;
}

/** The `detail` of each event. */
export interface Events {
  state: { state: State; code?: number; reason?: string; retryInMs?: number; permanent?: boolean };
  connected: Connected;
  /** In order, once. If a listener of `on` returns a promise, the message is handled when that is settled. */
  message: Message;
  /** One's own message, written on another device. */
  sent: Message;
  /** These four: also one's own from other devices, never those of this device. Handled as `message`. */
  edit: Edit;
  recall: Recall;
  react: React;
  room: RoomEvent;
  accepted: Accepted;
  failed: { clientMsgId: string; code: string; reason: string; message: Outgoing };
  /** Messages may be missing: read `history({all: true})`, and drop known ones by `id`. */
  gap: Record<string, never>;
  /** Marks or settings have changed, here or on another device: the conversations that look different. `all`: the node has sent
   *  everything anew, and a conversation that is not here is neither muted nor pinned. */
  conversations: { conversations: Conversation[]; all: boolean; receipts: boolean };
  /** Watched users, true for those online: with `all` all of them, else those that have changed. */
  presence: { users: Record<string, boolean>; all: boolean };
  /** A user has begun to write, or has stopped: nothing came for 6 seconds, a message came, or the connection was lost. */
  typing: { userId: string; on: boolean } & Name;
  /** Of another app, or of another device of the user. */
  signal: { userId: string; name: string; data?: Record<string, unknown> } & Name;
  /** A mark, a setting, a list of watched users or a signal was refused for good. `frame`: as it was sent. */
  refused: { code: string; reason: string; frame: Record<string, unknown> };
  error: { code: string; reason: string };
  leaving: { reconnectMs: number };
  /** The outbox has changed. */
  outbox: Record<string, never>;
}

/** The error that calls throw and promises reject with. */
export class ImdError extends Error {
  readonly code: string;
  readonly reason: string;
  constructor(code: string, reason: string);
}

/** One conversation. A visitor has a single one, which `all` names. */
export type Selector = { with: string } | { group: string[] } | { room: string } | { all: true };

/** Text, and what goes with it. */
export interface Content {
  msg: string;
  contentType?: string;
  /** User ids, or `["@all"]`. */
  mentions?: string[];
  data?: Record<string, unknown>;
}

type Users = string | Member | (string | Member)[];
/** The action is refused (`conflict`) if the room has another version by then. */
type AtVersion = { version?: number };

/** Actions return their entry of the outbox, and throw as `send`. Questions reject with ImdError. */
export interface Rooms {
  /** `accepted` tells the new room's id. */
  create(what: { name: string; users?: Users } & Rules): Outgoing;
  add(room: string, users: Users, options?: AtVersion): Outgoing;
  remove(room: string, users: Users, options?: AtVersion): Outgoing;
  role(room: string, users: Required<Member> | Required<Member>[], options?: AtVersion): Outgoing;
  set(room: string, what: { name?: string } & Rules & AtVersion): Outgoing;
  join(room: string, options?: AtVersion): Outgoing;
  leave(room: string, options?: AtVersion): Outgoing;
  close(room: string, options?: AtVersion): Outgoing;
  /** One's own rooms, by id. */
  list(what?: { after?: string; limit?: number }): Promise<{ rooms: Room[]; more: boolean }>;
  /** By user id. */
  members(
    room: string,
    what?: { after?: string; limit?: number },
  ): Promise<{ room: string; version: number; users: Required<Member>[]; more: boolean }>;
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
  /** The features that the cluster has granted. Empty before `connected`. */
  readonly features: readonly string[];
  readonly rooms: Rooms;
  /** Oldest first; accepted ones are no longer in it. */
  readonly outbox: readonly Outgoing[];
  /** Put a message into the outbox, connected or not. Throws ImdError: `invalid_message`, `outbox_full`, or
   *  `unsupported` for a room, `replyTo`, `mentions` or `data` in a cluster without events. */
  send(what: { to?: string; group?: string[]; room?: string; replyTo?: string } & Content): Outgoing;
  /** Replace text, content type, mentions and data of a message of one's own, given as such or by its id. */
  edit(message: { id: string } | string, what: Content): Outgoing;
  /** Remove a message for everybody, for good. */
  recall(message: { id: string } | string): Outgoing;
  /** Add a reaction; with `on` false take it back. */
  react(message: { id: string } | string, reaction: string, on?: boolean): Outgoing;
  /** The node's answer to an entry, also one that has come already. Rejects with ImdError if the entry fails,
   *  or when the client is stopped or closed; the entry may then still wait in the outbox. */
  accepted(entry: Outgoing): Promise<Accepted>;
  /** Remove a message that has failed, or was never sent, from the outbox. False for any other. */
  cancel(clientMsgId: string): boolean;
  /** Put a failed message at the end of the outbox again, under the same clientMsgId. */
  retry(clientMsgId: string): boolean;
  /** A page of the archive, oldest first. `rooms: false`: rooms are left out. Waits for a connection. Rejects with ImdError. */
  history(
    what: Selector & { before?: string; after?: string; around?: string; limit?: number },
  ): Promise<{ messages: (Message | RoomEvent)[]; more: boolean; moreAfter?: boolean; rooms?: false }>;
  /** The messages, and changes of rooms, with these ids, at most 50, that one may read. */
  messages(ids: string[]): Promise<(Message | RoomEvent)[]>;
  /** Events but no messages, oldest first. Everything up to `complete` is archived. */
  changes(
    what: Selector & { after?: string; limit?: number },
  ): Promise<{ events: (Edit | Recall | React | RoomEvent)[]; more: boolean; complete: string }>;
  /** Others see up to where the user has read, and the user sees theirs. */
  readonly receipts: boolean;
  /** Conversations with marks or settings, in no order. */
  readonly knownConversations: Conversation[];
  /** The watched users, and whether each is online. Empty while not connected. */
  readonly present: ReadonlyMap<string, boolean>;
  /** A conversation's marks and settings. */
  conversation(name: Name): Conversation;
  /** The user has read up to a message's id; it also ends `marked`. Kept until the node has confirmed it. Does nothing for the id that was
   *  refused last, until the next connection. Throws ImdError, as do the next four: `invalid_message`, or `unsupported` without the feature
   *  `state` among the options. */
  read(what: Name & { upTo: string }): void;
  /** Settings of a conversation, or one's own `receipts`. They count at once, and are kept until the node has confirmed them. */
  settings(what: (Name & Settings) | { receipts: boolean }): void;
  /** Watch these users, at most 200, instead of those before. Empty: nobody. */
  watch(users: string[]): void;
  /** The user is writing. Call it as often as you like: one in 2 seconds is sent, if connected. */
  typing(name: Name): void;
  /** Send a signal of the app's own to everybody else who is connected there, and own devices. False while not connected. */
  signal(what: Name & { name: string; data?: Record<string, unknown> }): boolean;
  /** A page of one's own conversations, newest first, older than a place (`at`); or the pinned ones. Rejects with ImdError. */
  conversations(what?: { limit?: number; before?: string; pinned?: boolean }): Promise<{ conversations: ListedConversation[]; more: boolean }>;
  /** Block a user, or no longer. Settled when it is stored. */
  block(userId: string, on?: boolean): Promise<void>;
  blocked(): Promise<string[]>;
  /** Call `listener` with each event's detail. Returns a function that ends this. */
  on<T extends keyof Events>(type: T, listener: (detail: Events[T]) => unknown): () => void;
}

/** Messages as they are now, whatever the order in which the app hears of them: of one conversation, or of all. */
export class View {
  /** `me`: oneself, who is then named beside each reaction of one's own, however many others gave it. */
  constructor(me?: string);
  /** In the order of their ids. */
  readonly messages: Message[];
  get(id: string): Message | undefined;
  /** Of `message`, `sent`, a history or `messages`. False if nothing looks different. */
  add(message: Message): boolean;
  /** The message need not be there yet. Returns its id if it looks different, else null. */
  apply(event: Edit | Recall | React): string | null;
  /** An entry that this device sent itself, as `userId`. Returns the id of the message that looks different, else null. */
  accepted(detail: Accepted, userId: string): string | null;
  remove(id: string): void;
}

/** One's own rooms, from their list and their events. Versions that are known are dropped. */
export class RoomsView {
  constructor(me: string);
  /** In the order of their ids. */
  readonly all: Room[];
  get(room: string): Room | undefined;
  /** A page of `rooms.list`. */
  put(page: { rooms: Room[] }): void;
  /** False for a version that is known, or older. */
  apply(event: RoomEvent): boolean;
  /** A room's action of this device. Where users were passed over, `count` is a guess until `put`. */
  accepted(detail: Accepted): boolean;
}

/** One's own conversations, newest first, out of pages of the list and of what comes later. Nothing counts twice. Visitors' are not in it. */
export class ConversationsView {
  constructor(me: string);
  /** Without hidden ones, newest first. */
  readonly all: (Conversation & { at: string; unread: number; last?: Message; name?: string; version?: number })[];
  /** Unread messages in conversations that are not muted. */
  readonly unread: number;
  /** A conversation is listed whose earlier messages were not counted: ask for the first page again. */
  readonly incomplete: boolean;
  get(name: Name): ConversationsView["all"][number] | undefined;
  /** A page of `conversations`. */
  put(page: { conversations: ListedConversation[] }): void;
  /** Of `message` and `sent`. False if nothing looks different, as with the next two. */
  add(message: Message): boolean;
  apply(event: Edit | Recall | React | RoomEvent): boolean;
  /** An entry that this device sent itself. */
  accepted(detail: Accepted): boolean;
  /** The detail of an event `conversations`. */
  changed(detail: Events["conversations"]): void;
}
