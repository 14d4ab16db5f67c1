// Keeping the chats: in the browser's storage, and in files that a user takes along.

import { element } from "./dom.js";
import { chats, redraw, runs, state, tell } from "./state.js";
import { deleteStored, readOfTab, readStored, storedKeys, writeOfTab, writeStored } from "./storage.js";
import { newId, soundChat } from "./tree.js";

const PREFIX = "nanochat.chat.";   // of the keys in the storage: a key for each chat

/** Keep a chat; one that was deleted, or is empty, goes. */
export function save(chat) {
  const wanted = chats.has(chat.id) && (chat.messages.length || chat.draft);
  if (wanted) writeStored(PREFIX + chat.id, chat);
  else deleteStored(PREFIX + chat.id);
}

export function loadAll() {
  for (const key of storedKeys()) {
    if (key.startsWith(PREFIX)) load(key.slice(PREFIX.length));
  }
}

function load(id) {
  try {
    chats.set(id, soundChat(readStored(PREFIX + id)));
  } catch {
    // What cannot be read is not shown, but stays in the storage: a newer version of this page may know it.
  }
}

/** Another tab has written `key`: read it again. Returns the chat's id, or undefined. */
export function reload(key) {
  if (!key?.startsWith(PREFIX)) return undefined;
  const id = key.slice(PREFIX.length);
  if (runs.has(id)) return undefined;   // an answer is being written here: what we save in the end holds
  chats.delete(id);
  if (readStored(key)) load(id);
  return id;
}

export function chatOfTab() {
  return chats.get(readOfTab(PREFIX));
}

export function rememberChatOfTab(chat) {
  writeOfTab(PREFIX, chat.id);
}

export function exportChats() {
  const kept = [...chats.values()].filter(chat => chat.messages.length);
  const file = new Blob([JSON.stringify({ chats: kept })]);
  element("a", { href: URL.createObjectURL(file), download: "nanochat.json" }).click();
}

/** Take in the chats of a file that exportChats wrote, or of a list of chats, or of one chat. */
export async function importChats(file) {
  let found;
  try {
    const data = JSON.parse(await file.text());
    found = [data.chats ?? data].flat().map(soundChat);
  } catch {
    tell(`${file.name} holds no chats that can be read here.`, true);
    return;
  }
  const added = found.filter(isNew);
  tell(`Chats imported: ${added.length}.`);   // before saving, which may have to say that the storage is full
  for (const chat of added) {
    if (chats.has(chat.id)) chat.id = newId();   // the same chat went on here and elsewhere: both are kept
    chats.set(chat.id, chat);
    save(chat);
  }
  redraw();
}

function isNew(chat) {
  const known = chats.get(chat.id);
  return !known || JSON.stringify(soundChat(known)) !== JSON.stringify(chat);
}

/** Answers that are being written when the page closes are kept as far as they came. */
export function saveRunning() {
  for (const id of runs.keys()) save(chats.get(id));
}
