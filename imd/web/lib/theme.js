// Sets the chosen look and language before anything is drawn. Not a module, as modules run later.
"use strict";
{
  const get = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const root = document.documentElement;
  const theme = get("imd.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const wanted = get("imd.language") ?? navigator.language;
  root.lang = /^zh\b/i.test(wanted) ? "zh" : "en";
}
