// Each chat has an address of its own, page#id: the back button leads to the one before, a reload and a bookmark
// to the same.

import { chats, state } from "./state.js";

/** Let the address be the open chat's. An empty chat has none yet: with its first words it gets one. */
export function showAddress(chat, isSame = false) {
  const wanted = chat.messages.length || chat.draft ? `#${encodeURIComponent(chat.id)}` : "";
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

/** Let `open` be called when the user has gone back or on. */
export function onAddress(open) {
  addEventListener("popstate", () => {
    if (chatOfAddress() !== state.chat) open(chatOfAddress());
  });
}
