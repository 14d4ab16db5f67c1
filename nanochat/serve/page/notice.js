// The line above the message box: an error with a button that mends it, a word about a command, a hint.

import { askAgain } from "./answers.js";
import { byId, element, iconButton } from "./dom.js";
import { runs, state, troubles } from "./state.js";

let shown;

/** What the page has to say comes first, then this chat's trouble, then a hint; or undefined. */
function currentNotice() {
  return state.notice ?? troubles.get(state.chat.id) ?? hint();
}

/** A question may have lost its answer: the page was closed at once, or the server was away. */
function hint() {
  const { chat } = state;
  const unanswered = chat.messages[chat.tip]?.role === "user";
  if (!unanswered || state.hintClosed || !state.model || runs.has(chat.id)) return undefined;
  return { text: "This message has no answer yet.", label: "Ask again", act: () => askAgain(chat, chat.tip) };
}

export function drawNotice() {
  const notice = currentNotice();
  if (notice === shown) return;   // an alert that is drawn again would be heard again
  shown = notice;
  byId("notice").replaceChildren(...notice ? [drawOne(notice)] : []);
}

function drawOne({ text, bad, label, act }) {
  const node = element(bad ? "div.notice.error" : "div.notice", { role: bad ? "alert" : "status" });
  node.append(element("span", text));
  if (label) node.append(element("button.primary", { onclick: act }, label));
  node.append(iconButton("close", "Dismiss", close));
  return node;
}

function close() {
  if (state.notice) {
    state.notice = null;   // the trouble that it hid shows again
  } else {
    troubles.delete(state.chat.id);
    state.hintClosed = true;
  }
  drawNotice();
  byId("draft").focus();
}
