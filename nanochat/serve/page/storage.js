// The browser's storage. It may be full, or forbidden altogether: then a chat lives as long as its page, and
// we say so.

import { tell } from "./state.js";

function storageNamed(name) {
  try {
    return window[name];
  } catch {   // cookies are forbidden: already the access raises
    return {};
  }
}

const local = storageNamed("localStorage");
const session = storageNamed("sessionStorage");   // of this tab alone

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

export function deleteStored(key) {
  delete local[key];
}

export function storedKeys() {
  return Object.keys(local);
}

// What a tab keeps for itself, also over a reload: another may be writing something else.
export function readOfTab(key) {
  return session[key];
}

export function writeOfTab(key, value) {
  session[key] = value;
}
