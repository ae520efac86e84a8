// Uploads: resumable, a few at a time, with what each has sent.
//
// A file goes up in pieces to an address of its own, which the hub gives at the start and this browser keeps. After a
// broken connection, or a page that was closed, the hub is asked how far it got, and only the rest is sent: choose the
// same file again. See https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable.

import { button, element, icon } from "./dom.js";
import { count, size } from "./format.js";
import { call, inFolder, keyHeader, makeFolder, named, pause, refusal, Refused, signedOut } from "./hub.js";
import { choose, tell } from "./dialogs.js";

const PIECE = 8 << 20; // a multiple of 256 KiB, as the protocol asks
const AT_ONCE = 3;
const TRIES = 8;
const LOOKED_UP = 20;

class Upload {
  constructor(file, parent, replaced) {
    this.file = file;
    this.parent = parent;
    this.replaced = replaced;
    this.sent = 0;
    this.state = "waiting";
    this.kept = `haversack.upload ${parent} ${file.name} ${file.size} ${file.lastModified} ${replaced ?? ""}`;
  }

  // Send the rest; `moved` is called while bytes go. Returns when the file is on the drive.
  async run(moved) {
    let session = localStorage.getItem(this.kept);
    let position = session ? null : 0;
    for (let attempt = 1; ; ) {
      try {
        if (session === null) {
          session = await this.begin();
          localStorage.setItem(this.kept, session);
          position = 0;
        }
        const answer = await this.put(session, position, moved);
        if (answer.status === 200 || answer.status === 201) break;
        if (answer.status === 404 || answer.status === 410) {
          session = null;
          throw new Refused(503, "The hub forgot the upload.");
        }
        if (answer.status !== 308) throw refusal(answer.status, answer.said);
        if (answer.stored > this.sent || position === null) attempt = 1;
        position = answer.stored;
        this.sent = position;
        moved();
      } catch (error) {
        if (this.state === "cancelled" || error.name === "AbortError") throw error;
        if (error.status === 401) signedOut();
        const final = error instanceof Refused && error.status < 500 && error.status !== 429 && !/ateLimitExceeded$/.test(error.reason);
        if (final || attempt === TRIES) throw error;
        await pause(attempt);
        attempt += 1;
        position = null;
      }
    }
    localStorage.removeItem(this.kept);
    this.sent = this.file.size;
  }

  async begin() {
    const about = { modifiedTime: new Date(this.file.lastModified || Date.now()).toISOString() };
    if (!this.replaced) Object.assign(about, { name: this.file.name, parents: [this.parent] });
    const headers = { "X-Upload-Content-Length": this.file.size, "X-Upload-Content-Type": this.file.type || "application/octet-stream" };
    const path = `/upload/drive/v3/files${this.replaced ? `/${this.replaced}` : ""}`;
    const answer = await call(this.replaced ? "PATCH" : "POST", path, { query: { uploadType: "resumable" }, body: about, headers, raw: true });
    const { pathname, search } = new URL(answer.headers.get("Location"), location.href);
    return pathname + search;
  }

  // One piece from `position`, or with null the question how far the hub has got. Only XMLHttpRequest tells progress.
  put(session, position, moved) {
    const total = this.file.size;
    const piece = position === null ? null : this.file.slice(position, Math.min(position + PIECE, total));
    const range = piece?.size ? `bytes ${position}-${position + piece.size - 1}/${total}` : `bytes */${total}`;
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      this.request = request;
      request.open("PUT", session);
      request.setRequestHeader("Content-Range", range);
      for (const [name, value] of Object.entries(keyHeader())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => {
        if (position === null) return;
        this.sent = position + event.loaded;
        moved();
      };
      request.onload = () => {
        const stored = /-(\d+)$/.exec(request.getResponseHeader("Range") ?? "");
        let said = {};
        try {
          said = JSON.parse(request.responseText);
        } catch {
          // An answer without JSON has nothing to say.
        }
        done({ status: request.status, stored: stored ? Number(stored[1]) + 1 : 0, said });
      };
      request.onerror = () => failed(new Refused(503, "The connection broke."));
      request.onabort = () => failed(new DOMException("", "AbortError"));
      request.send(piece?.size ? piece : null);
    });
  }

  async cancel() {
    this.state = "cancelled";
    this.request?.abort();
    const session = localStorage.getItem(this.kept);
    localStorage.removeItem(this.kept);
    if (session) await call("DELETE", session).catch(() => null); // 499 is the answer of success here
  }
}

