// The widget's styles, for its shadow root: they and the site's do not affect each other.

export const STYLE = `
:host {
  --accent: var(--imd-accent, #0b746a);
  --on-accent: var(--imd-on-accent, #fff);
  --surface: #fff;
  --ground: #f2f5f5;
  --line: #dfe5e7;
  --text: #16201f;
  --soft: #586664;
  --danger: #b3261e;
  --warn: #fff4d6;
  --on-warn: #5b4300;
  /* Without "important" a rule of the site for the host element would win. */
  all: initial !important;
  position: fixed !important;
  right: 20px !important;
  bottom: 20px !important;
  z-index: 2147483000 !important;
  color: var(--text) !important;
  font: 15px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif !important;
}
@media (prefers-color-scheme: dark) {
  :host {
    --surface: #1a2221;
    --ground: #111817;
    --line: #2d3836;
    --text: #e6edeb;
    --soft: #9aa9a6;
    --danger: #ff9a8f;
    --warn: #3a3010;
    --on-warn: #f3dd9a;
  }
}
* { box-sizing: border-box; margin: 0; padding: 0; }
[hidden] { display: none !important; }
button, textarea { border: 0; background: none; color: inherit; font: inherit; }
button { cursor: pointer; }
:focus { outline: none; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.icon { display: block; width: 24px; height: 24px; fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.strong { color: var(--text); font-weight: 600; }
.hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.bubble {
  position: relative;
  display: grid;
  place-items: center;
  width: 60px;
  height: 60px;
  border-radius: 50%;
  background: var(--accent);
  color: var(--on-accent);
  box-shadow: 0 6px 24px rgb(0 0 0 / 28%);
}
.bubble:hover { filter: brightness(1.08); }
.bubble .icon { width: 28px; height: 28px; }
.bubble .icon-close, .bubble.opened .icon-bubble { display: none; }
.bubble.opened .icon-close { display: block; }
.badge {
  position: absolute;
  top: -2px;
  right: -2px;
  min-width: 22px;
  padding: 0 6px;
  border-radius: 11px;
  background: #c62828;
  color: #fff;
  font-size: 12.5px;
  font-weight: 700;
  line-height: 22px;
  text-align: center;
}
.panel {
  position: absolute;
  right: 0;
  bottom: 76px;
  display: flex;
  flex-direction: column;
  width: 380px;
  height: min(600px, calc(100dvh - 120px));
  border-radius: 20px;
  background: var(--surface);
  box-shadow: 0 16px 56px rgb(0 0 0 / 26%), 0 0 0 1px var(--line);
  overflow: hidden;
}
.head { display: flex; align-items: center; padding: 12px 10px 12px 20px; background: var(--accent); color: var(--on-accent); }
h2 { flex: 1; min-width: 0; overflow: hidden; font-size: 17px; font-weight: 650; text-overflow: ellipsis; white-space: nowrap; }
.shut { display: grid; place-items: center; width: 40px; height: 40px; border-radius: 12px; }
.shut:focus-visible { outline-color: currentColor; outline-offset: -3px; }
.link { padding: 8px 20px; background: var(--warn); color: var(--on-warn); font-size: 13.5px; }
.scroller { flex: 1; min-height: 0; padding: 16px 16px 4px; background: var(--ground); overflow-x: hidden; overflow-y: auto; overflow-anchor: none; overscroll-behavior: contain; scrollbar-width: thin; }
.scroller:focus-visible { outline-offset: -2px; }
.typing { display: flex; flex: none; align-items: center; gap: 6px; height: 22px; padding: 0 20px; background: var(--ground); color: var(--soft); font-size: 12.5px; line-height: 22px; }
.typing > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.dots { display: inline-flex; flex: none; gap: 3px; }
.dots i { width: 4px; height: 4px; border-radius: 50%; background: currentColor; }
ol { display: flex; flex-direction: column; align-items: flex-start; gap: 6px; list-style: none; }
.hello { align-self: stretch; margin-bottom: 6px; padding: 14px 16px; border-radius: 16px; background: var(--surface); box-shadow: 0 0 0 1px var(--line); color: var(--soft); font-size: 14px; }
.hello .strong { margin-bottom: 2px; font-size: 16px; }
.day { align-self: center; margin: 8px 0 2px; color: var(--soft); font-size: 12.5px; font-weight: 600; }
li.of-mine, li.of-theirs { display: flex; flex-direction: column; align-items: flex-start; align-self: stretch; gap: 4px; }
li.of-mine { align-items: flex-end; }
.message { position: relative; max-width: 85%; padding: 8px 12px 7px; border-radius: 18px 18px 18px 6px; background: var(--surface); box-shadow: 0 0 0 1px var(--line); }
.mine { border-radius: 18px 18px 6px 18px; background: var(--accent); box-shadow: none; color: var(--on-accent); }
.recalled { background: none; box-shadow: 0 0 0 1px var(--line); color: var(--soft); }
.mine.recalled .meta { color: var(--soft); }
.gone { display: inline; font-style: italic; }
.quote { display: block; width: calc(100% + 8px); min-width: 110px; margin: 1px -4px 5px; padding: 4px 9px; border-left: 3px solid var(--accent); border-radius: 8px; background: var(--ground); color: var(--text); font-size: 13.5px; text-align: left; }
.quote-name, .quote-text { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.quote-name { font-weight: 650; }
.quote .gone, .quote.gone { color: var(--soft); }
.mine .quote { border-left-color: var(--soft); }
.mine .quote:focus-visible { outline-color: var(--on-accent); }
li:focus-visible { outline: none; }
li:focus-visible .message { outline: 2px solid var(--accent); outline-offset: 2px; }
li.found .message { outline: 3px solid var(--accent); outline-offset: 2px; }
.reactions { display: flex; flex-wrap: wrap; gap: 4px; }
.reactions button { min-height: 26px; padding: 1px 9px; border-radius: 13px; background: var(--surface); box-shadow: 0 0 0 1px var(--line); color: var(--text); font-size: 13px; font-weight: 600; }
.reactions button[aria-pressed="true"] { box-shadow: 0 0 0 2px var(--accent); }
.reactions button:disabled { cursor: default; }
.more { position: absolute; top: calc(50% - 15px); left: -34px; display: grid; place-items: center; width: 30px; height: 30px; border-radius: 50%; color: var(--soft); opacity: 0; }
.theirs .more { right: -34px; left: auto; }
.more .icon { width: 18px; height: 18px; stroke-width: 3; }
.mine .more:focus-visible { outline-color: var(--accent); }
.message:hover .more, .more:focus-visible, .more[aria-expanded="true"] { opacity: 1; }
@media (hover: none) { .more { opacity: 1; } }
.acts { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; max-width: 92%; color: var(--soft); font-size: 13px; }
.acts button { min-height: 30px; padding: 2px 12px; border-radius: 15px; background: var(--surface); box-shadow: 0 0 0 1px var(--line); color: var(--text); font-weight: 600; }
.of-mine .acts { justify-content: flex-end; }
.acts .recall, .acts .yes, .trouble { color: var(--danger); }
.unsaved { max-width: 100%; color: var(--text); overflow-wrap: anywhere; }
.compose-mode { display: flex; align-items: center; gap: 10px; padding: 4px 12px 4px 18px; border-top: 1px solid var(--line); background: var(--surface); color: var(--soft); font-size: 13.5px; }
.compose-mode-text { flex: 1; min-width: 0; }
.compose-mode-text .strong { display: block; }
.compose-mode .icon { flex: none; width: 18px; height: 18px; }
.button-icon { display: grid; flex: none; place-items: center; width: 36px; height: 36px; border-radius: 12px; }
.mine.failed { background: var(--surface); box-shadow: 0 0 0 1px var(--danger); color: var(--text); }
.sender { display: block; color: var(--soft); font-size: 12.5px; font-weight: 650; }
.text { display: inline; overflow-wrap: anywhere; white-space: pre-wrap; }
.text a { color: inherit; text-underline-offset: 2px; }
.meta { display: inline-flex; float: right; align-items: center; gap: 4px; margin: 5px 0 -1px 10px; color: var(--soft); font-size: 11.5px; line-height: 16px; }
.mine .meta { color: color-mix(in srgb, var(--on-accent) 90%, var(--accent)); }
.mine.failed .meta { color: var(--danger); }
.meta .icon { width: 15px; height: 15px; stroke-width: 2.2; }
.meta button { min-width: 24px; min-height: 24px; margin-left: 4px; font-weight: 600; text-decoration: underline; }
.mine :focus-visible { outline-color: currentColor; }
form { display: flex; align-items: flex-end; gap: 8px; padding: 10px 12px max(10px, env(safe-area-inset-bottom)) 18px; border-top: 1px solid var(--line); background: var(--surface); }
textarea { flex: 1; min-width: 0; padding: 8px 0; line-height: 21px; outline: none; resize: none; }
textarea:focus-visible { outline: none; }
textarea::placeholder { color: var(--soft); opacity: 1; }
form:focus-within { box-shadow: inset 0 2px 0 var(--accent); }
.send { display: grid; flex: none; place-items: center; width: 37px; height: 37px; border-radius: 50%; background: var(--accent); color: var(--on-accent); }
.send:disabled { background: none; color: var(--soft); cursor: default; }
.send .icon { width: 20px; height: 20px; }
@media (max-width: 480px) {
  .panel { position: fixed; inset: 0; width: auto; height: 100dvh; border-radius: 0; }
  .bubble.opened { display: none; }
  textarea { font-size: 16px; }
}
@media (prefers-reduced-motion: no-preference) {
  .panel { animation: rise 0.16s ease-out; }
  @keyframes rise { from { opacity: 0; transform: translateY(10px); } }
  .dots i { animation: beat 1.2s ease-in-out infinite; }
  .dots i:nth-child(2) { animation-delay: 0.2s; }
  .dots i:nth-child(3) { animation-delay: 0.4s; }
  @keyframes beat { 50% { opacity: 0.3; } }
}
`;
