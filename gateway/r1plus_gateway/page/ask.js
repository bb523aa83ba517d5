// The conversation: a question, the answer as it comes, and what answered.

import { call, stream } from "./api.js";
import { find, make, notify } from "./dom.js";

const PROGRAM = "code_interpreter_call";
let said = [];
let conversation = "";
let running = null;

export function forgetConversation() {
  running?.abort();
  said = [];
  conversation = "";
  find("talk").replaceChildren();
  notify("ask-notice");
}

function addFact(list, name, value, className) {
  if (value) list.append(make("div", {}, make("dt", { text: name }), make("dd", { text: value, className })));
}

// `"smollm2-full-v1";items=211;lost=0;allowed=4;point=gated`: a string with parameters, as RFC 9651 writes them.
function readGate(header) {
  const match = /^"([^"]*)";items=(\d+);lost=(\d+);allowed=(\d+)(?:;point=(\w+))?$/.exec(header ?? "");
  return match && { suite: match[1], items: Number(match[2]), lost: Number(match[3]), allowed: Number(match[4]), isOfOther: (match[5] ?? "gated") !== "gated" };
}

function describeGate(gate) {
  if (!gate) return "";
  const share = (100 * (gate.items - gate.lost)) / gate.items;
  const other = gate.isOfOther ? ", without this answer's settings" : "";
  return `${gate.items - gate.lost} of ${gate.items} of ${gate.suite} (${share.toFixed(1)} %; ${gate.allowed} may be lost)${other}`;
}

