// A visitor's chat on any site: <script src="https://NODE/widget.js" async></script>
// Attributes: data-url (the WebSocket, if the node does not know its address), data-title, data-lang (en, zh), data-color.
"use strict";
{
  const script = document.currentScript ?? document.querySelector('script[src*="widget.js"]');
  const { url, title, lang, color } = script.dataset;
  const base = script.src;
  // This script is served above the folders: its address is the base of theirs.
  import(new URL("widget/chat.js", base).href)
    .then(({ Widget }) => Widget.place({ base, url, title, lang, color }))
    .catch((error) => console.warn("imd: the chat could not be loaded", error));
}
