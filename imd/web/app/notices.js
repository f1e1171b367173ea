// Notifications on the screen: by the service worker, or by the page itself where there is no worker.

const WORKER = new URL("worker.js", import.meta.url).href;
const BEGIN_MS = 10_000;

/** The pages' headers forbid scripts by a string but for this name, which stands for the worker alone. */
function trusted() {
  const policy = { createScriptURL: () => WORKER };
  try {
    return trustedTypes.createPolicy("imd-worker", policy);
  } catch {
    return policy; // the browser knows no such names
  }
}

const scripts = trusted();
let beginning = null;

function activated({ installing, waiting }) {
  const made = installing ?? waiting;
  return new Promise((done) => made.addEventListener("statechange", () => ["activated", "redundant"].includes(made.state) && done()));
}

/** The worker knows this window by an id. */
function windowOf(worker) {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(null, [port2]);
  return new Promise((done) => (port1.onmessage = ({ data }) => done(data)));
}

async function begin() {
  const registration = await navigator.serviceWorker.register(scripts.createScriptURL(""));
  if (!registration.active) await activated(registration);
  return { registration, client: await windowOf(registration.active) };
}

/** Make the worker ready. Resolves to {registration, client}; null where there can be none. */
export function worker() {
  beginning ??= Promise.race([begin(), new Promise((done) => setTimeout(done, BEGIN_MS, null))])
    .catch(() => null) // the browser has no workers, or its user forbids them; or the node did not answer
    .then((made) => made ?? (beginning = null));
  return beginning;
}

/** Remove the worker, and all that it has shown. */
export async function dismiss() {
  beginning = null;
  try {
    const registration = await navigator.serviceWorker.getRegistration(WORKER);
    for (const each of (await registration?.getNotifications()) ?? []) each.close();
    await registration?.unregister();
  } catch {
    // The browser has no workers, or its user forbids them.
  }
}

/** Notifications that an earlier page of this browser has shown, as [data, close]. */
export async function earlier() {
  const made = await worker();
  const shown = (await made?.registration.getNotifications()) ?? [];
  return shown.map((each) => [each.data ?? {}, () => each.close()]);
}

/** Show one. `chosen` is called when the page itself has shown it, and the user chooses it. Resolves to a function that closes it. */
export async function show(title, { data, ...options }, chosen) {
  const made = await worker();
  try {
    const { registration, client } = made;
    await registration.showNotification(title, { ...options, data: { ...data, client } });
    return async () => (await registration.getNotifications({ tag: options.tag })).forEach((each) => each.close());
  } catch {
    const shown = new Notification(title, options);
    shown.onclick = () => {
      shown.close();
      chosen();
    };
    return () => shown.close();
  }
}

/** `chosen` is called with the data of a notification of the worker that the user has chosen. Returns a function that ends that. */
export function listen(chosen) {
  const heard = ({ data }) => chosen(data);
  try {
    navigator.serviceWorker.addEventListener("message", heard);
    return () => navigator.serviceWorker.removeEventListener("message", heard);
  } catch {
    return () => {}; // no workers
  }
}
