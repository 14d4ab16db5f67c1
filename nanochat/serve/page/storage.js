// The browser's storage. It may be full, or forbidden altogether: then a chat lives as long as its page, and
// we say so.

import { tell } from "./state.js";

export const local = storageNamed("localStorage");
export const session = storageNamed("sessionStorage");   // of this tab alone, also over a reload

function storageNamed(name) {
  try {
    return window[name];
  } catch {   // cookies are forbidden: already the access raises
    return {};
  }
}

export function readStored(key) {
  try {
    return JSON.parse(local.getItem(key));
  } catch {
    return null;
  }
}

export function writeStored(key, value) {
  try {
    local.setItem(key, JSON.stringify(value));
  } catch {
    tell("This browser's storage is full or off. Save your chats as Markdown before you leave.", true);
  }
}
