// Keys that hold everywhere on the page. The message box has its own: see composer.js.

import { stop } from "./answers.js";
import { openChat } from "./conversation.js";
import { byId } from "./dom.js";
import { dismissDrawer, drawerIsOpen, toggleDrawer } from "./drawer.js";
import { state } from "./state.js";
import { newChat } from "./tree.js";

const WITH_CTRL = {   // on a Mac with the command key
  k: () => toggleDrawer(true),
  b: () => toggleDrawer(),
  "shift+o": () => openChat(newChat()),
};

export function onKey(event) {
  if (byId("settings").open) return;   // the dialog has its own, and closes by itself
  const name = (event.shiftKey ? "shift+" : "") + event.key.toLowerCase();
  if (event.key === "Escape") {
    if (drawerIsOpen()) dismissDrawer();
    else stop(state.chat);
  } else if ((event.ctrlKey || event.metaKey) && WITH_CTRL[name]) {
    event.preventDefault();
    WITH_CTRL[name]();
  }
}
