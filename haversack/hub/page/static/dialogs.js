// Questions and short messages.

import { button, byId, element } from "./dom.js";

// The value of the button that was pressed; null when the question was left.
function ask(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((answered) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      answered(dialog.returnValue || null);
    });
  });
}

function asking(title, body, answers) {
  const buttons = answers.map(([value, label, kind]) => element("button", { value, class: kind ?? "" }, label));
  const leave = element("button", { value: "", formnovalidate: true }, "Cancel");
  const form = element("form", { method: "dialog" }, element("h2", {}, title), body, element("div", { class: "answers" }, leave, ...buttons));
  return element("dialog", { class: "card" }, form);
}

export function confirm(title, text, label) {
  return ask(asking(title, element("p", {}, text), [["yes", label, "danger"]]));
}

export function choose(title, text, answers) {
  return ask(asking(title, element("p", {}, text), answers));
}

// A name, trimmed; null when it was left. Of a file's name the part before the suffix is selected.
export async function askName(title, label, before = "") {
  const input = element("input", { "aria-label": "Name", required: true, maxlength: "250", value: before, spellcheck: "false", autocomplete: "off" });
  const dialog = asking(title, input, [["yes", label, "primary"]]);
  const cancel = dialog.querySelector(".answers button");
  cancel.type = "button";
  cancel.addEventListener("click", () => dialog.close(""));
  const answer = ask(dialog);
  const dot = before.lastIndexOf(".");
  input.setSelectionRange(0, dot > 0 ? dot : before.length);
  input.focus();
  return (await answer) === "yes" && input.value.trim() ? input.value.trim() : null;
}

export function tell(text, { undo, failed = false } = {}) {
  const toast = element("div", { class: failed ? "toast failed" : "toast" }, element("span", {}, text));
  const leave = () => toast.remove();
  if (undo) toast.append(button("Undo", null, () => (leave(), undo())));
  toast.append(button("Close", "close", leave, { kind: "quiet", wordless: true }));
  byId("toasts").replaceChildren(...[...byId("toasts").children].slice(-2), toast);
  setTimeout(leave, failed ? 12_000 : 7_000);
}

export const tellFailure = (error) => {
  if (error.name !== "AbortError" && error.status !== 401) tell(error.message, { failed: true });
};

export function help(keys) {
  const rows = keys.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]);
  return ask(asking("Keys", element("dl", { class: "keys" }, ...rows), []));
}