export class Uploads {
  // `done(parent)` is called when files have arrived in a folder.
  constructor(panel, done) {
    this.panel = panel;
    this.done = done;
    this.all = [];
    this.running = 0;
    this.folded = false;
    addEventListener("beforeunload", (event) => this.active && event.preventDefault());
  }

  get active() {
    return this.all.some((upload) => ["waiting", "sending"].includes(upload.state));
  }

  // Add files, as `{file, folders}` with the names of the folders between `parent` and each.
  async add(items, parent) {
    const groups = new Map();
    for (const item of items) {
      const path = item.folders.join("/");
      if (!groups.has(path)) groups.set(path, { folders: item.folders, files: [] });
      groups.get(path).files.push(item.file);
    }
    const made = new Map([["", { id: parent, fresh: false }]]);
    const planned = [];
    for (const { folders, files } of groups.values()) {
      const folder = await this.folder(folders, made);
      const there = folder.fresh ? new Map() : await namesIn(folder.id, files);
      planned.push(...files.map((file) => ({ file, parent: folder.id, there: there.get(file.name) })));
    }
    const taken = planned.filter((one) => one.there);
    const answer = taken.length ? await whatAbout(taken) : "replace";
    if (answer === null) return;
    const wanted = answer === "skip" ? planned.filter((one) => !one.there) : planned;
    this.all = this.all.filter((upload) => ["waiting", "sending", "failed"].includes(upload.state));
    this.all.push(...wanted.map((one) => new Upload(one.file, one.parent, answer === "replace" ? one.there : undefined)));
    this.draw(true);
    this.start();
  }

  async folder(names, made) {
    let at = made.get("");
    for (const [depth, name] of names.entries()) {
      const path = names.slice(0, depth + 1).join("/");
      if (!made.has(path)) {
        const there = at.fresh ? undefined : (await named(at.id, name)).find((file) => file.kind === "folder");
        made.set(path, there ? { id: there.id, fresh: false } : { id: (await makeFolder(at.id, name)).id, fresh: true });
      }
      at = made.get(path);
    }
    return at;
  }

  start() {
    while (this.running < AT_ONCE) {
      const next = this.all.find((upload) => upload.state === "waiting");
      if (!next) return;
      this.running += 1;
      this.carry(next);
    }
  }

  async carry(upload) {
    upload.state = "sending";
    this.draw(true);
    try {
      await upload.run(() => this.draw());
      upload.state = "done";
    } catch (error) {
      if (upload.state !== "cancelled") Object.assign(upload, { state: "failed", why: error.message });
    }
    this.running -= 1;
    this.draw(true);
    this.start();
    const ended = this.all.every((one) => one.parent !== upload.parent || !["waiting", "sending"].includes(one.state));
    if (ended || this.all.filter((one) => one.state === "done").length % 50 === 0) this.done(upload.parent);
    if (!this.active && this.all.every((one) => one.state === "done")) this.finished();
  }

  finished() {
    tell(`${count(this.all.length, "file")} uploaded.`);
    this.all = [];
    this.draw(true);
  }

  again(upload) {
    upload.state = "waiting";
    this.draw(true);
    this.start();
  }

  drop(upload) {
    if (upload.state === "waiting" || upload.state === "sending") upload.cancel();
    this.all = this.all.filter((one) => one !== upload);
    this.draw(true);
  }

