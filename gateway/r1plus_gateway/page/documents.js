// The tenant's documents: one vector store of this page's own, files with their progress, and deletion.

import { call, list, upload } from "./api.js";
import { find, makeEntry, notify } from "./dom.js";

const NAME = "page";
const WAIT_MS = 700;
let store = "";

const wait = () => new Promise((resolve) => { setTimeout(resolve, WAIT_MS); });

function describeState(file) {
  if (file.status === "failed") return `not read: ${file.last_error?.message ?? "unknown"}`;
  if (file.status !== "completed") return "is being read …";
  const { chunks, unreadable_pages: unreadable } = file.r1plus;
  const passages = `${chunks} ${chunks === 1 ? "passage" : "passages"}`;
  return unreadable.length ? `${passages}; not readable: ${unreadable.length} of ${file.r1plus.pages} pages` : passages;
}

async function follow(file, setState) {
  let now = file;
  while (now.status === "in_progress") {
    setState(describeState(now));
    await wait();
    now = await call("GET", `v1/vector_stores/${store}/files/${file.id}`);
  }
  setState(describeState(now));
}

async function addEntry(file) {
  const name = (await call("GET", `v1/files/${file.id}`)).filename;
  const { entry, setState } = makeEntry(name, describeState(file), async () => {
    try {
      await call("DELETE", `v1/vector_stores/${store}/files/${file.id}`);
      await call("DELETE", `v1/files/${file.id}`);
      return true;
    } catch (error) {
      notify("documents-notice", error);
      return false;
    }
  });
  find("documents").append(entry);
  follow(file, setState).catch((error) => setState(error.message));
}

function showStores(stores) {
  const select = find("store");
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...stores.map((one) => new Option(one.name || one.id, one.id)));
  select.value = stores.some((one) => one.id === chosen) ? chosen : "";
}

// Shows stores and files.
export async function showDocuments() {
  find("documents").replaceChildren();
  store = "";
  const stores = [];
  for await (const one of list("v1/vector_stores")) stores.push(one);
  showStores(stores);
  store = stores.find((one) => one.name === NAME)?.id ?? "";
  if (store) for await (const file of list(`v1/vector_stores/${store}/files`)) await addEntry(file);
}

async function add(file) {
  const text = find("upload-text");
  const bar = find("upload-bar");
  text.textContent = `Sending ${file.name}`;
  bar.value = 0;
  find("upload-state").hidden = false;
  const stored = await upload(file, (part) => { bar.value = part; });
  text.textContent = `Reading ${file.name}`;
  bar.removeAttribute("value");
  if (!store) {
    const made = await call("POST", "v1/vector_stores", { name: NAME });
    store = made.id;
    find("store").append(new Option(made.name, made.id));
  }
  let added = await call("POST", `v1/vector_stores/${store}/files`, { file_id: stored.id });
  while (added.status === "in_progress") {
    await wait();
    added = await call("GET", `v1/vector_stores/${store}/files/${added.id}`);
  }
  await addEntry(added);
  find("store").value = store;
}

export function bindDocuments() {
  find("upload-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = find("file").files;
    notify("documents-notice");
    find("upload").disabled = true;
    try {
      await add(file);
      find("upload-form").reset();
    } catch (error) {
      notify("documents-notice", error);
    } finally {
      find("upload-state").hidden = true;
      find("upload").disabled = false;
    }
  });
}
