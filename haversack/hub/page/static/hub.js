// Calls to the hub: Drive v3, and the few that the page has of its own.
//
// The cookie that signs in is out of reach for scripts. The key beside it is kept in this origin's storage and sent as a
// header with every call; without both the hub answers 401, and the page shows its sign-in.

import { kindOf } from "./format.js";

const KEY = "haversack.key";
const FIELDS = "id,name,mimeType,size,modifiedTime,parents,trashedTime,explicitlyTrashed,shortcutDetails";
const TRIES = 5;

export class Refused extends Error {
  constructor(status, message, reason = "") {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

export const key = () => localStorage.getItem(KEY);
export const keyHeader = () => ({ "X-Haversack-Key": key() ?? "" });

export function signedOut() {
  localStorage.removeItem(KEY);
  dispatchEvent(new Event("signed-out"));
}

export async function signIn(proof) {
  const answer = await fetch("/page/session", { method: "POST", body: JSON.stringify(proof) });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw refusal(answer.status, said);
  localStorage.setItem(KEY, said.key);
}

export async function signOut() {
  await fetch("/page/session", { method: "DELETE", headers: keyHeader() }).catch(() => null);
  signedOut();
}

// A pause before another try: anywhere up to a limit that doubles, so that many do not come back at once.
export const pause = (attempt) => new Promise((done) => setTimeout(done, Math.random() * Math.min(8000, 250 * 2 ** attempt)));

export function refusal(status, said) {
  const reason = said?.error?.errors?.[0]?.reason ?? "";
  return new Refused(status, said?.error?.message ?? `The hub answered ${status}.`, reason);
}

const mayPass = (error) => !(error instanceof Refused) || error.status === 429 || error.status >= 500 || /ateLimitExceeded$/.test(error.reason);

export async function call(method, path, { query = {}, body, headers = {}, signal, raw = false } = {}) {
  const parameters = new URLSearchParams(query).toString();
  const target = parameters ? `${path}?${parameters}` : path;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(method, target, body, headers, signal, raw);
    } catch (error) {
      // A POST that was cut may have been carried out.
      const repeatable = method !== "POST" || error.status === 429 || error.status === 403;
      if (error.name === "AbortError" || attempt === TRIES || !repeatable || !mayPass(error)) throw error;
      await pause(attempt);
    }
  }
}

async function once(method, target, body, headers, signal, raw) {
  const sent = { ...keyHeader(), ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(target, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(503, "The hub does not answer. Is it still running?");
  }
  if (answer.ok) return raw ? answer : answer.status === 204 ? null : answer.json();
  if (answer.status === 401) signedOut();
  throw refusal(answer.status, await answer.json().catch(() => ({})));
}

// Files as the page keeps them: times and sizes as numbers.
function entry(file) {
  return {
    id: file.id,
    name: file.name,
    folded: file.name.toLowerCase(),
    mime: file.mimeType,
    kind: kindOf(file.mimeType, file.name),
    size: Number(file.size ?? 0),
    modified: Date.parse(file.trashedTime ?? file.modifiedTime),
    parent: file.parents?.[0] ?? null,
    trashed: Boolean(file.explicitlyTrashed),
    target: file.shortcutDetails ?? null,
  };
}

const quoted = (text) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

// The pages of a search, as they come.
async function* search(q, signal) {
  const query = { q, pageSize: 1000, fields: `nextPageToken,files(${FIELDS})` };
  do {
    const page = await call("GET", "/drive/v3/files", { query, signal });
    yield page.files.map(entry);
    query.pageToken = page.nextPageToken;
  } while (query.pageToken);
}

export const inFolder = (id, signal) => search(`${quoted(id)} in parents and trashed = false`, signal);

export async function* inTrash(signal) {
  for await (const page of search("trashed = true", signal)) yield page.filter((file) => file.trashed);
}

export async function named(parent, name) {
  const found = [];
  for await (const page of search(`name = ${quoted(name)} and ${quoted(parent)} in parents and trashed = false`)) found.push(...page);
  return found.filter((file) => file.name === name);
}

export const about = () => call("GET", "/drive/v3/about", { query: { fields: "storageQuota" } });
export const file = async (id) => entry(await call("GET", `/drive/v3/files/${encodeURIComponent(id)}`, { query: { fields: FIELDS } }));
const change = async (id, body, query = {}) => entry(await call("PATCH", `/drive/v3/files/${id}`, { body, query: { fields: FIELDS, ...query } }));
export const rename = (id, name) => change(id, { name });
export const move = (one, parent) => change(one.id, {}, { addParents: parent, removeParents: one.parent });
export const trash = (id) => change(id, { trashed: true });
export const restore = (id) => change(id, { trashed: false });
export const remove = (id) => call("DELETE", `/drive/v3/files/${id}`);
export const emptyTrash = () => call("DELETE", "/drive/v3/files/trash");
export const datasets = async () => (await call("GET", "/page/datasets")).datasets;

export async function makeFolder(parent, name) {
  const body = { name, parents: [parent], mimeType: "application/vnd.google-apps.folder" };
  return entry(await call("POST", "/drive/v3/files", { body, query: { fields: FIELDS } }));
}

// The first bytes of a file as text.
export async function beginning(id, bytes) {
  const headers = { Range: `bytes=0-${bytes - 1}` };
  const answer = await call("GET", `/drive/v3/files/${id}`, { query: { alt: "media" }, headers, raw: true });
  return answer.text();
}

// One of Google's documents as text; a spreadsheet as its cells.
export async function exported(one) {
  const query = { mimeType: one.mime.endsWith("spreadsheet") ? "text/csv" : "text/plain" };
  const answer = await call("GET", `/drive/v3/files/${one.id}/export`, { query, raw: true });
  return answer.text();
}

// Links to bytes are signed by the hub, asked for together and kept while the file stays the same.
const known = new Map();
let wanted = null;

export function links(one) {
  const mark = `${one.id} ${one.size} ${one.modified}`;
  if (!known.has(mark)) {
    const asked = collected(one.id);
    known.set(mark, asked);
    asked.catch(() => known.delete(mark));
    setTimeout(() => known.delete(mark), 5 * 3600_000);
  }
  return known.get(mark);
}

function collected(id) {
  if (wanted === null || wanted.ids.length === 200) {
    const batch = { ids: [], answer: null };
    batch.answer = new Promise((done) => setTimeout(done, 30)).then(() => {
      if (wanted === batch) wanted = null;
      return call("POST", "/page/links", { body: { ids: batch.ids } });
    });
    wanted = batch;
  }
  const { ids, answer } = wanted;
  ids.push(id);
  return answer.then((said) => said.links[id] ?? Promise.reject(new Refused(404, "There is nothing of it to download.")));
}

// `work` for each item, a few at a time; the first failure is thrown once all have ended.
export async function each(items, work, atOnce = 6) {
  const waiting = [...items];
  const failures = [];
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      await work(item).catch((error) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  if (failures.length) throw failures[0];
}
