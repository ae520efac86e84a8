// Pictures and texts at full size. A text is shown as text, whatever is in it.

import { button, element } from "./dom.js";
import { size } from "./format.js";
import { beginning, exported, links } from "./hub.js";

const BEGINNING = 200_000;

export class Viewer {
  // `download(file)` is the page's; `files()` are those that the arrows lead through.
  constructor(files, download) {
    this.files = files;
    this.download = download;
    this.stage = element("div", { class: "stage" });
    this.title = element("h2");
    const wordless = { kind: "quiet", wordless: true };
    this.dialog = element(
      "dialog",
      { class: "viewer", "aria-label": "Viewer" },
      element(
        "div",
        { class: "bar" },
        this.title,
        button("Download", "download", () => this.download(this.file), wordless),
        button("Close", "close", () => this.dialog.close(), wordless),
      ),
      this.stage,
      button("Previous", "left", () => this.step(-1), { kind: "quiet step left", wordless: true }),
      button("Next", "right", () => this.step(1), { kind: "quiet step right", wordless: true }),
    );
    document.body.append(this.dialog);
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("click", (event) => event.target === this.stage && this.dialog.close());
    this.swipes();
  }

  static shows(file) {
    return ["picture", "text", "document"].includes(file.kind) || (file.kind === "notebook" && file.size < BEGINNING);
  }

  async show(file) {
    this.file = file;
    this.title.textContent = file.name;
    this.stage.replaceChildren(element("p", { class: "wait" }, "…"));
    if (!this.dialog.open) this.dialog.showModal();
    try {
      const content = file.kind === "picture" ? await this.picture(file) : await this.text(file);
      if (this.file === file) this.stage.replaceChildren(content);
    } catch {
      if (this.file === file) this.stage.replaceChildren(element("p", { class: "wait" }, "This file cannot be shown; download it."));
    }
  }

  async picture(file) {
    const image = element("img", { src: (await links(file)).view, alt: file.name });
    await image.decode();
    for (const near of [this.beside(1), this.beside(-1)]) {
      if (near?.kind === "picture") links(near).then(({ view }) => (new Image().src = view), () => null);
    }
    return image;
  }

  async text(file) {
    const text = file.kind === "document" ? await exported(file) : file.size ? await beginning(file.id, BEGINNING) : "";
    const rest = file.size > BEGINNING ? element("p", { class: "wait" }, `The first ${size(BEGINNING)} of ${size(file.size)}.`) : null;
    return element("div", { class: "text", tabindex: "0" }, element("pre", {}, text), rest);
  }

  beside(by) {
    const files = this.files().filter(Viewer.shows);
    return files[files.findIndex((one) => one.id === this.file.id) + by];
  }

  step(by) {
    const next = this.beside(by);
    if (next) this.show(next);
  }

  key(event) {
    if (event.key === "ArrowRight") this.step(1);
    else if (event.key === "ArrowLeft") this.step(-1);
    else return;
    event.preventDefault();
  }

  swipes() {
    let from = null;
    this.stage.addEventListener("touchstart", (event) => (from = event.touches.length === 1 ? event.touches[0].clientX : null), { passive: true });
    this.stage.addEventListener("touchend", (event) => {
      const by = from === null ? 0 : event.changedTouches[0].clientX - from;
      if (Math.abs(by) > 60 && this.file.kind === "picture") this.step(by < 0 ? 1 : -1);
    });
  }
}
