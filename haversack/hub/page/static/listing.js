// The files of one place: loaded page by page, sorted and filtered here, so that both are instant in large folders.

const byName = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
// Natural order of a hundred thousand names takes a second; beyond this many plain order has to do.
const NATURAL_UP_TO = 50_000;

export class Listing {
  constructor(changed) {
    this.changed = changed;
    this.files = [];
    this.shown = [];
    this.filter = "";
    this.order = { by: "name", down: false };
    this.complete = true;
    this.loading = null;
  }

  // Take the pages of `source`, a function of an abort signal, and show them as they come; when it is the same place
  // `again`, what was shown stays until all are there. Returns false when something else was loaded meanwhile.
  async load(source, again = false) {
    this.stop();
    const loading = new AbortController();
    this.loading = loading;
    this.complete = false;
    let found = [];
    let nextSort = 0;
    try {
      for await (const page of source(loading.signal)) {
        if (loading.signal.aborted) return false;
        found = found.length ? found.concat(page) : page;
        // Sorting each page of a very large folder anew would cost more than fetching it.
        if (!again && found.length >= nextSort) {
          this.files = found;
          this.arrange();
          nextSort = found.length * 1.3;
        }
      }
    } catch (error) {
      if (loading.signal.aborted) return false;
      throw error;
    } finally {
      if (this.loading === loading) {
        this.loading = null;
        this.complete = true;
      }
    }
    this.files = found;
    this.arrange();
    return true;
  }

  stop() {
    this.loading?.abort();
    this.loading = null;
  }

  clear() {
    this.stop();
    this.complete = false;
    this.files = [];
    this.arrange();
  }

  put(file) {
    const at = this.files.findIndex((one) => one.id === file.id);
    if (at === -1) this.files.push(file);
    else this.files[at] = file;
    this.arrange();
  }

  drop(ids) {
    this.files = this.files.filter((file) => !ids.has(file.id));
    this.arrange();
  }

  sortBy(by, down) {
    this.order = { by, down };
    this.arrange();
  }

  show(filter) {
    this.filter = filter.toLowerCase();
    this.arrange();
  }

  arrange() {
    const chosen = this.filter ? this.files.filter((file) => file.folded.includes(this.filter)) : [...this.files];
    this.shown = chosen.sort(this.comparison(chosen.length));
    this.changed();
  }

  comparison(length) {
    const { by, down } = this.order;
    const names =
      length > NATURAL_UP_TO
        ? (a, b) => (a.folded < b.folded ? -1 : a.folded > b.folded ? 1 : 0)
        : (a, b) => byName.compare(a.name, b.name);
    const first = by === "name" ? names : (a, b) => a[by] - b[by] || names(a, b);
    const sign = down ? -1 : 1;
    const folders = (file) => (file.kind === "folder" ? 0 : 1);
    return (a, b) => folders(a) - folders(b) || sign * first(a, b) || (a.id < b.id ? -1 : 1);
  }
}
