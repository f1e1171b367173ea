// The service worker of the chat and the desk: on phones only a worker may notify. It leads from a notification back to the page.
// No page is in its scope, which is its own folder: it is asked for no file, and keeps none.

/** A page asks which of the windows it is. */
addEventListener("message", ({ source, ports: [port] }) => port.postMessage(source.id));

addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(lead(event.notification.data));
});

/** To the window that has notified, else to another one of the same user; without any, to a new one. */
async function lead({ who, page, address, client, everywhere }) {
  const windows = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const isPage = ({ url }) => url.split("#")[0] === page;
  const there = windows.find(({ id }) => id === client) ?? (everywhere && windows.find(isPage));
  if (!there) return clients.openWindow(page + address);
  there.postMessage({ who, address });
  return there.focus();
}
