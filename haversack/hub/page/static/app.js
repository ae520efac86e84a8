// The page: where it is, what can be done there, and what the keys do.

import { askName, confirm, help, tell, tellFailure } from "./dialogs.js";
import { button, byId, element } from "./dom.js";
import { count, size } from "./format.js";
import * as hub from "./hub.js";
import { List } from "./list.js";
import { Listing } from "./listing.js";
import { Uploads, dropped } from "./uploads.js";
import { Viewer } from "./viewer.js";

const STALE = 20_000;
const KEYS = [
  ["↑ ↓ ← →", "go through the files"],
  ["Enter", "open"],
  ["Space", "select"],
  ["Ctrl A", "select all"],
  ["Esc", "clear selection and filter"],
  ["/", "filter by name"],
  ["Backspace", "the folder above"],
  ["U", "upload"],
  ["N", "new folder"],
  ["F2", "rename"],
  ["Delete", "move to the trash"],
  ["V", "rows or tiles"],
];

let place = { kind: "none" };
let trail = [];
let trailed = Promise.resolve(); // done when `trail` leads to `place`
let loadedAt = 0;

const listing = new Listing(() => shown());
const list = new List(byId("list"), { open, chosen: () => tools(), sort });
const uploads = new Uploads(byId("uploads"), (parent) => {
  if (place.kind === "folder" && (parent === place.id || parent === trail.at(-1)?.id)) load(true);
  quota();
});
const viewer = new Viewer(() => listing.shown, (file) => download([file]));

// Where the page is

function wanted() {
  const [, kind, id] = location.hash.split("/");
  if (kind === "trash" || kind === "data") return { kind };
  return { kind: "folder", id: kind === "folder" && id ? decodeURIComponent(id) : "root" };
}

const sameAs = (other) => place.kind === other.kind && place.id === other.id;

async function go() {
  const next = wanted();
  if (!sameAs(next)) {
    place = next;
    list.selected.clear();
    list.toTop();
    byId("filter").value = "";
    listing.filter = "";
    listing.clear();
    trail = [];
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.place === place.kind) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("list").hidden = place.kind === "data";
  byId("datasets").hidden = place.kind !== "data";
  path();
  tools();
  await Promise.all([load(), quota()]);
}

async function load(again = false) {
  const at = place;
  loadedAt = Date.now();
  try {
    if (at.kind === "data") return datasets(await hub.datasets());
    const source = at.kind === "trash" ? hub.inTrash : (signal) => hub.inFolder(at.id, signal);
    if (at.kind === "folder" && !again) trailed = trailTo(at).catch(tellFailure);
    await listing.load(source, again);
    if (place === at) shown();
  } catch (error) {
    if (place !== at || error.status === 401) return undefined;
    if (error.status === 404 && at.kind === "folder") return missing();
    byId("status").textContent = error.message;
    tellFailure(error);
  }
  return undefined;
}

function missing() {
  tell("This folder is gone.", { failed: true });
  location.hash = "#/";
}

// The folders from My Drive down to a place, from below.
async function trailTo(at) {
  const found = [];
  for (let id = at.id; id && found.length < 120; id = found[0].parent) found.unshift(await hub.file(id));
  if (!sameAs(at)) return;
  trail = found;
  path();
}

// Up to the folder above, which is known only when the trail is: a key is quicker than the hub.
async function up() {
  const at = place;
  await trailed;
  if (place === at && trail.length > 1) location.hash = `#/folder/${trail.at(-2).id}`;
}

function path() {
  const titles = { trash: "Trash", data: "Data sets", folder: "My Drive" };
  const steps = trail.length > 1 && place.kind === "folder" ? trail : [{ name: titles[place.kind], id: "root" }];
  const items = steps.map((step, depth) => {
    const last = depth === steps.length - 1;
    const link = element("a", { href: depth ? `#/folder/${step.id}` : last ? location.hash || "#/" : "#/", "data-folder": step.id, "aria-current": last && "page", title: step.name }, step.name);
    return element("li", {}, link);
  });
  byId("path").replaceChildren(...items);
  document.title = `${steps.at(-1).name} · haversack`;
}

