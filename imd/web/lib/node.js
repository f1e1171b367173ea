// Finding the node: its settings for pages, and the address of its WebSocket.

const PAUSE_MS = 1000;
/** The folder that the node serves these files from, which need not be the root of its origin. */
const HOME = new URL("..", import.meta.url).href;

/** The node's settings for pages. Repeats the request until the node answers. */
export async function nodeSettings(base = HOME) {
  for (;;) {
    try {
      const answer = await fetch(new URL("client.json", base), { cache: "no-store", credentials: "omit" });
      if (answer.ok) return await answer.json();
    } catch {
      // No answer: try again after a pause.
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** The WebSocket's address. `settings.ws`: a port of the page's host, a path of its origin, or all of it. */
export function websocketUrl(settings, base = HOME) {
  const url = new URL(base);
  const secure = url.protocol === "https:";
  let where = settings.ws;
  // The page came over TLS, and the node has none: a proxy is in between.
  if (typeof where === "number" && secure && !settings.tls) where = "/ws";
  if (typeof where === "number") return `${settings.tls ? "wss" : "ws"}://${url.hostname}:${where}/ws`;
  if (where.startsWith("/")) return `${secure ? "wss" : "ws"}://${url.host}${where}`;
  return where;
}
