// The chat page: where it starts, and how its parts are connected. No build step and no library: these are
// the files that the browser runs. Each imports only from those before it in this list:
//
//   dom.js            elements, pictures, buttons
//   state.js          what the parts share, and redraw()
//   storage.js        the browser's storage
//   tree.js           a chat as a tree of messages
//   chats.js          keeping chats, in the storage and in files
//   api.js            requests and server-sent events
//   settings.js       what the user has chosen, and the dialog
//   address.js        each chat's own address
//   stream.js         from a chat to a request, from the stream to a message
//   scroll.js         following an answer down
//   answers.js        asking the model, and what may go wrong
//   inline.js, markdown.js    an answer's text, as elements
//   probabilities.js  an answer's tokens
//   messages.js       one message
//   drawer.js         whether the list of chats is shown
//   conversation.js   the open chat
//   sidebar.js        the list of chats
//   chart.js, compare.js, run.js    the run: curves, all stages side by side, what else there is to see
//   commands.js       /commands, and their menu
//   notice.js, composer.js, gauge.js    what stands around the conversation
//   keys.js           keys that hold everywhere

import { chatOfAddress, onAddress, RUN } from "./address.js";
import { meetModels } from "./answers.js";
import { loadAll, reload, saveUnsaved } from "./chats.js";
import { drawComposer, startComposer } from "./composer.js";
import { drawConversation, openChat } from "./conversation.js";
import { byId, icon } from "./dom.js";
import { startDrawer } from "./drawer.js";
import { drawGauge } from "./gauge.js";
import { onKey } from "./keys.js";
import { drawNotice } from "./notice.js";
import { drawRun, showRun, startRun } from "./run.js";
import { startScroll } from "./scroll.js";
import { KEY, keepSettings, readSettings, startSettings } from "./settings.js";
import { drawSidebar, startSidebar } from "./sidebar.js";
import { chats, onRedraw, redraw, state, tell } from "./state.js";
import { newChat } from "./tree.js";

function startHeader() {
  for (const button of document.querySelectorAll("header button")) {
    button.prepend(icon(button.id));
    button.title = button.ariaLabel;
  }
  byId("new").onclick = () => openChat(newChat());
  byId("sure").onclick = () => {
    keepSettings({ odds: !state.settings.odds });
    if (state.settings.odds) tell("New answers show how sure the model was of each token.");
    else tell("Token probabilities are off.");
  };
}

function drawHeader() {
  byId("sure").ariaPressed = !!state.settings.odds;
}

/** Two tabs may show the same chats: what one writes, the other takes over. */
function onStorage({ key }) {
  if (key === KEY) readSettings();
  else reload(key);
  if (chats.has(state.chat.id)) redraw();
  else openChat(newChat());   // it was deleted there
}

startSettings(() => {
  if (!state.model) meetModels();   // perhaps the API key is right now
});
startHeader();
startDrawer();
startScroll();
startSidebar();
startComposer();
startRun();
const drawers = [drawConversation, drawNotice, drawSidebar, drawComposer, drawGauge, drawHeader, drawRun];
for (const draw of drawers) onRedraw(draw);
addEventListener("keydown", onKey);
addEventListener("storage", onStorage);
addEventListener("pagehide", saveUnsaved);

loadAll();
const asked = location.hash;
openChat(chatOfAddress() ?? newChat(), true);
if (asked === RUN) showRun(true);
onAddress(chat => openChat(chat ?? newChat(), true), () => showRun(true));
meetModels();
