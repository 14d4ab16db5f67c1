// Asking the model: a question goes out, its answer is written into the chat, and what goes wrong is said in
// words. Chats answer independently of each other, and of which of them is open.

import { request } from "./api.js";
import { save } from "./chats.js";
import { following, scrollToBottom } from "./scroll.js";
import { applySettings, openSettings } from "./settings.js";
import { redraw, runs, setting, state, troubles } from "./state.js";
import { readAnswer, requestBody } from "./stream.js";
import { canForget, deepest, forgetOldest } from "./tree.js";

const TRIES = 5;   // how often a busy server is asked again

/** Send a user's text, as what follows the message `up`. */
export function submit(chat, text, up = chat.tip) {
  if (runs.has(chat.id)) return;
  if (chat.messages[up]?.role === "user") up = addMessage(chat, "assistant", [], up, "No answer.");
  answer(chat, addMessage(chat, "user", text, up));
}

/** Ask the question `up` once more. */
export async function askAgain(chat, up) {
  if (!state.model) await meetModels();
  if (runs.has(chat.id)) return;
  const answered = chat.messages.some(message => message.up === up);
  const same = answered && setting("temperature") === 0;
  answer(chat, up, same ? "At temperature 0 the answer is always the same; Settings has more." : undefined);
}

export function stop(chat) {
  troubles.delete(chat.id);
  runs.get(chat.id)?.abort.abort();
}

function addMessage(chat, role, content, up, note) {
  chat.messages.push({ role, content, up, note });
  return chat.messages.length - 1;
}

/** Let the model answer the question `up`; `note` is to stand below the answer. */
async function answer(chat, up, note) {
  // "Broken off." is what stands below the answer if the page closes before its end.
  chat.tip = addMessage(chat, "assistant", [], up, "Broken off.");
  chat.changed = Date.now();
  const run = { message: chat.messages[chat.tip], abort: new AbortController() };
  runs.set(chat.id, run);
  troubles.delete(chat.id);
  state.notice = null;
  state.hintClosed = false;
  state.editing = null;
  save(chat);
  redraw();
  scrollToBottom();
  try {
    await readAnswer(run, await post(chat, run), note);
  } catch (error) {
    failed(chat, up, run, error);
  }
  following(() => {
    runs.delete(chat.id);
    save(chat);
    redraw();
  });
}

function failed(chat, up, { message }, error) {
  if (error.name === "AbortError") {
    message.note = "Stopped.";
    return;
  }
  state.notice = null;   // else it would hide the trouble
  troubles.set(chat.id, troubleOf(chat, up, error));
  if (error.code === "model_not_found") state.model = null;   // the next question asks which there is
  if (message.content.length) return;
  chat.messages.pop();
  chat.tip = deepest(chat, up);
}

/**
 * The response to the chat's request. A server that is busy is asked again when it said; in a chat that
 * has outgrown the model the oldest messages are no longer sent: they stay on the page, above a line that says so.
 */
async function post(chat, run) {
  let waits = 0;
  while (true) {
    try {
      const body = requestBody(chat, run);
      return await request("v1/chat/completions", { method: "POST", body, signal: run.abort.signal });
    } catch (error) {
      const tooLong = error.code === "context_length_exceeded";
      const busy = error.status === 429 && error.wait > 0;
      if (tooLong && canForget(chat)) {
        forgetOldest(chat);
        redraw();
      } else if (busy && waits < TRIES) {
        waits += 1;
        await waitForServer(chat, run, error.wait);
      } else {
        throw error;
      }
    }
  }
}

async function waitForServer(chat, run, seconds) {
  const text = `The server is busy. Your message is kept, and goes out again in ${seconds} s.`;
  troubles.set(chat.id, { text, label: "Stop", act: () => stop(chat) });
  redraw();
  const { signal } = run.abort;
  await new Promise((resolve, reject) => {
    setTimeout(resolve, 1000 * seconds);
    signal.onabort = () => reject(signal.reason);
  });
  troubles.delete(chat.id);
  redraw();
}

/** A notice that says what went wrong, with a button that mends it. */
function troubleOf(chat, up, error) {
  const trouble = (text, label, act) => ({ text, bad: true, label, act });
  const retry = () => askAgain(chat, up);
  if (error instanceof TypeError) {   // from fetch: there was no response at all
    const text = "The server cannot be reached, or the connection broke off. Nothing you wrote is lost.";
    return trouble(text, "Try again", retry);
  }
  if (error.status === 401) return trouble("This server asks for an API key.", "Enter the key", openSettings);
  if (error.status === 429) {
    const text = "The server is busy just now. Your message is kept; try again in a moment.";
    return trouble(text, "Try again", retry);
  }
  if (error.code !== "context_length_exceeded") return trouble(error.message, "Try again", retry);
  return trouble(error.message, "Edit it", () => {   // this one message alone is too long
    stop(chat);
    state.editing = chat.messages[up];
    redraw();
  });
}

/** Learn which models there are, how long their context is and what their defaults are. */
export async function meetModels() {
  const { chat } = state;
  try {
    const response = await request("v1/models");
    state.models = (await response.json()).data;
    troubles.delete(chat.id);
    applySettings();
  } catch (error) {
    const trouble = troubleOf(chat, chat.tip, error);
    if (error.status !== 401) trouble.act = meetModels;
    troubles.set(chat.id, trouble);
  }
  redraw();
}
