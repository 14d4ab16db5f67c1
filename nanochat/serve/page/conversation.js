// The open chat: its messages in the log, or the welcome of an empty one; and its address, page#id: the back button
// leads to the chat before, a reload and a bookmark to the same.

import { submit } from "./answers.js";
import { save } from "./chats.js";
import { byId, element, growToFit } from "./dom.js";
import { closeDrawer } from "./drawer.js";
import { drawMessage, messageKey } from "./messages.js";
import { scrollToBottom } from "./scroll.js";
import { chats, redraw, runs, state } from "./state.js";
import { pathOf } from "./tree.js";

const IDEAS = ["Who are you?", "What is 47 * 12?", "Why is the sky blue?", "Tell me a story."];

const box = byId("draft");
const log = byId("log");
let drawn = new Map();   // the nodes in the log, by a key that says all that each depends on

export const RUN = "#run";

/** Let the address be the open chat's. An empty chat has none yet: with its first words it gets one. */
export function showAddress(isSame) {
  const { chat } = state;
  const ofChat = chat.messages.length || chat.draft ? `#${chat.id}` : "";
  const wanted = state.isRun ? RUN : ofChat;
  if (location.hash === wanted) return;
  const address = location.pathname + location.search + wanted;
  if (isSame) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

export function chatOfAddress() {
  return chats.get(location.hash.slice(1));
}

/** With `isSame` the address in the bar makes room for this chat's; else the back button leads to it. */
export function openChat(chat, isSame) {
  const before = state.chat;
  if (before && before !== chat) save(before);   // its draft
  chats.set(chat.id, chat);
  Object.assign(state, { chat, isRun: false, notice: null, editing: null });
  showAddress(isSame);
  box.value = chat.draft;
  growToFit(box);
  log.ariaLive = "off";   // what was said before is no news to a screen reader
  redraw();
  scrollToBottom();
  requestAnimationFrame(() => {
    log.ariaLive = "polite";
  });
  closeDrawer();
  box.focus();
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
    if (index === cut) place(`${chat.id} cut`, () => element("div.cut", "The model no longer remembers what is above"));
    place(messageKey(chat, index), () => drawMessage(chat, index));
  }
  if (!shown.length) place(`welcome ${ideas().join()}`, drawWelcome);
  log.ariaBusy = runs.has(chat.id);
  putIntoLog([...drawn.values()]);
}

/** What is no more goes, and what is new comes to its place; the others are not touched. */
function putIntoLog(nodes) {
  for (const node of [...log.children]) {
    if (!nodes.includes(node)) node.remove();
  }
  for (const [index, node] of nodes.entries()) {
    if (log.children[index] !== node) log.insertBefore(node, log.children[index]);
  }
}

/** What one could ask: questions that this model is known to answer, else some that most can. */
function ideas() {
  const known = state.model?.suggestions ?? [];
  return known.length ? known : IDEAS;
}

function drawWelcome() {
  const buttons = ideas().map(idea => element("button", { onclick: () => submit(state.chat, idea) }, idea));
  return element("section", { id: "welcome" },
    element("h2", "What would you like to talk about?"),
    element("div", { id: "ideas" }, ...buttons));
}
