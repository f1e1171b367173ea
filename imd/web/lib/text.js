// The words that people see, by key, in the language of the page.
import { ZH } from "./chinese.js";
import { EN } from "./english.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const WORDS = { en: EN, zh: ZH };

/** The language for a tag such as zh-CN. */
export function languageOf(tag) {
  return /^zh\b/i.test(tag ?? "") ? "zh" : "en";
}

/** Words by key, with {values} filled in. */
export function translator(language) {
  const words = WORDS[language];
  return (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

let current = languageOf(document.documentElement.lang);

/** The page's language; the widget has its own. */
export const language = () => current;

export function setLanguage(chosen) {
  current = chosen;
  document.documentElement.lang = chosen;
}

export const t = (key, values) => translator(current)(key, values);