  draw(whole = false) {
    if (!whole && this.drawing) return;
    if (!whole) {
      this.drawing = true;
      requestAnimationFrame(() => {
        this.drawing = false;
        this.paint();
      });
    } else this.paint();
  }

  paint() {
    this.panel.hidden = this.all.length === 0;
    if (this.panel.hidden) return this.panel.replaceChildren();
    const sent = this.all.reduce((sum, upload) => sum + upload.sent, 0);
    const total = this.all.reduce((sum, upload) => sum + upload.file.size, 0);
    const done = this.all.filter((upload) => upload.state === "done").length;
    const failed = this.all.filter((upload) => upload.state === "failed").length;
    const words = failed && !this.active ? `${count(failed, "upload")} failed` : `${done} of ${this.all.length} uploaded · ${size(sent)} of ${size(total)}`;
    const order = { failed: 0, sending: 1, waiting: 2, done: 3 };
    const rows = [...this.all].sort((a, b) => order[a.state] - order[b.state]).slice(0, 50);
    const fold = button(this.folded ? "Show" : "Hide", null, () => ((this.folded = !this.folded), this.draw(true)), { kind: "quiet" });
    const focused = this.panel.contains(document.activeElement) ? document.activeElement.title : null;
    this.panel.replaceChildren(
      element("div", { class: "sum" }, element("strong", {}, words), fold),
      bar(total ? sent / total : done / this.all.length),
      ...(this.folded ? [] : [element("ul", {}, ...rows.map((upload) => this.row(upload)))]),
    );
    if (focused) [...this.panel.querySelectorAll("button")].find((one) => one.title === focused)?.focus();
    return undefined;
  }

  row(upload) {
    const { file, state } = upload;
    const words = { waiting: "waiting", sending: `${size(upload.sent)} of ${size(file.size)}`, done: size(file.size), failed: upload.why }[state];
    const act = [];
    const wordless = { kind: "quiet", wordless: true };
    if (state === "failed") act.push(button(`Try ${file.name} again`, "again", () => this.again(upload), wordless));
    if (state !== "done") act.push(button(`Cancel ${file.name}`, "close", () => this.drop(upload), wordless));
    return element(
      "li",
      { class: state },
      element("span", { class: "name", title: file.name }, file.name),
      element("span", { class: "small" }, words),
      ...(state === "done" ? [icon("check")] : act),
      state === "sending" ? bar(file.size ? upload.sent / file.size : 1) : null,
    );
  }
}

function bar(share) {
  const inside = element("i");
  inside.style.width = `${Math.round(share * 100)}%`;
  const now = { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": Math.round(share * 100) };
  return element("div", { class: "bar", "aria-label": "Sent", ...now }, inside);
}

// Which of the files' names a folder has, with the ids of those files.
async function namesIn(parent, files) {
  const there = new Map();
  const note = (found) => found.filter((one) => one.kind !== "folder").forEach((one) => there.set(one.name, one.id));
  if (files.length <= LOOKED_UP) for (const one of files) note(await named(parent, one.name));
  else for await (const page of inFolder(parent)) note(page);
  return there;
}

function whatAbout(taken) {
  const what = taken.length === 1 ? `“${taken[0].file.name}” is` : `${count(taken.length, "file")} of these names are`;
  return choose("Already there", `${what} in this folder.`, [
    ["skip", "Skip"],
    ["both", "Keep both"],
    ["replace", "Replace", "primary"],
  ]);
}

// What was dropped, files and folders with all that is in them. The entries have to be taken before anything is awaited.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  const take = async (entry, folders) => {
    if (entry.isFile) {
      found.push({ file: await new Promise((done, failed) => entry.file(done, failed)), folders });
      return;
    }
    const reader = entry.createReader();
    const read = () => new Promise((done, failed) => reader.readEntries(done, failed));
    for (let part = await read(); part.length; part = await read()) {
      for (const inside of part) await take(inside, [...folders, entry.name]);
    }
  };
  for (const entry of entries) await take(entry, []);
  return found;
}
