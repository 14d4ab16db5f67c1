// The chat page: where it starts, and how its parts are connected. No build step and no library: these are
// the files that the browser runs. Each begins with what it is for, and imports only from those before it in
// this list:
//
//   what the parts share: dom, state, storage
//   chats and the server: tree, chats, api, settings, stream, scroll, answers
//   a conversation: markdown, probabilities, messages, drawer, conversation, sidebar
//   the run: chart, compare, run
//   the message box: commands, composer

import { meetModels, stop } from "./answers.js";
import { loadAll, reload, saveUnsaved } from "./chats.js";
import { drawComposer, drawGauge, drawNotice } from "./composer.js";
import { chatOfAddress, drawConversation, openChat, RUN } from "./conversation.js";
import { byId, icon } from "./dom.js";
import { dismissDrawer, toggleDrawer } from "./drawer.js";
import { drawRun, showRun } from "./run.js";
import { KEY, keepSettings, readSettings } from "./settings.js";
import { drawSidebar } from "./sidebar.js";
import { chats, drawers, redraw, state, tell } from "./state.js";
import { newChat } from "./tree.js";

/** Two tabs may show the same chats: what one writes, the other takes over. */
function onStorage({ key }) {
  if (key === KEY) readSettings();
  else reload(key);
  if (chats.has(state.chat.id)) redraw();
  else openChat(newChat());   // it was deleted there
}

/** Show what the address names: the run, a chat, or else a new one. */
function followAddress() {
  const isRun = location.hash === RUN;
  if (!isRun || !state.chat) openChat(chatOfAddress() ?? newChat(), true);
  if (isRun) showRun(true);
}

// Keys that hold everywhere, with Ctrl or on a Mac the command key. The message box has its own: see composer.js.
const WITH_CTRL = {
  k: () => toggleDrawer(true),
  b: () => toggleDrawer(),
  "shift+o": () => openChat(newChat()),
};

function onKey(event) {
  if (byId("settings").open) return;   // the dialog has its own, and closes by itself
  const name = (event.shiftKey ? "shift+" : "") + event.key.toLowerCase();
  if (event.key === "Escape") {
    if (byId("room").inert) dismissDrawer();
    else stop(state.chat);
  } else if ((event.ctrlKey || event.metaKey) && WITH_CTRL[name]) {
    event.preventDefault();
    WITH_CTRL[name]();
  }
}

for (const button of document.querySelectorAll("header button")) {
  button.prepend(icon(button.id));
  button.title = button.ariaLabel;
}
byId("new").onclick = () => openChat(newChat());
byId("sure").onclick = () => {
  const odds = !state.settings.odds;
  keepSettings({ odds });
  tell(odds ? "New answers show how sure the model was of each token." : "Token probabilities are off.");
};
byId("settings").onclose = () => {
  byId("draft").focus();
  redraw();
  if (!state.model) meetModels();   // perhaps the API key is right now
};
drawers.push(drawConversation, drawNotice, drawSidebar, drawComposer, drawGauge, drawRun);
addEventListener("keydown", onKey);
addEventListener("storage", onStorage);
addEventListener("popstate", followAddress);
addEventListener("pagehide", saveUnsaved);

loadAll();
followAddress();
meetModels();
