// Calls of the gateway's API: with the key, and with errors as the API words them.

export class ApiError extends Error {
  constructor(status, code, message, requestId) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }
}

const STORED = "r1plus-key";

export const key = {
  read: () => sessionStorage.getItem(STORED) ?? "",
  keep: (value) => sessionStorage.setItem(STORED, value),
  forget: () => sessionStorage.removeItem(STORED),
};

function convertError(status, text, requestId) {
  try {
    const { error } = JSON.parse(text);
    return new ApiError(status, error.code, error.message, requestId);
  } catch {
    return new ApiError(status, "", `The gateway answered ${status}: ${text.slice(0, 300)}`, requestId);
  }
}

async function send(method, path, body, signal) {
  // What no header can carry would look like a network that is down.
  if (!/^[\x21-\x7e]+$/.test(key.read())) throw new ApiError(401, "invalid_api_key", "This is not a key.", "");
  const headers = { Authorization: `Bearer ${key.read()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), credentials: "omit", cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The gateway cannot be reached. Is it running, and is the network up? Try again.", "");
  }
  if (!response.ok) throw convertError(response.status, await response.text(), response.headers.get("x-request-id") ?? "");
  return response;
}

export async function call(method, path, body) {
  return (await send(method, path, body)).json();
}

// Every entry of a list, page by page.
export async function* list(path) {
  let after = "";
  for (;;) {
    const page = await call("GET", `${path}?limit=100${after && `&after=${encodeURIComponent(after)}`}`);
    yield* page.data;
    if (!page.has_more) return;
    after = page.last_id;
  }
}

// Yields the parsed data of each event of a stream; `onHead` gets the response's headers first.
export async function* stream(path, body, signal, onHead) {
  const response = await send("POST", path, { ...body, stream: true }, signal);
  onHead(response.headers);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(0, "cut", "The answer broke off. Try again.", response.headers.get("x-request-id") ?? "");
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

// Uploads a file. `onProgress` gets the part that was sent, 0 to 1: fetch does not tell it.
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("purpose", "assistants");
    form.append("file", file);
    request.open("POST", "v1/files");
    request.setRequestHeader("Authorization", `Bearer ${key.read()}`);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "unreachable", "The upload broke off. Try again.", ""));
    request.onload = () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(convertError(request.status, request.responseText, request.getResponseHeader("x-request-id") ?? ""));
    };
    request.send(form);
  });
}
