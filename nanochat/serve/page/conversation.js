// The open chat: its messages in the log, or the welcome of an empty one.

import { submit } from "./answers.js";
import { showAddress } from "./address.js";
import { save } from "./chats.js";
import { byId, element, growToFit } from "./dom.js";
import { closeDrawer } from "./drawer.js";
import { drawMessage, messageKey } from "./messages.js";
import { scrollToBottom } from "./scroll.js";
import { chats, redraw, runs, state } from "./state.js";
import { pathOf } from "./tree.js";

const IDEAS = [
  "Who are you?",
  "What is 47 * 12?",
  "Why is the sky blue?",
  "How many letters are in banana?",
  "Tell me a story.",
];

let drawn = new Map();   // the nodes in the log, by a key that says all that each depends on

/** With `isSame` the address in the bar makes room for this chat's; else the back button leads to it. */
export function openChat(chat, isSame = false) {
  const before = state.chat;
  if (before && before !== chat) save(before);   // its draft
  chats.set(chat.id, chat);
  state.chat = chat;
  state.isRun = false;
  state.notice = null;
  state.hintClosed = false;
  state.editing = null;
  showAddress(chat, isSame);
  byId("draft").value = chat.draft;
  growToFit(byId("draft"));
  byId("log").ariaLive = "off";   // what was said before is no news to a screen reader
  redraw();
  scrollToBottom();
  requestAnimationFrame(() => {
    byId("log").ariaLive = "polite";
  });
  closeDrawer();
  byId("draft").focus();
}

/** What has not changed keeps its node: the page stays still, and a screen reader hears only what is new. */
export function drawConversation() {
  const { chat } = state;
  const before = drawn;
  drawn = new Map();
  const place = (key, make) => drawn.set(key, before.get(key) ?? make());
  const shown = pathOf(chat);
  const cut = shown.findLast(index => chat.messages[index].first);
  for (const index of shown) {
    if (index === cut) place(`${chat.id} cut ${index}`, drawCut);
    place(messageKey(chat, index), () => drawMessage(chat, index));
  }
  if (!shown.length) place(`welcome ${ideas().join()}`, drawWelcome);
  byId("log").ariaBusy = runs.has(chat.id);
  putInto(byId("log"), drawn.values());
}

/** Let the children of `parent` be `nodes`, and touch only those that are not in their place. */
function putInto(parent, nodes) {
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {   // what is left was there before, and is no more
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function drawCut() {
  return element("div.cut", "The model no longer remembers what is above");
}

/** What one could ask: questions that this model is known to answer, else some that most can. */
function ideas() {
  const known = state.model?.suggestions ?? [];
  return known.length ? known : IDEAS;
}

function drawWelcome() {
  const buttons = ideas().map(idea => element("button", { onclick: () => submit(state.chat, idea) }, idea));
  return element("section", { id: "welcome" },
    document.querySelector(".mark").cloneNode(true),
    element("h2", "What would you like to talk about?"),
    element("p", "A language model, trained from nothing on one machine."),
    element("div", { id: "ideas" }, ...buttons));
}
