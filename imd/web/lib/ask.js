// A question that is answered by yes or no, before something that cannot be undone.
import { h } from "./dom.js";
import { t } from "./text.js";

/** Resolves to whether `yes` was chosen. */
export function ask(words, yes) {
  return new Promise((done) => {
    const dialog = h(
      "dialog",
      {
        class: "dialog ask",
        "aria-label": yes,
        onclose: () => {
          dialog.remove();
          done(dialog.returnValue === "yes");
        },
      },
      h(
        "form",
        { method: "dialog" },
        h("p", {}, words),
        h(
          "div",
          { class: "dialog-buttons" },
          h("button", { class: "button secondary", value: "no" }, t("cancel")),
          h("button", { class: "button danger", value: "yes" }, yes),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
