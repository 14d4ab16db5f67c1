// Asking the model: a question goes out, its answer is written into the chat, and what goes wrong is said in
// words. Chats answer independently of each other, and of which of them is open.

import { request } from "./api.js";
import { save } from "./chats.js";
import { following, scrollToBottom } from "./scroll.js";
import { applySettings, openSettings } from "./settings.js";
import { redraw, runs, setting, state, tell, troubles } from "./state.js";
import { readAnswer, requestBody } from "./stream.js";
import { canForget, deepest, forgetOldest, newId } from "./tree.js";

const TRIES = 5;   // how often a busy server is asked again
const WORDS = 0.7;   // a token, about

/** Send a user's text, as what follows the message `up`. */
export function submit(chat, text, up = chat.tip) {
  if (runs.has(chat.id)) return;
  if (chat.messages[up]?.role === "user") up = addMessage(chat, "assistant", [], up, "No answer.");
  answer(chat, addMessage(chat, "user", text, up));
}

/** Let the model go on where the answer `index` ended. */
export async function goOn(chat, index) {
  if (!state.model) await meetModels();
  if (!runs.has(chat.id)) write(chat, index);
}

/** Ask the question `up` once more. */
export async function askAgain(chat, up) {
  if (!state.model) await meetModels();
  if (runs.has(chat.id)) return;
  const answered = chat.messages.some(message => message.up === up);
  const same = answered && (setting("temperature") === 0 || setting("seed") !== undefined);
  const note = "At temperature 0, or with a seed, the answer is always the same; Settings has both.";
  answer(chat, up, same ? note : undefined);
}

export function stop(chat) {
  troubles.delete(chat.id);
  runs.get(chat.id)?.abort.abort();
}

function addMessage(chat, role, content, up, note) {
  chat.messages.push({ id: newId(), role, content, up, note });
  return chat.messages.length - 1;
}

/** Let the model answer the question `up`; `note` is to stand below the answer. */
function answer(chat, up, note) {
  chat.tip = addMessage(chat, "assistant", [], up);
  write(chat, chat.tip, note);
}

/** Let the model write on at the answer `index`. */
async function write(chat, index, note) {
  const message = chat.messages[index];
  message.note = "Broken off.";   // which stands below it if the page closes before its end
  chat.changed = Date.now();
  const run = { message, abort: new AbortController(), before: message.tokens ?? 0 };
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
    failed(chat, index, error);
  }
  following(() => {
    runs.delete(chat.id);
    save(chat);
    redraw();
  });
  if (!state.model && !troubles.has(chat.id)) meetModels();   // the first one has just been trained
}

function failed(chat, index, error) {
  const message = chat.messages[index];
  const { up } = message;
  if (error.name === "AbortError") {
    message.note = "Stopped.";
    return;
  }
  state.notice = null;   // else it would hide the trouble
  troubles.set(chat.id, troubleOf(chat, up, error));
  if (error.code === "model_not_found") state.model = null;   // the next question asks which there is
  if (message.content.length) return;
  message.note = "No answer.";
  if (index < chat.messages.length - 1) return;   // another tab has written behind it
  chat.messages.pop();
  chat.tip = deepest(chat, up);
}

/**
 * The response to the chat's request. A server that is busy is asked again when it said; in a chat that has
 * outgrown the model the oldest messages are no longer sent: they stay on the page, above a line that says so.
 * Where there is nothing left to forget, the answer has what room there is.
 */
async function post(chat, run) {
  let waits = 0;
  let isShort = false;
  while (true) {
    try {
      const body = requestBody(chat, run, isShort);
      return await request("v1/chat/completions", { method: "POST", body, signal: run.abort.signal });
    } catch (error) {
      const tooLong = error.code === "context_length_exceeded";
      const busy = error.status === 429 && error.wait > 0;
      if (tooLong && canForget(chat)) {
        forgetOldest(chat);
        redraw();
      } else if (tooLong && !isShort) {
        isShort = true;
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
  const room = state.model.max_model_len;
  const words = 10 * Math.round(room * WORDS / 10);
  const what = state.settings.system ? "This message is too long with the system prompt" : "This message is too long";
  const text = `${what}: the model reads at most ${room} tokens, some ${words} words, its answer among them.`;
  return trouble(text, "Edit it", () => {
    stop(chat);
    state.editing = chat.messages[up];
    redraw();
  });
}

/** Keep what the user thinks of the answer `index`: "up", "down", or undefined if that is taken back. */
export async function rate(chat, index, rating) {
  const messages = [];
  for (let at = index; at >= 0; at = chat.messages[at].up) {
    const { role, content } = chat.messages[at];
    messages.unshift({ role, content });
  }
  const message = chat.messages[index];
  try {
    const id = `${chat.id}/${message.id}`.slice(0, 64);
    const body = JSON.stringify({ id, rating: rating ?? null, messages });
    await request("v1/feedback", { method: "POST", body });
    message.rating = rating;
    save(chat);
  } catch (error) {
    tell(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  }
  redraw();
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
