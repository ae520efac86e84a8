// The list on the screen, as rows or as tiles. Only what is in sight is in the document, so that a folder of 100,000
// files scrolls like one of ten.

import { element, icon } from "./dom.js";
import { size, time, wholeTime } from "./format.js";
import { links } from "./hub.js";

const NARROW = matchMedia("(max-width: 640px)");
// Browsers cut elements off that are much higher; beyond it, scrolling goes by proportion.
const TALLEST = 12_000_000;
const OVERSCAN = 6;
const SETTLED = 80;

export class List {
  // What `does` is told: open(file), chosen() when the selection changed, sort(by).
  constructor(place, does) {
    this.does = does;
    this.files = [];
    this.selected = new Set();
    this.cursor = 0;
    this.tiles = localStorage.getItem("haversack.tiles") === "yes";
    this.nodes = new Map();
    this.window = element("div", { class: "window", role: "rowgroup" });
    this.spacer = element("div", { class: "spacer", role: "presentation" }, this.window);
    this.head = this.heading();
    this.scroller = element("div", { class: "scroller", role: "presentation" }, this.spacer);
    this.frame = element("div", { class: "files", role: "grid", "aria-multiselectable": "true", "aria-label": "Files" }, this.head, this.scroller);
    place.append(this.frame);
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw(true)).observe(this.scroller);
    this.frame.addEventListener("keydown", (event) => this.key(event));
    this.window.addEventListener("click", (event) => this.click(event));
    this.window.addEventListener("dblclick", (event) => this.doubleClick(event));
  }

  heading() {
    const column = (by, label) => element("button", { type: "button", class: by, "data-by": by, onclick: () => this.does.sort(by) }, label);
    const all = element("input", { type: "checkbox", "aria-label": "Select all", onchange: () => this.selectAll(all.checked) });
    this.all = all;
    const cell = (child) => element("div", { role: "columnheader" }, child);
    return element("div", { class: "head", role: "row" }, cell(all), cell(column("name", "Name")), cell(column("modified", "Modified")), cell(column("size", "Size")));
  }

  show(files, order, dated) {
    const at = this.files[this.cursor]?.id;
    this.files = files;
    const present = new Set(files.map((file) => file.id));
    for (const id of this.selected) if (!present.has(id)) this.selected.delete(id);
    const again = files.findIndex((file) => file.id === at);
    this.cursor = Math.max(0, Math.min(again === -1 ? this.cursor : again, files.length - 1));
    for (const one of this.head.querySelectorAll("button")) {
      const sorted = one.dataset.by === order.by;
      one.parentElement.setAttribute("aria-sort", sorted ? (order.down ? "descending" : "ascending") : "none");
      if (one.dataset.by === "modified") one.textContent = dated;
    }
    this.draw(true);
  }

  setTiles(tiles) {
    this.tiles = tiles;
    localStorage.setItem("haversack.tiles", tiles ? "yes" : "no");
    this.nodes.clear();
    this.draw(true);
    this.reveal(this.cursor);
  }

  toTop() {
    this.cursor = 0;
    this.scroller.scrollTop = 0;
  }

  get chosen() {
    return this.files.filter((file) => this.selected.has(file.id));
  }

  // How many stand side by side, and how high each is.
  measure() {
    if (!this.tiles) return { across: 1, height: NARROW.matches ? 60 : 46 };
    const across = Math.max(2, Math.floor(this.scroller.clientWidth / (NARROW.matches ? 150 : 190)));
    return { across, height: Math.round(this.scroller.clientWidth / across) };
  }

  draw(all = false) {
    const { across, height } = this.measure();
    const lines = Math.ceil(this.files.length / across);
    const whole = lines * height;
    const room = this.scroller.clientHeight;
    const tall = Math.min(whole, TALLEST);
    const scale = whole > tall ? (whole - room) / (tall - room) : 1;
    const top = this.scroller.scrollTop * scale;
    const first = Math.max(0, Math.floor(top / height) - OVERSCAN) * across;
    const last = Math.min(this.files.length, Math.ceil((top + room) / height + OVERSCAN) * across);
    if (all) {
      this.frame.classList.toggle("tiles", this.tiles);
      this.frame.setAttribute("aria-rowcount", this.files.length);
      this.spacer.style.height = `${tall}px`;
      this.window.style.setProperty("--across", across);
      this.window.style.setProperty("--height", `${height}px`);
      this.all.checked = this.files.length > 0 && this.selected.size === this.files.length;
      this.all.indeterminate = this.selected.size > 0 && !this.all.checked;
    } else if (first === this.first && last === this.last && scale === 1) return;
    [this.first, this.last, this.across, this.height, this.scale] = [first, last, across, height, scale];
    this.window.style.transform = `translateY(${(first / across) * height - top + this.scroller.scrollTop}px)`;
    const nodes = new Map();
    for (let index = first; index < last; index += 1) {
      const file = this.files[index];
      const held = this.nodes.get(file.id);
      const node = held?.file === file ? held.node : this.made(file);
      node.dataset.index = index;
      node.setAttribute("aria-rowindex", index + 1);
      node.tabIndex = index === this.cursor ? 0 : -1;
      const selected = this.selected.has(file.id);
      node.setAttribute("aria-selected", selected);
      node.querySelector("input").checked = selected;
      nodes.set(file.id, { file, node });
    }
    const focused = this.window.contains(document.activeElement) ? document.activeElement.closest(".file")?.dataset.id : null;
    this.nodes = nodes;
    const wanted = [...nodes.values()].map((held) => held.node);
    if (wanted.length !== this.window.children.length || wanted.some((node, at) => node !== this.window.children[at])) {
      this.window.replaceChildren(...wanted);
      if (focused) nodes.get(focused)?.node.focus({ preventScroll: true });
    }
  }

  made(file) {
    const box = element("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${file.name}` });
    const face = element("span", { class: "face" }, icon(file.kind === "document" ? "text" : file.kind));
    const bytes = file.kind === "folder" ? "" : size(file.size);
    const name = element("span", { class: "name", title: file.name }, file.name);
    const small = element("span", { class: "small" }, [bytes, time(file.modified)].filter(Boolean).join(" · "));
    const cell = (kind, ...children) => element("div", { role: "gridcell", class: kind }, ...children);
    if (file.kind === "picture" && file.size) this.picture(file, face);
    return element(
      "div",
      { class: "file", role: "row", "data-id": file.id, "data-kind": file.kind, draggable: "true" },
      cell("box", box),
      cell("what", element("button", { type: "button", class: "open", tabindex: "-1" }, face, element("span", { class: "words" }, name, small))),
      cell("modified", element("span", { title: wholeTime(file.modified) }, time(file.modified))),
      cell("size", bytes),
    );
  }

  async picture(file, face) {
    // What is only scrolled past is not worth a thumbnail.
    await new Promise((done) => setTimeout(done, SETTLED));
    if (!face.isConnected) return;
    try {
      const { thumbnail } = await links(file);
      if (!thumbnail) return;
      const image = element("img", { src: thumbnail, alt: "", decoding: "async", draggable: "false" });
      await image.decode();
      face.replaceChildren(image);
    } catch {
      // No picture after all: the icon stays.
    }
  }

  click(event) {
    const node = event.target.closest(".file");
    if (!node) return;
    const index = Number(node.dataset.index);
    const file = this.files[index];
    if (event.target.closest(".open") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      this.cursor = index;
      this.does.open(file);
      return;
    }
    if (event.shiftKey) {
      const [from, to] = [this.cursor, index].sort((a, b) => a - b);
      for (const one of this.files.slice(from, to + 1)) this.selected.add(one.id);
    } else if (!this.selected.delete(file.id)) this.selected.add(file.id);
    this.cursor = index;
    this.selectionChanged();
    this.focus();
  }

  doubleClick(event) {
    const node = event.target.closest(".file");
    if (node && !event.target.closest(".open, .box")) this.does.open(this.files[Number(node.dataset.index)]);
  }

  selectAll(on) {
    this.selected = new Set(on ? this.files.map((file) => file.id) : []);
    this.selectionChanged();
  }

  selectionChanged() {
    this.draw(true);
    this.does.chosen();
  }

  key(event) {
    if (event.target.closest(".head") || event.altKey) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.height) - 1) * this.across;
    const steps = { ArrowDown: this.across, ArrowUp: -this.across, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (this.tiles) Object.assign(steps, { ArrowRight: 1, ArrowLeft: -1 });
    const file = this.files[this.cursor];
    if (event.key in steps) {
      const to = Math.max(0, Math.min(this.files.length - 1, this.cursor + steps[event.key]));
      if (event.shiftKey) {
        const [from, until] = [this.cursor, to].sort((a, b) => a - b);
        for (const one of this.files.slice(from, until + 1)) this.selected.add(one.id);
        this.does.chosen();
      }
      this.cursor = to;
      this.reveal(to);
      this.draw(true);
      this.focus();
    } else if (event.key === "Enter" && file) this.does.open(file);
    else if (event.key === " " && file) {
      if (!this.selected.delete(file.id)) this.selected.add(file.id);
      this.selectionChanged();
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.selectAll(true);
    else return;
    event.preventDefault();
  }

  reveal(index) {
    if (!this.height) return;
    const top = Math.floor(index / this.across) * this.height;
    const at = this.scroller.scrollTop * this.scale;
    if (top < at) this.scroller.scrollTop = top / this.scale;
    else if (top + this.height > at + this.scroller.clientHeight) {
      this.scroller.scrollTop = (top + this.height - this.scroller.clientHeight) / this.scale;
    }
  }

  focus() {
    this.nodes.get(this.files[this.cursor]?.id)?.node.focus({ preventScroll: true });
  }
}
