// Each chat has an address of its own, page#id: the back button leads to the one before, a reload and a bookmark
// to the same.

import { chats, state } from "./state.js";

export const RUN = "#run";

/** Let the address be the open chat's. An empty chat has none yet: with its first words it gets one. */
export function showAddress(chat, isSame = false) {
  const ofChat = chat.messages.length || chat.draft ? `#${encodeURIComponent(chat.id)}` : "";
  const wanted = state.isRun ? RUN : ofChat;
  if (location.hash === wanted) return;
  const address = location.pathname + location.search + wanted;
  if (isSame) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

/** The chat that the address names, if it is kept here. */
export function chatOfAddress() {
  const id = decodeURIComponent(location.hash.slice(1));
  return chats.get(id);
}

/** Let `open` or `openRun` be called when the user has gone back or on. */
export function onAddress(open, openRun) {
  addEventListener("popstate", () => {
    if (location.hash === RUN) openRun();
    else if (state.isRun || chatOfAddress() !== state.chat) open(chatOfAddress());
  });
}
