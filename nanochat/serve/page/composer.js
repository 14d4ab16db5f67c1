// The message box: drafts, sending, stopping.

import { showAddress } from "./address.js";
import { stop, submit } from "./answers.js";
import { save, saveDraft } from "./chats.js";
import { drawMenu, menuTakes, obey } from "./commands.js";
import { byId, growToFit, icon, sendOnEnter } from "./dom.js";
import { editLast } from "./messages.js";
import { redraw, runs, state } from "./state.js";

function send() {
  const { chat } = state;
  const draft = byId("draft").value;
  const text = draft.trim();
  if (!text || runs.has(chat.id)) return;
  const obeyed = obey(draft.trimEnd());
  if (obeyed === "wrong") return;   // it stays in the box, to be mended
  saveDraft(chat, "");
  save(chat);
  byId("draft").value = state.chat.draft;   // after /clear another chat is open
  growToFit(byId("draft"));
  if (obeyed) redraw();
  else submit(chat, text);
  showAddress(state.chat, true);
}

function keepDraft() {
  const { chat } = state;
  saveDraft(chat, byId("draft").value);
  showAddress(chat, true);
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
  drawMenu();
}

function takes(event) {
  if (menuTakes(event)) return true;
  if (event.key !== "ArrowUp" || byId("draft").value) return false;
  editLast();
  return true;
}

export function startComposer() {
  byId("draft").oninput = keepDraft;
  sendOnEnter(byId("draft"), send, takes);
  byId("send").onclick = () => {
    if (runs.has(state.chat.id)) stop(state.chat);
    else send();
  };
}
