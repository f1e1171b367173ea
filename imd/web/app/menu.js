// Look and language: chosen in the menu, kept in the browser, the same on all pages.
import { h } from "../lib/dom.js";
import { language, LANGUAGES, setLanguage, t } from "../lib/text.js";

const root = document.documentElement;

// Plain text, not JSON: theme.js reads both before the page is drawn.
function keepText(key, text) {
  try {
    if (text === null) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // The storage is blocked: the choice lasts as long as the page.
  }
}

/** One of several values, as a fieldset. */
export function choice(name, legend, options, chosen, choose) {
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", {}, legend),
    h(
      "div",
      { class: "segments" },
      Object.entries(options).map(([value, label]) =>
        h(
          "label",
          { class: "segment" },
          h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => choose(value) }),
          h("span", {}, label),
        ),
      ),
    ),
  );
}

/** A switch. `change` is called with whether it is on. {element, input, text}: the whole, its box, and its words. */
export function toggle(words, checked, change) {
  const input = h("input", { type: "checkbox", role: "switch", checked, onchange: () => change(input.checked) });
  const text = h("span", { class: "switch-text" }, words);
  const element = h("label", { class: "switch" }, input, h("span", { class: "switch-track", "aria-hidden": "true" }), text);
  return { element, input, text };
}

/** Both choices, as fieldsets. `redraw` is called when the language has changed. */
export function lookAndLanguage(redraw) {
  const looks = { auto: t("theme.auto"), light: t("theme.light"), dark: t("theme.dark") };
  return [
    choice("theme", t("menu.theme"), looks, root.dataset.theme ?? "auto", (theme) => {
      if (theme === "auto") delete root.dataset.theme;
      else root.dataset.theme = theme;
      keepText("imd.theme", theme === "auto" ? null : theme);
    }),
    choice("language", t("menu.language"), LANGUAGES, language(), (chosen) => {
      setLanguage(chosen);
      keepText("imd.language", chosen);
      redraw();
    }),
  ];
}
