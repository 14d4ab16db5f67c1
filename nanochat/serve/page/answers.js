// Asking the model: a question goes out, its answer is written into the chat, and what goes wrong is said in
// words. Chats answer independently of each other, and of which of them is open.

import { request, wordsOf } from "./api.js";
import { save } from "./chats.js";
import { following, scrollToBottom } from "./scroll.js";
import { applySettings, openSettings } from "./settings.js";
import { redraw, runs, state, tell } from "./state.js";
import { readAnswer, requestBody } from "./stream.js";
import { deepest, forgetOldest, messagesOf, newId } from "./tree.js";

/** Send a user's text, as what follows the message `up`. */
export function submit(chat, text, up = chat.tip) {
  if (chat.messages[up]?.role === "user") up = addMessage(chat, "assistant", [], up, "No answer.");
  answer(chat, addMessage(chat, "user", text, up));
}

export function stop(chat) {
  runs.get(chat.id)?.abort.abort();
}

function addMessage(chat, role, content, up, note) {
  chat.messages.push({ id: newId(), role, content, up, note });
  return chat.messages.length - 1;
}

/** Let the model answer the question `up`, perhaps once more. */
export function answer(chat, up) {
  chat.tip = addMessage(chat, "assistant", [], up);
  write(chat, chat.tip);
}

/** Let the model write the answer `index`, or go on where it ended. */
export async function write(chat, index) {
  const message = chat.messages[index];
  message.note = "Broken off.";   // which stands below it if the page closes before its end
  chat.changed = Date.now();
  const run = { message, abort: new AbortController(), before: message.tokens ?? 0 };
  runs.set(chat.id, run);
  state.notice = null;
  state.editing = null;
  save(chat);
  redraw();
  scrollToBottom();
  try {
    await readAnswer(run, await post(chat, run));
  } catch (error) {
    failed(chat, index, error);
  }
  following(() => {
    runs.delete(chat.id);
    save(chat);
    redraw();
  });
}

function failed(chat, index, error) {
  const message = chat.messages[index];
  if (error.name === "AbortError") {
    message.note = "Stopped.";
    return;
  }
  if (chat === state.chat) state.notice = troubleOf(chat, message.up, error);
  if (error.code === "model_not_found") state.model = null;   // the next question asks which there is
  if (message.content.length) return;
  message.note = "No answer.";
  if (index < chat.messages.length - 1) return;   // another tab has written behind it
  chat.messages.pop();
  chat.tip = deepest(chat, message.up);
}

/**
 * The response to the chat's request. In a chat that has outgrown the model the oldest messages are no longer
 * sent: they stay on the page, above a line that says so. Where there is nothing left to forget, the answer has
 * what room there is.
 */
async function post(chat, run) {
  if (!state.model) await meetModels();
  let isShort = false;
  while (true) {
    try {
      return await request("v1/chat/completions", requestBody(chat, run, isShort), run.abort.signal);
    } catch (error) {
      if (error.code !== "context_length_exceeded" || isShort) throw error;
      isShort = !forgetOldest(chat);
      redraw();
    }
  }
}

/** A notice that says what went wrong, with a button that mends it. */
function troubleOf(chat, up, error) {
  const text = wordsOf(error);
  if (error.status === 401) return { text, bad: true, label: "Enter the key", act: openSettings };
  const act = () => answer(chat, up);
  return { text: `${text} Nothing you wrote is lost.`, bad: true, label: "Try again", act };
}

/** Keep what the user thinks of the answer `index`: "up", "down", or undefined if that is taken back. */
export async function rate(chat, index, rating) {
  const message = chat.messages[index];
  const messages = messagesOf(chat, index).map(({ role, content }) => ({ role, content }));
  try {
    await request("v1/feedback", { id: `${chat.id}/${message.id}`, rating: rating ?? null, messages });
    message.rating = rating;
    save(chat);
  } catch (error) {
    tell(wordsOf(error), true);
  }
  redraw();
}

/** Learn which models there are, how long their context is and what their defaults are. */
export async function meetModels() {
  try {
    const response = await request("v1/models");
    state.models = (await response.json()).data;
    state.notice = null;
    applySettings();
  } catch (error) {
    state.notice = troubleOf(state.chat, state.chat.tip, error);
    if (error.status !== 401) state.notice.act = meetModels;
  }
  redraw();
}
