// The message box: drafts, sending, stopping. Above it a notice, of what went wrong or of what a command did; below it
// how much of the model's context the chat fills.

import { stop, submit } from "./answers.js";
import { save, saveDraft } from "./chats.js";
import { drawMenu, menuTakes, obey } from "./commands.js";
import { showAddress } from "./conversation.js";
import { byId, element, growToFit, icon, iconButton, sendOnEnter } from "./dom.js";
import { editLast } from "./messages.js";
import { redraw, runs, state } from "./state.js";
import { messagesOf } from "./tree.js";

const box = byId("draft");

function send() {
  const { chat } = state;
  const text = box.value.trim();
  if (!text || runs.has(chat.id)) return;
  const obeyed = obey(box.value.trimEnd());
  if (obeyed === "wrong") return;   // it stays in the box, to be mended
  saveDraft(chat, "");
  save(chat);
  box.value = state.chat.draft;   // after /clear another chat is open
  growToFit(box);
  if (obeyed) redraw();
  else submit(chat, text);
  showAddress(true);
}

function keepDraft() {
  saveDraft(state.chat, box.value);
  showAddress(true);
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
  button.disabled = !running && !box.value.trim();
  drawMenu();
}

let shown = null;   // the notice

export function drawNotice() {
  const { notice } = state;
  if (notice === shown) return;   // an alert that is drawn again would be heard again
  shown = notice;
  byId("notice").replaceChildren(...notice ? [drawOne(notice)] : []);
}

function drawOne({ text, bad, label, act }) {
  const node = element(bad ? "div.notice.error" : "div.notice", { role: bad ? "alert" : "status" });
  node.append(element("span", text));
  if (label) node.append(element("button.primary", { onclick: act }, label));
  node.append(iconButton("close", "Dismiss", dismiss));
  return node;
}

function dismiss() {
  state.notice = null;
  drawNotice();
  box.focus();
}

/** A model reads at most so many tokens, question and answer together; the server counts them with every answer. */
export function drawGauge() {
  const { chat, model } = state;
  const used = messagesOf(chat).findLast(message => message.used)?.used;
  byId("gauge").textContent = used && model ? `${used} of ${model.max_model_len} tokens` : "";
}

function takes(event) {
  if (menuTakes(event)) return true;
  if (event.key !== "ArrowUp" || box.value) return false;
  editLast();
  return true;
}

box.oninput = keepDraft;
sendOnEnter(box, send, takes);
byId("send").onclick = () => {
  if (runs.has(state.chat.id)) stop(state.chat);
  else send();
};
