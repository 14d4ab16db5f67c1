// The message box: drafts, sending, and the commands that begin with a slash.

import { stop, submit } from "./answers.js";
import { save } from "./chats.js";
import { openChat } from "./conversation.js";
import { byId, growToFit, icon, sendOnEnter } from "./dom.js";
import { keepSettings } from "./settings.js";
import { redraw, runs, setting, state, tell } from "./state.js";
import { newChat } from "./tree.js";

const HELP = `/temperature 0.8: from 0, the likeliest word, to 2, wild
/topk 40: choose among so many tokens; 0 means all
/clear: a new chat; this one stays in the list
Enter sends, Shift+Enter starts a line, Esc stops an answer.`;

const COMMAND = /^\/([a-z]+)(?:\s+(\S+))?$/;   // "/usr/bin is a folder" is none
const FIELDS = { temperature: "temperature", topk: "top_k" };   // the setting that a command changes

function send() {
  const { chat } = state;
  const text = byId("draft").value.trim();
  if (!text || runs.has(chat.id)) return;
  const [, name, value] = text.match(COMMAND) ?? [];
  if (name && !obey(name, value)) return;   // it stays in the box, to be mended
  chat.draft = "";
  save(chat);
  byId("draft").value = state.chat.draft;   // after /clear another chat is open
  growToFit(byId("draft"));
  if (name) redraw();
  else submit(chat, text);
}

/** Do what a command says; true when it was understood. */
function obey(name, value) {
  if (name === "help") {
    tell(HELP);
    return true;
  }
  if (name === "clear") {
    openChat(newChat());
    return true;
  }
  const field = FIELDS[name];
  if (!field) {
    tell(`/${name} is not a command; /help lists them.`, true);
    return false;
  }
  if (value && !setNumber(name, field, value)) return false;
  tell(`/${name} is ${setting(field)}.`);
  return true;
}

function setNumber(name, field, value) {
  const { min, max } = byId(field);   // the limits of the settings' own field
  if (!(+value >= +min && +value <= +max)) {   // so that what is no number is out, too
    tell(`/${name} wants a number from ${min} to ${max}, not ${value}.`, true);
    return false;
  }
  keepSettings({ [field]: field === "top_k" ? Math.round(value) : +value });
  return true;
}

function keepDraft() {
  const { chat } = state;
  chat.draft = byId("draft").value;
  save(chat);
  if (chat.draft === "/") tell(HELP);
  drawComposer();
}

/** One button sends, and stops while an answer is being written. */
export function drawComposer() {
  const button = byId("send");
  const running = runs.has(state.chat.id);
  const label = running ? "Stop (Esc)" : "Send";
  if (button.ariaLabel !== label) {
    button.ariaLabel = label;
    button.title = label;
    button.replaceChildren(icon(running ? "stop" : "send"));
  }
  button.disabled = !running && !byId("draft").value.trim();
}

export function startComposer() {
  byId("draft").oninput = keepDraft;
  sendOnEnter(byId("draft"), send);
  byId("send").onclick = () => {
    if (runs.has(state.chat.id)) stop(state.chat);
    else send();
  };
}
