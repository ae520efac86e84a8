// Sizes, times and kinds of files in the words that people read.

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const FOLDER = "application/vnd.google-apps.folder";
export const SHORTCUT = "application/vnd.google-apps.shortcut";
const GOOGLE = "application/vnd.google-apps.";

const SUFFIXES = {
  archive: "zip tar gz tgz bz2 xz zst 7z rar",
  weights: "h5 hdf5 keras safetensors ckpt pt pth onnx npz npy pb tflite msgpack",
  text: "txt csv tsv json jsonl md py js ts css html xml yaml yml toml ini cfg log sh rst tex sql r c h cpp rs go",
  notebook: "ipynb",
};
const KINDS = new Map(Object.entries(SUFFIXES).flatMap(([kind, all]) => all.split(" ").map((one) => [one, kind])));

export function size(bytes) {
  let unit = 0;
  while (bytes >= 999.5 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit && bytes < 99.95 ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[unit]}`;
}

export function time(milliseconds) {
  const when = new Date(milliseconds);
  const now = new Date();
  if (when.toDateString() === now.toDateString()) return CLOCK.format(when);
  return (when.getFullYear() === now.getFullYear() ? DAY : YEAR).format(when);
}

export const wholeTime = (milliseconds) => WHOLE.format(new Date(milliseconds));

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

export const suffix = (name) => /\.([^.]+)$/.exec(name)?.[1].toLowerCase() ?? "";

// folder, picture, text, archive, weights, notebook, shortcut or file: its icon, and how it is opened.
export function kindOf(mime, name) {
  if (mime === FOLDER) return "folder";
  if (mime === SHORTCUT) return "shortcut";
  if (mime.startsWith(GOOGLE)) return "document";
  if (mime.startsWith("image/") && mime !== "image/svg+xml") return "picture";
  return KINDS.get(suffix(name)) ?? (mime.startsWith("text/") ? "text" : "file");
}
