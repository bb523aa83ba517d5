// What the Vercel AI SDK finds at a gateway: a line of JSON for each case.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { cosineSimilarity, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const URL = `${process.env.GATEWAY}/v1`;
const KEY = JSON.parse(process.env.KEYS).valid;
const QUESTION = "What is the capital of Sweden?";

// region chat
const gateway = createOpenAICompatible({ name: "r1plus", baseURL: URL, apiKey: KEY, supportsStructuredOutputs: true });
const model = gateway("credit");
// endregion

const city = z.enum(["Oslo", "Rome"]);
// region weather
const weather = tool({
  description: "Weather of a city.",
  inputSchema: z.object({ city: z.enum(["Oslo", "Rome"]) }),
  execute: async ({ city }) => `Rain in ${city}`,
});
// endregion

const CASES = {
  async "a whole answer"() {
    // region whole
    const { text, usage } = await generateText({ model, prompt: "What is the capital of Sweden?", maxOutputTokens: 64 });
    // endregion
    assert.ok(text);
    assert.ok(usage.outputTokens > 0);
  },

  async "a stream"() {
    // region stream
    const { textStream, finishReason } = streamText({ model, prompt: "Name three colours.", maxOutputTokens: 64 });
    let text = "";
    for await (const piece of textStream) text += piece;
    // endregion
    assert.ok(text);
    assert.ok(["stop", "length"].includes(await finishReason));
  },

  async "a tool is called, run, and its result read"() {
    // region tools
    const { steps } = await generateText({
      model,
      prompt: "How is the weather in Oslo?",
      tools: { weather },
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "none" : "required" }),
      stopWhen: stepCountIs(2),
      maxOutputTokens: 96,
    });
    // endregion
    assert.equal(steps.length, 2);
    assert.match(steps[0].toolResults[0].output, /^Rain in (Oslo|Rome)$/);
    assert.ok(steps[1].text);
  },

  async "a streamed call of one tool among twenty that is enforced in part"() {
    const note = tool({
      description: "Note something.",
      inputSchema: z.object({ city, text: z.string().max(500).optional(), more: z.record(z.string(), z.number()).optional() }),
    });
    const others = Object.fromEntries(Array.from({ length: 19 }, (_, number) => [`weather_${number}`, weather]));
    const { toolCalls, finishReason } = streamText({
      model,
      prompt: "Note that it rains in Oslo.",
      tools: { ...others, note },
      toolChoice: { type: "tool", toolName: "note" },
      maxOutputTokens: 200,
    });
    assert.ok((await toolCalls).length === 1 || (await finishReason) === "length");
  },

  async "structured output"() {
    // region structured
    const { output } = await generateText({
      model,
      prompt: "What is the capital of Sweden? Answer in JSON.",
      output: Output.object({ schema: z.object({ name: z.enum(["Oslo", "Stockholm"]), hasRiver: z.boolean() }) }),
      maxOutputTokens: 64,
    });
    // endregion
    assert.ok(["Oslo", "Stockholm"].includes(output.name));
  },

  async "a response"() {
    const { text, finishReason } = await generateText({
      model: createOpenAI({ baseURL: URL, apiKey: KEY }).responses("credit"),
      prompt: QUESTION,
      maxOutputTokens: 64,
    });
    assert.ok(text);
    assert.ok(["stop", "length"].includes(finishReason));
  },

  async "a streamed response"() {
    const model = createOpenAI({ baseURL: URL, apiKey: KEY }).responses("credit");
    assert.ok(await streamText({ model, prompt: QUESTION, maxOutputTokens: 64 }).text);
  },

  async "a text completion"() {
    const { text } = await generateText({ model: gateway.completionModel("credit"), prompt: "One, two,", maxOutputTokens: 8 });
    assert.ok(text);
  },

  async "embeddings and retrieval"() {
    // region retrieval
    const values = ["An account is opened online.", "It rains in Oslo.", "How do I open an account?"];
    const { embeddings } = await embedMany({ model: gateway.textEmbeddingModel("all-minilm-l6-v2"), values });
    const [online, rain, question] = embeddings;
    // endregion
    assert.ok(cosineSimilarity(question, online) > cosineSimilarity(question, rain));
  },

  async "a refusal shows its remedy"() {
    const refused = generateText({ model, prompt: QUESTION, providerOptions: { r1plus: { n: 2 } }, maxRetries: 0 });
    await assert.rejects(refused, /send a request for each/);
  },
};

for (const [name, run] of Object.entries(CASES)) {
  let problem = "";
  try {
    await run();
  } catch (error) {
    problem = `${error.name}: ${error.message} ${error.responseBody ?? ""}`;
  }
  console.log(JSON.stringify({ case: name, problem }));
}
