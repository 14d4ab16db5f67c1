// Talking to the server, in OpenAI's protocol: requests, and answers that come as server-sent events.

import { state } from "./state.js";

/**
 * The response to a request, a POST where there is a body. Raises {message, code, status} with the server's own
 * words if it refuses; a TypeError if it cannot be reached.
 */
export async function request(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (state.settings.api_key) headers.Authorization = `Bearer ${asBytes(state.settings.api_key)}`;
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw { message: `The server answered ${response.status}.`, ...error, status: response.status };
}

/** What went wrong, in words. */
export function wordsOf(error) {
  if (error instanceof TypeError) return "The server cannot be reached, or the connection broke off.";
  if (error.status === 401) return "This server asks for an API key.";
  return error.message;
}

/** A header takes characters up to 255 only: each byte of the key's UTF-8 becomes one. */
function asBytes(key) {
  return String.fromCharCode(...new TextEncoder().encode(key));
}

/** The data of each server-sent event, "data: {...}" and an empty line; the chunks are cut anywhere. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();   // not whole yet
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield block.slice("data: ".length);
    }
  }
}