function shown() {
  list.show(listing.shown, listing.order, place.kind === "trash" ? "Deleted" : "Modified");
  tools();
  if (place.kind === "data") return;
  const loading = !listing.complete;
  const files = listing.shown.length;
  let words = count(files, "item");
  if (listing.filter) words = `${files.toLocaleString()} of ${count(listing.files.length, "item")}`;
  if (loading) words = files ? `${words} and counting …` : "…";
  else if (!files && listing.filter) words = `Nothing here is called like “${listing.filter}”.`;
  else if (!files) words = place.kind === "trash" ? "The trash is empty." : "This folder is empty. Drop files here to upload them.";
  byId("status").textContent = words;
  byId("status").classList.toggle("empty", !files && !loading);
}

function sort(by) {
  const { order } = listing;
  list.toTop();
  listing.sortBy(by, order.by === by ? !order.down : by !== "name");
}

async function quota() {
  try {
    const { usage, usageInDriveTrash, limit } = (await hub.about()).storageQuota;
    const share = limit ? Number(usage) / Number(limit) : 0;
    const inTrash = Number(usageInDriveTrash) ? `, ${size(Number(usageInDriveTrash))} in the trash` : "";
    const bar = byId("quota").querySelector(".bar");
    bar.firstElementChild.style.width = `${Math.min(100, share * 100)}%`;
    bar.setAttribute("aria-valuenow", Math.round(share * 100));
    bar.classList.toggle("full", share > 0.9);
    byId("quota").querySelector("span").textContent = `${size(Number(usage))}${limit ? ` of ${size(Number(limit))}` : ""} used${inTrash}`;
    byId("quota").hidden = false;
  } catch (error) {
    tellFailure(error);
  }
}

function datasets(sets) {
  const card = (set) => {
    const command = `haversack data get kaggle:${set.ref}`;
    const copy = () => navigator.clipboard.writeText(command).then(() => tell("Copied."), tellFailure);
    return element(
      "article",
      { class: "card" },
      element("h2", {}, set.title),
      element("p", { class: "small" }, `${set.ref} · version ${set.version} · ${size(set.size)} · ${set.private ? "private" : "public"}`),
      element("div", { class: "command" }, element("code", {}, command), button("Copy", "copy", copy, { kind: "quiet", wordless: true })),
      button("Download", "download", () => fetchTo(set.download)),
    );
  };
  byId("datasets").replaceChildren(...sets.map(card));
  byId("status").textContent = sets.length ? count(sets.length, "data set") : "No data sets yet. Publish one: haversack data put FOLDER kaggle:me/name";
  byId("status").classList.toggle("empty", !sets.length);
}

// What can be done

function tools() {
  const chosen = list.chosen;
  byId("tools").classList.toggle("chosen", chosen.length > 0);
  byId("tools").replaceChildren(...(chosen.length ? toolsFor(chosen) : toolsOf(place)));
}

function toolsFor(chosen) {
  const clear = button("Clear selection", "close", () => list.selectAll(false), { kind: "quiet", wordless: true });
  const total = chosen.reduce((sum, file) => sum + file.size, 0);
  const words = element("span", { class: "sum" }, `${chosen.length.toLocaleString()} selected${total ? ` · ${size(total)}` : ""}`);
  if (place.kind === "trash") {
    return [clear, words, button("Restore", "restore", () => restore(chosen)), button("Delete for good", "trash", () => remove(chosen), { kind: "danger" })];
  }
  const parts = [clear, words];
  if (chosen.every((file) => file.kind !== "folder")) parts.push(button("Download", "download", () => download(chosen)));
  if (chosen.length === 1) parts.push(button("Rename", "pencil", () => rename(chosen[0])));
  parts.push(button("Move to trash", "trash", () => trash(chosen)));
  return parts;
}

function toolsOf({ kind }) {
  const look = list.tiles ? button("Rows", "rows", turn, { kind: "quiet", wordless: true }) : button("Tiles", "tiles", turn, { kind: "quiet", wordless: true });
  if (kind === "trash") return [button("Empty trash", "trash", emptyTrash, { kind: listing.files.length ? "danger" : "danger hidden" }), look];
  if (kind !== "folder") return [];
  return [button("New folder", "folder-add", newFolder), button("Upload", "upload", () => byId("files").click(), { kind: "primary" }), look];
}

