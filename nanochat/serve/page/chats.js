// Keeping the chats: in the browser's storage, and in files that a user takes along. Other tabs keep the same
// chats: what one writes, the others take over, and none takes away what another wrote.

import { element } from "./dom.js";
import { chats, redraw, runs, tell } from "./state.js";
import { deleteStored, readOfTab, readStored, storedKeys, writeOfTab, writeStored } from "./storage.js";
import { asMarkdown, deepest, merge, newId, soundChat, titleOf } from "./tree.js";

const PREFIX = "nanochat.chat.";   // of the keys in the storage: a key for each chat
const DRAFT = "nanochat.draft.";   // of those that are this tab's own

const unsaved = new Set();   // chats whose draft only this tab has

/** Keep a chat; one that was deleted, or is empty, goes. */
export function save(chat) {
  unsaved.delete(chat);
  const wanted = chats.has(chat.id) && (chat.messages.length || chat.draft);
  if (!wanted) {
    deleteStored(PREFIX + chat.id);
    return;
  }
  const stored = load(chat.id);
  if (stored) merge(chat, stored, () => false);
  writeStored(PREFIX + chat.id, chat);
}

/** Keep what stands in the message box: in this tab at each key, for all when the chat is left. */
export function saveDraft(chat, draft) {
  chat.draft = draft;
  writeOfTab(DRAFT + chat.id, draft);
  unsaved.add(chat);
}

/** Answers that are being written, and drafts, are kept as far as they came. */
export function saveUnsaved() {
  const running = [...runs.keys()].map(id => chats.get(id)).filter(Boolean);
  for (const chat of new Set([...unsaved, ...running])) save(chat);
}

export function loadAll() {
  for (const key of storedKeys()) {
    if (!key.startsWith(PREFIX)) continue;
    const chat = load(key.slice(PREFIX.length));
    if (!chat) continue;
    chat.draft = readOfTab(DRAFT + chat.id) ?? chat.draft;
    chats.set(chat.id, chat);
  }
}

/** What cannot be read is not shown, but stays in the storage: a newer version of this page may know it. */
function load(id) {
  try {
    return { ...soundChat(readStored(PREFIX + id)), id };
  } catch {
    return undefined;
  }
}

/** Another tab has written `key`: take it over. Drafts stay, and so does an answer that is being written here. */
export function reload(key) {
  if (!key?.startsWith(PREFIX)) return;
  const id = key.slice(PREFIX.length);
  const chat = chats.get(id);
  const other = load(id);
  const running = runs.get(id)?.message;
  if (chat && other) {
    merge(chat, other, message => message !== running);
    if (!running) chat.tip = deepest(chat, chat.tip);
    Object.assign(chat, { title: other.title, changed: other.changed });
  } else if (other) {
    chats.set(id, other);
  } else if (!running) {
    chats.delete(id);
  }
}

export function exportChats() {
  const kept = [...chats.values()].filter(chat => chat.messages.length);
  download("nanochat.json", JSON.stringify({ chats: kept }));
}

export function exportMarkdown(chat) {
  const name = titleOf(chat).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  download(`${name || "chat"}.md`, asMarkdown(chat));
}

function download(name, text) {
  element("a", { href: URL.createObjectURL(new Blob([text])), download: name }).click();
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
