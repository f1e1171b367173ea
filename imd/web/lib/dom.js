// Elements, icons; a storage and a channel that never throw.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. In `props`, onclick and the like are listeners, strings are attributes, others are properties. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (typeof value === "string") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const PATHS = {
  back: "M15 5l-7 7 7 7",
  bell: "M6 16.500V11a6 6 0 0 1 12 0v5.500M4.500 16.500h15M10 19.500h4",
  block: "M12 3.500a8.500 8.500 0 1 1 0 17 8.500 8.500 0 0 1 0-17zM6 6l12 12",
  bubble: "M4 6.5A2.5 2.5 0 0 1 6.500 4h11A2.500 2.500 0 0 1 20 6.500v7a2.500 2.500 0 0 1-2.500 2.500H11l-4.500 4v-4A2.500 2.500 0 0 1 4 13.500z",
  check: "M5 12.500l4.500 4.500L19 7.500",
  checks: "M2.500 12.500L7 17l9.500-9.500M11.500 16.500l.5.500L21.500 7.500",
  clock: "M12 7v5l3 2M12 3.500a8.500 8.500 0 1 1 0 17 8.500 8.500 0 0 1 0-17z",
  close: "M6 6l12 12M18 6L6 18",
  cloud: "M3 3l18 18M8.500 8A5 5 0 0 0 7 17.500h9M18.500 16.500A4 4 0 0 0 17 9.500a5.500 5.500 0 0 0-5-3.500",
  down: "M12 5v14M6 13l6 6 6-6",
  copy: "M9 9h9.500v10.500H9zM6 15H5.500V4.500H15V6",
  edit: "M5 19l1-4L16.500 4.500l3 3L9 18zM14.500 6.500l3 3",
  failed: "M12 7.500v5.500M12 16.500v.1M12 3.500a8.500 8.500 0 1 1 0 17 8.500 8.500 0 0 1 0-17z",
  headset: "M5 15v-3a7 7 0 0 1 14 0v3M5 14h2.500v5H6a1 1 0 0 1-1-1zM19 14h-2.500v5H18a1 1 0 0 0 1-1zM18 19c0 1.500-2 2-4 2",
  hide: "M4 12c2-3.700 4.700-5.500 8-5.500s6 1.800 8 5.500c-2 3.700-4.700 5.500-8 5.500S6 15.700 4 12zM5 19L19 5",
  more: "M5 12h.1M12 12h.1M19 12h.1",
  mute: "M6 16.500V11a6 6 0 0 1 12 0v5.500M4.500 16.500h15M10 19.500h4M4 4l16 16",
  people: "M9 11.500a3.250 3.250 0 1 0 0-6.500 3.250 3.250 0 0 0 0 6.500zM3 19c.4-3 2.800-4.500 6-4.500s5.600 1.500 6 4.500M15.500 5.300a3.250 3.250 0 0 1 0 5.900M17.500 14.800c2 .6 3.200 2 3.500 4.200",
  pin: "M9 4.500h6l-.7 6 3.200 3.500h-11L9.700 10.500zM12 14v5.500",
  plus: "M12 5v14M5 12h14",
  recall: "M5 7h14M10 7V4.500h4V7M7 7l.8 12.500h8.400L17 7M10.500 10.500v5.500M13.500 10.500v5.500",
  reply: "M10 6L4.500 11.500 10 17M5 11.500h9a5.500 5.500 0 0 1 5.500 5.500v1",
  room: "M9.500 4.500L7.500 19.500M16.500 4.500L14.500 19.500M5 9.500h15M4 14.500h15",
  search: "M11 4.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zM16 16l4 4",
  smile: "M12 3.500a8.500 8.500 0 1 1 0 17 8.500 8.500 0 0 1 0-17zM8.500 14c.8 1.400 2 2.100 3.500 2.100s2.700-.7 3.500-2.100M9 9.500v.1M15 9.500v.1",
  send: "M4.500 12L4 4.500 20.500 12 4 19.500zM4.500 12H12",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** JSON in web storage. Where that is forbidden, full or damaged, it reads as empty. */
export const kept = {
  get(key, otherwise = null, storage = "localStorage") {
    try {
      return JSON.parse(window[storage].getItem(key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(key, value, storage = "localStorage") {
    try {
      if (value === null) window[storage].removeItem(key);
      else window[storage].setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
};

/** A channel to the browser's other tabs; a silent one where the browser forbids it. */
export function channelOf(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return { onmessage: null, postMessage() {}, close() {} };
  }
}

const FRAME_MS = 200;
const PRESS_MS = 500; // a longer press holds nothing up

let pressed = null; // the timer that ends a press of the pointer
const held = new Set(); // what is drawn after it

function release() {
  pressed = null;
  const draws = [...held];
  held.clear();
  for (const draw of draws) draw();
}

function press(ms) {
  clearTimeout(pressed);
  pressed = setTimeout(release, ms);
}

addEventListener("pointerdown", () => press(PRESS_MS), true);
// The click comes at once, before any timer.
for (const type of ["pointerup", "pointercancel"]) addEventListener(type, () => pressed !== null && press(0), true);

/** Call `run` once for many calls: with the next frame, or by a timer where no frames are drawn. While the pointer is pressed it
 *  waits: an element that is replaced between the press and the release gets no click. */
export function batched(run) {
  let timer = null;
  let frame = null;
  const now = () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    if (pressed !== null) return void held.add(now);
    timer = frame = null;
    run();
  };
  return () => {
    if (timer !== null) return;
    timer = setTimeout(now, document.hidden ? 0 : FRAME_MS);
    frame = requestAnimationFrame(now);
  };
}