function turn() {
  list.setTiles(!list.tiles);
  tools();
}

function open(file) {
  if (place.kind === "trash") tell("Restore it first to open it.");
  else if (file.kind === "folder") location.hash = `#/folder/${file.id}`;
  else if (file.kind === "shortcut") follow(file);
  else if (Viewer.shows(file)) viewer.show(file);
  else download([file]);
}

async function follow(shortcut) {
  try {
    open(await hub.file(shortcut.target?.targetId ?? ""));
  } catch {
    tell("What this shortcut leads to is gone.", { failed: true });
  }
}

function fetchTo(address) {
  const link = element("a", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

async function download(files) {
  try {
    for (const file of files) {
      fetchTo((await hub.links(file)).download);
      // Browsers pass over downloads that are begun in the same moment.
      if (files.length > 1) await new Promise((done) => setTimeout(done, 300));
    }
  } catch (error) {
    tellFailure(error);
  }
}

async function newFolder() {
  const name = await askName("New folder", "Make", "");
  if (!name) return;
  try {
    listing.put(await hub.makeFolder(place.id, name));
  } catch (error) {
    tellFailure(error);
  }
}

async function rename(file) {
  const name = await askName("Rename", "Rename", file.name);
  if (!name || name === file.name) return;
  try {
    listing.put(await hub.rename(file.id, name));
  } catch (error) {
    tellFailure(error);
  }
  list.focus();
}

// Do `work` to every file of `files`, taking each out of the list; returns those that it was done to.
async function takeOut(files, work) {
  const done = [];
  try {
    await hub.each(files, async (file) => {
      await work(file);
      done.push(file);
    });
  } catch (error) {
    tellFailure(error);
  }
  list.selected.clear();
  listing.drop(new Set(done.map((file) => file.id)));
  quota();
  return done;
}

const called = (files, what) => (files.length === 1 ? `“${files[0].name}” ${what}` : `${count(files.length, "item")} ${what}`);

async function trash(files) {
  const done = await takeOut(files, (file) => hub.trash(file.id));
  const undo = () => hub.each(done, (file) => hub.restore(file.id)).then(() => load(true), tellFailure);
  if (done.length) tell(called(done, "moved to the trash."), { undo });
  list.focus();
}

async function restore(files) {
  const done = await takeOut(files, (file) => hub.restore(file.id));
  if (done.length) tell(called(done, "restored."));
}

async function remove(files) {
  if (!(await confirm("Delete for good?", `${called(files, "cannot be brought back after this.")}`, "Delete"))) return;
  await takeOut(files, (file) => hub.remove(file.id));
}

async function emptyTrash() {
  if (!(await confirm("Empty the trash?", "What is in it cannot be brought back after this.", "Empty"))) return;
  try {
    await hub.emptyTrash();
  } catch (error) {
    tellFailure(error);
  }
  await Promise.all([load(true), quota()]);
}

async function moveTo(folder, files) {
  const done = await takeOut(files.filter((file) => file.id !== folder && file.parent !== folder), (file) => hub.move(file, folder));
  if (done.length) tell(called(done, "moved."));
}

// Keys, pointer, window

function keys(event) {
  const typing = event.target.matches("input:not([type=checkbox]), textarea");
  if (document.querySelector("dialog[open]") || byId("page").hidden) return;
  if (event.key === "Escape") {
    if (byId("filter").value) (byId("filter").value = ""), listing.show("");
    list.selectAll(false);
    list.focus();
    return;
  }
  if (typing) {
    if (event.key === "ArrowDown" || event.key === "Enter") list.focus(), event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = list.chosen.length ? list.chosen : [listing.shown[list.cursor]].filter(Boolean);
  const inFolder = place.kind === "folder";
  const does = {
    "/": () => byId("filter").focus(),
    "?": () => help(KEYS),
    u: () => inFolder && byId("files").click(),
    n: () => inFolder && newFolder(),
    v: turn,
    F2: () => inFolder && at.length === 1 && rename(at[0]),
    Delete: () => at.length && (inFolder ? trash(at) : place.kind === "trash" && remove(at)),
    Backspace: () => inFolder && up(),
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

const DRAGGED = "application/x-haversack";

function pointer() {
  const page = byId("page");
  const fromOutside = (event) => event.dataTransfer.types.includes("Files") && place.kind === "folder";
  const folderAt = (event) => event.target.closest?.(".file[data-kind=folder]")?.dataset.id ?? event.target.closest?.("#path a")?.dataset.folder;
  const mark = (event) => {
    for (const one of document.querySelectorAll(".target")) one.classList.remove("target");
    if (!event) return;
    const at = event.target.closest?.(".file[data-kind=folder], #path a");
    (at ?? document.querySelector(".place")).classList.toggle("target", Boolean(at) || fromOutside(event));
  };
  page.addEventListener("dragstart", (event) => {
    const id = event.target.closest?.(".file")?.dataset.id;
    if (!id || place.kind !== "folder") return;
    if (!list.selected.has(id)) list.selected = new Set([id]);
    event.dataTransfer.setData(DRAGGED, [...list.selected].join(" "));
    event.dataTransfer.effectAllowed = "move";
    list.selectionChanged();
  });
  page.addEventListener("dragover", (event) => {
    const inside = event.dataTransfer.types.includes(DRAGGED) && folderAt(event);
    mark(event);
    if (inside || fromOutside(event)) event.preventDefault();
  });
  page.addEventListener("dragleave", (event) => !page.contains(event.relatedTarget) && mark(null));
  page.addEventListener("drop", async (event) => {
    mark(null);
    event.preventDefault();
    const folder = folderAt(event);
    if (fromOutside(event)) send(dropped(event.dataTransfer), folder ?? place.id);
    else if (folder && event.dataTransfer.types.includes(DRAGGED)) {
      const ids = new Set(event.dataTransfer.getData(DRAGGED).split(" "));
      await moveTo(folder, listing.files.filter((file) => ids.has(file.id)));
    }
  });
}

async function send(items, parent) {
  try {
    await uploads.add(await items, parent);
  } catch (error) {
    tellFailure(error);
  }
}

function theme(next) {
  if (next) localStorage.setItem("haversack.theme", next);
  const chosen = localStorage.getItem("haversack.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}

function wire() {
  addEventListener("hashchange", () => byId("page").hidden || go());
  addEventListener("keydown", keys);
  addEventListener("signed-out", () => askForToken());
  document.addEventListener("visibilitychange", () => {
    const stale = !document.hidden && !byId("page").hidden && !listing.loading && Date.now() - loadedAt > STALE;
    if (stale) load(true), quota();
  });
  byId("filter").addEventListener("input", (event) => {
    list.toTop();
    listing.show(event.target.value);
  });
  byId("files").addEventListener("change", (event) => {
    const items = [...event.target.files].map((file) => ({ file, folders: [] }));
    event.target.value = "";
    send(items, place.id);
  });
  byId("sign-out").addEventListener("click", hub.signOut);
  byId("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    theme(dark === "dark" ? "light" : "dark");
  });
  byId("sign-in-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await signIn({ token: byId("token").value.trim() });
  });
  pointer();
}

// Signing in

async function signIn(proof) {
  byId("sign-in-error").textContent = "";
  try {
    await hub.signIn(proof);
  } catch (error) {
    askForToken(error.message);
    return;
  }
  byId("token").value = "";
  start();
}

function askForToken(why = "") {
  listing.clear();
  place = { kind: "none" };
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  byId("page").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-error").textContent = why;
  byId("token").focus();
}

function start() {
  byId("sign-in").hidden = true;
  byId("page").hidden = false;
  go();
}

theme();
wire();
const code = /^#code=([\w-]+)$/.exec(location.hash)?.[1];
if (code) {
  // The code is good for once; it stays neither in the address nor in the history.
  history.replaceState(null, "", location.pathname);
  signIn({ code });
} else if (hub.key()) start();
else askForToken();