function showFacts(article, answer, headers, times) {
  const facts = make("dl", { className: "facts", "aria-label": "What answered" });
  const { revision, verdict, engine_digest: digest } = answer.r1plus;
  addFact(facts, "Verdict", verdict, verdict === "Pass" ? "good" : "bad");
  addFact(facts, "Accuracy", describeGate(readGate(headers.get("x-r1plus-gate"))));
  addFact(facts, "Revision", revision);
  addFact(facts, "Engine", digest?.slice(0, 19));
  addFact(facts, "First token", times.first && `${((times.first - times.began) / 1000).toFixed(2)} s`);
  const tokens = answer.usage?.output_tokens ?? 0;
  const seconds = (times.ended - times.first) / 1000;
  addFact(facts, "Speed", times.first && tokens > 1 && seconds > 0 && `${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  addFact(facts, "Tokens", answer.usage && `${answer.usage.input_tokens} + ${tokens}`);
  addFact(facts, "Memory", answer.r1plus.memory && `${answer.r1plus.memory.cards + answer.r1plus.memory.retrieved + answer.r1plus.memory.remembered} quotations`);
  article.append(facts);
}

function showMath(article, { math = [], math_skipped: skipped }) {
  if (skipped) article.append(make("p", { className: "hint", text: `Not calculated: ${skipped.message ?? skipped.code}` }));
  if (!math?.length) return;
  const results = math.map((one) => {
    const result = one.error ? one.error.message : `${one.expression} = ${one.exact ?? one.numeric}${one.unit ? ` ${one.unit}` : ""}`;
    const checked = one.verified ? "verified" : one.translated ? "translated by the model, check the expression" : "not verified";
    const differs = one.agrees === false ? ". The text above says something else: rely on this result." : "";
    return make("li", { text: one.error ? result : `${result} (${checked})${differs}` });
  });
  article.append(make("p", { className: "hint", text: "Calculated" }), make("ul", { "aria-label": "Calculations" }, ...results));
}

function showCitations(article, answer) {
  const cited = (answer.r1plus.knowledge?.passages ?? []).filter((passage) => passage.is_cited);
  if (!cited.length) return;
  const items = cited.map((passage) => {
    const page = passage.page ? `, page ${passage.page}` : "";
    const heading = passage.heading ? `, ${passage.heading}` : "";
    return make("li", { value: passage.number, text: `${passage.filename}${page}${heading}` });
  });
  article.append(make("p", { className: "hint", text: "Cited" }), make("ol", { "aria-label": "Citations" }, ...items));
}

// Shows a program before the text, from before it runs; returns what shows its output.
function showProgram(text, code) {
  const number = text.parentElement.querySelectorAll(".code").length + 1;
  const makePart = (name, content, className) => // By keyboard a long one is scrolled where it has the focus.
    make("pre", { text: content, className, tabindex: 0, role: "region", "aria-label": `${name} ${number}` });
  const output = makePart("Output", "…", "output");
  text.before(make("p", { className: "hint", text: "Program" }), makePart("Program", code || "(empty)", "code"),
    make("p", { className: "hint", text: "Output" }), output);
  return (logs) => { output.textContent = logs || "(none)"; };
}

async function buildRequest(question, signal) {
  const request = {
    model: find("model").value + (find("preset").value && `:${find("preset").value}`),
    store: false,
  };
  if (find("math").checked) request.math_mode = true;
  const tools = [];
  if (find("store").value) tools.push({ type: "file_search", vector_store_ids: [find("store").value] });
  if (find("code").checked) tools.push({ type: "code_interpreter", container: { type: "auto" } });
  if (tools.length) request.tools = tools;
  const message = { role: "user", content: question };
  if (find("memory").checked) {
    if (!conversation) {
      const { id } = await call("POST", "v1/conversations", {});
      signal.throwIfAborted(); // By a new conversation, or another key.
      conversation = id;
    }
    return { ...request, input: [message], conversation, memory: { enabled: true, long_term: "keep" } };
  }
  return { ...request, input: [...said, message] };
}

async function ask(question) {
  const text = make("p", { className: "text", text: "…" });
  const article = make("article", { "aria-busy": "true" }, make("p", { className: "said", text: question }), text);
  find("talk").append(article);
  const talk = find("talk");
  const showEnd = () => { talk.scrollTop = talk.scrollHeight; };
  showEnd();
  running = new AbortController();
  const times = { began: performance.now(), first: 0, ended: 0 };
  let headers = new Headers();
  let answer = null;
  let written = "";
  let showOutput = null;
  try {
    const request = await buildRequest(question, running.signal);
    const isWhole = request.tools?.some(({ type }) => type === "code_interpreter"); // Its text comes as one piece.
    times.began = performance.now();
    for await (const event of stream("v1/responses", request, running.signal, (found) => { headers = found; })) {
      if (event.type === "response.output_text.delta") {
        if (!isWhole) times.first ||= performance.now();
        written += event.delta;
        text.textContent = written;
        showEnd();
      } else if (event.type === "response.code_interpreter_call_code.done") {
        showOutput = showProgram(text, event.code);
        showEnd();
      } else if (event.type === "response.output_item.done" && event.item.type === PROGRAM) {
        showOutput(event.item.outputs.map(({ logs }) => logs).join(""));
        showOutput = null;
        showEnd();
      } else if (event.type === "response.completed" || event.type === "response.incomplete") {
        answer = event.response;
      } else if (event.type === "error" || event.type === "response.failed") {
        const message = event.message ?? event.response?.error?.message ?? "The answer broke off. Try again.";
        throw Object.assign(new Error(message), { code: event.code ?? event.response?.error?.code, requestId: headers.get("x-request-id") });
      }
    }
    times.ended = performance.now();
    text.textContent = written || "(no text)";
    const programs = answer.output.filter(({ type }) => type === PROGRAM);
    said.push({ role: "user", content: question }, ...programs, { role: "assistant", content: written });
    if (answer.status === "incomplete") article.append(make("p", { className: "hint", text: `Cut after ${answer.usage.output_tokens} tokens.` }));
    showMath(article, answer.r1plus);
    showCitations(article, answer);
    showFacts(article, answer, headers, times);
    return true;
  } catch (error) {
    const isStopped = error.name === "AbortError";
    if (error.code === "context_length_exceeded") error.message += " Or begin a new conversation.";
    if (!isStopped) notify("ask-notice", error);
    showOutput?.("(unknown)");
    if (isStopped || article.querySelector(".code")) { // What has run is worth reading, and is paid for.
      text.textContent = written;
      article.append(make("p", { className: "hint", text: isStopped ? "Stopped." : "Broken off." }));
    } else {
      article.remove();
    }
    return false;
  } finally {
    article.removeAttribute("aria-busy");
    showEnd();
    running = null;
  }
}

// The gateway takes one of the two.
function uncheckOther(id, other) {
  find(id).addEventListener("change", () => { if (find(id).checked) find(other).checked = false; });
}

export function bindAsking(onAnswer) {
  uncheckOther("math", "code");
  uncheckOther("code", "math");
  const question = find("question");
  find("ask-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = question.value.trim();
    if (!asked || running) return;
    notify("ask-notice");
    find("ask").disabled = true;
    find("stop").hidden = false;
    question.value = "";
    const isAnswered = await ask(asked);
    find("ask").disabled = false;
    find("stop").hidden = true;
    if (!isAnswered && !question.value) question.value = asked;
    question.focus();
    if (isAnswered) await onAnswer();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("ask-form").requestSubmit();
  });
  find("stop").addEventListener("click", () => running?.abort());
  find("anew").addEventListener("click", () => { forgetConversation(); question.focus(); });
}
