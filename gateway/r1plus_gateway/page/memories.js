// What is remembered of this caller: listed, and deleted one by one.

import { call, list } from "./api.js";
import { find, makeEntry, notify } from "./dom.js";

export async function showMemories() {
  const entries = [];
  for await (const memory of list("v1/memories")) {
    entries.push(makeEntry(memory.text, memory.source === "pinned" ? "pinned" : "", async () => {
      try {
        await call("DELETE", `v1/memories/${memory.id}`);
        return true;
      } catch (error) {
        notify("memories-notice", error);
        return false;
      }
    }).entry);
  }
  find("memories").replaceChildren(...entries);
}
