// Keeping the chats: in the browser's storage, and one as a file. Other tabs keep the same chats: what one writes,
// the others take over, and none takes away what another wrote.

import { element } from "./dom.js";
import { chats, runs } from "./state.js";
import { local, readStored, session, writeStored } from "./storage.js";
import { asMarkdown, deepest, merge, soundChat, titleOf } from "./tree.js";

const PREFIX = "nanochat.chat.";   // of the keys in the storage: a key for each chat
const DRAFT = "nanochat.draft.";   // of those that are this tab's own: another may be writing something else

const unsaved = new Set();   // chats whose draft only this tab has

/** Keep a chat; one that was deleted, or is empty, goes. */
export function save(chat) {
  unsaved.delete(chat);
  const isWanted = chats.has(chat.id) && (chat.messages.length || chat.draft);
  const stored = load(chat.id);
  if (stored) merge(chat, stored, () => false);
  if (isWanted) writeStored(PREFIX + chat.id, chat);
  else delete local[PREFIX + chat.id];
}

/** Keep what stands in the message box: in this tab at each key, for all when the chat is left. */
export function saveDraft(chat, draft) {
  chat.draft = draft;
  session[DRAFT + chat.id] = draft;
  unsaved.add(chat);
}

/** Answers that are being written, and drafts, are kept as far as they came. */
export function saveUnsaved() {
  for (const chat of chats.values()) {
    if (unsaved.has(chat) || runs.has(chat.id)) save(chat);
  }
}

export function loadAll() {
  for (const key of Object.keys(local)) reload(key);
  for (const chat of chats.values()) chat.draft = session[DRAFT + chat.id] ?? chat.draft;
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

export function exportMarkdown(chat) {
  const words = titleOf(chat).match(/[\p{L}\p{N}]+/gu) ?? ["chat"];
  const href = URL.createObjectURL(new Blob([asMarkdown(chat)]));
  element("a", { href, download: `${words.join("-")}.md` }).click();
}
