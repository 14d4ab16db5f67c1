// A chat as a tree of messages; no elements and no storage here.
//
// Each message {id, role, content, up} names the one before it by its index: `up`, -1 for none. Two messages with
// the same `up` are versions of each other: a question that was edited, an answer that was asked for again.
// `tip` is the last message shown; from it the path leads up. The model reads on from the last message marked
// `first`, if the chat has outgrown it. A user's content is a text, an answer's is a list of parts: {type:
// "text" | "python" | "python_output", text}. It may have `odds`, its tokens: [text, log-probability, [[another
// text, its log-probability], ...]] each; `rating`, "up" or "down"; `note`, a word about how it ended.

export function newId() {
  return Math.random().toString(36).slice(2);
}

/** The indices of the messages shown, oldest first; or of those that lead to the message `tip`. */
export function pathOf(chat, tip = chat.tip) {
  const found = [];
  for (let index = tip; index >= 0; index = chat.messages[index].up) found.unshift(index);
  return found;
}

export function messagesOf(chat, tip) {
  return pathOf(chat, tip).map(index => chat.messages[index]);
}

/** The indices of the message and of its other versions, oldest first. */
export function versionsOf(chat, index) {
  const { up } = chat.messages[index];
  return [...chat.messages.keys()].filter(other => chat.messages[other].up === up);
}

/** From this message on down along the newest versions: the index of the last. */
export function deepest(chat, index) {
  while (true) {
    const next = chat.messages.findLastIndex(message => message.up === index);
    if (next < 0) return index;
    index = next;
  }
}

/** Those of the messages shown that the model is given. */
export function remembered(chat) {
  const shown = messagesOf(chat);
  const start = shown.findLastIndex(message => message.first);
  return shown.slice(Math.max(0, start));
}

/** Give the model the oldest question and answer no longer. False: no other exchange follows them. */
export function forgetOldest(chat) {
  const next = remembered(chat)[2];
  if (next) next.first = true;
  return !!next;
}

export function textOf(message) {
  if (message.role === "user") return message.content;
  const texts = message.content.filter(part => part.type === "text").map(part => part.text);
  return texts.join("").trim();
}

export function asMarkdown(chat) {
  const parts = [`# ${titleOf(chat)}`];
  for (const { role, content } of messagesOf(chat)) {
    if (role === "user") parts.push("## You", content);
    else parts.push("## nanochat", content.map(part => AS_MARKDOWN[part.type](part.text)).join("").trim());
  }
  return `${parts.join("\n\n")}\n`;
}

const AS_MARKDOWN = {
  text: text => text,
  python: text => `\`${text}\``,
  python_output: text => ` = \`${text}\` `,   // 2 * 3 = 6
};

export function titleOf(chat) {
  const question = chat.messages.find(message => message.role === "user");
  const beginning = (question?.content ?? chat.draft).trim().slice(0, 80);
  return chat.title || beginning || "New chat";
}

export function newChat() {
  return soundChat({ messages: [] });
}

/**
 * Take into `chat` what another tab added to it: messages go in, and none goes out. Of those that both have,
 * the other's version holds where takesOver(message) says so.
 */
export function merge(chat, other, takesOver) {
  const places = new Map(chat.messages.map((message, index) => [message.id, index]));
  const answered = new Set(other.messages.map(message => message.up));
  for (const [index, message] of other.messages.entries()) {
    const up = message.up < 0 ? -1 : places.get(other.messages[message.up].id);
    const known = chat.messages[places.get(message.id)];
    const isBegun = message.content.length || answered.has(index);   // else it is still being written, or failed
    if (known && takesOver(known)) Object.assign(known, message, { up });
    else if (!known && isBegun) places.set(message.id, chat.messages.push({ ...message, up }) - 1);
  }
}

/** A chat made of what the storage held, perhaps by an older version of this page. Raises unless it is one. */
export function soundChat({ id = newId(), title = "", draft = "", changed = 0, messages, tip }) {
  const chat = { id, title, draft, changed, messages: messages.map(soundMessage) };   // `changed`: ms since 1970
  chat.tip = chat.messages[tip] ? tip : deepest(chat, -1);
  return chat;
}

function soundMessage({ content, ...rest }, index) {
  const isUser = rest.role === "user";
  const parts = isUser ? content : [content].flat().map(part => part.type ? part : { type: "text", text: part });
  return { id: String(index), up: index - 1, ...rest, content: parts };
}
