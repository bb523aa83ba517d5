// The page: a key first, then what it may do.

import { call, key } from "./api.js";
import { bindAsking, forgetConversation } from "./ask.js";
import { bindDocuments, showDocuments } from "./documents.js";
import { find, notify } from "./dom.js";
import { showMemories } from "./memories.js";

const NO_PRESET = "none";
let presets = new Map();

function showModels(entries) {
  presets = new Map();
  for (const { id, r1plus } of entries.filter((entry) => entry.r1plus.capabilities)) {
    const [name] = id.split(":");
    presets.set(name, [...(presets.get(name) ?? []), r1plus]);
  }
  find("model").replaceChildren(...[...presets.keys()].map((name) => new Option(name, name)));
  showPresets();
}

function showPresets() {
  const options = (presets.get(find("model").value) ?? []).map(({ preset, accuracy }) =>
    new Option(`${preset ?? NO_PRESET} (accuracy ${accuracy})`, preset ?? ""));
  find("preset").replaceChildren(...options);
}

function showKey(about) {
  find("key-form").hidden = Boolean(about);
  find("key-known").hidden = !about;
  find("tools").hidden = !about;
  if (about) find("key-about").textContent = `Key ${about.id} is in use.`;
}

function offer(id, isOffered) {
  find(id).closest("label").hidden = !isOffered;
  find(id).checked &&= isOffered; // Another key may have been in use before.
  return isOffered;
}

function forgetKey() {
  key.forget();
  forgetConversation();
  showKey(null);
}

async function start() {
  notify("key-notice");
  try {
    const about = await call("GET", "v1/key");
    showModels((await call("GET", "v1/models")).data);
    const has = (feature) => about.features.includes(feature);
    await Promise.all([has("documents") && showDocuments(), has("conversations") && showMemories()]);
    find("documents-section").hidden = !has("documents");
    find("store").closest("p").hidden = !has("documents");
    find("memories-section").hidden = !has("conversations");
    const offered = [offer("math", has("calculator")), offer("code", has("code_interpreter")), offer("memory", has("conversations"))];
    find("with").hidden = !offered.includes(true);
    showKey(about);
    find("question").focus();
  } catch (error) {
    if (error.status === 401) {
      error.message = "This key is not valid here: it is mistyped, has expired, or was revoked. Ask your administrator for another.";
      forgetKey();
    }
    notify("key-notice", error);
  }
}

find("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key.keep(find("key").value.trim());
  find("key").value = "";
  await start();
});
find("key-forget").addEventListener("click", () => { forgetKey(); find("key").focus(); });
find("model").addEventListener("change", showPresets);
bindAsking(async () => { if (find("memory").checked) await showMemories(); });
bindDocuments();
if (key.read()) await start();
