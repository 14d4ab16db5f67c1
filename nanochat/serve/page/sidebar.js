// The list of chats: finding, opening, renaming and deleting them. Whether it is shown, drawer.js says.

import { stop } from "./answers.js";
import { exportMarkdown, save } from "./chats.js";
import { openChat } from "./conversation.js";
import { byId, element, iconButton } from "./dom.js";
import { chats, state, tell } from "./state.js";
import { newChat, textOf, titleOf } from "./tree.js";

export function drawSidebar() {
  if (byId("chats").querySelector("input")) return;   // a name is being written there
  const wanted = byId("search").value.trim().toLowerCase();
  const found = [...chats.values()].filter(chat => isListed(chat) && matches(chat, wanted));
  found.sort((one, other) => other.changed - one.changed);
  byId("chats").replaceChildren(...found.map(drawRow));
  if (found.length) return;
  const text = wanted ? "Nothing found." : "Your chats will be kept here.";
  byId("chats").append(element("li", text));
}

function isListed(chat) {
  return chat.messages.length || chat.draft.trim();
}

function matches(chat, wanted) {
  const text = [titleOf(chat), ...chat.messages.map(textOf)].join("\n");
  return text.toLowerCase().includes(wanted);
}

function drawRow(chat) {
  const title = titleOf(chat);
  const isOpen = chat === state.chat;
  const rename = () => actions.parentNode.replaceChildren(drawNameField(chat));
  const actions = element("div.acts",
    iconButton("edit", `Rename ${title}`, rename),
    iconButton("save", `Save ${title} as Markdown`, () => exportMarkdown(chat)),
    iconButton("bin", `Delete ${title}`, () => remove(chat)));
  return element(isOpen ? "li.chat.here" : "li.chat",
    element("button", { dir: "auto", "aria-current": isOpen, onclick: () => openChat(chat) }, title),
    actions);
}

/** Its name in the place of the chat, to be written anew: Enter or leaving it keeps that, Escape does not. */
function drawNameField(chat) {
  const finish = isKept => {
    field.onblur = null;   // it goes, and would be left once more
    if (isKept) chat.title = field.value.trim();
    save(chat);
    const row = drawRow(chat);
    field.parentNode.replaceWith(row);   // this row alone: another one may just be clicked
    return row;
  };
  const onkeydown = event => {
    event.stopPropagation();
    if (event.key === "Enter" || event.key === "Escape") finish(event.key === "Enter").firstChild.focus();
  };
  const onblur = () => finish(true);
  const field = element("input", { "aria-label": "Name of this chat", dir: "auto", onkeydown, onblur });
  field.value = titleOf(chat);
  requestAnimationFrame(() => field.select());
  return field;
}

function remove(chat) {
  stop(chat);
  chats.delete(chat.id);
  save(chat);
  if (chat === state.chat) openChat(newChat());
  tell(`"${titleOf(chat)}" is deleted.`, false, "Undo", () => {
    openChat(chat);
    save(chat);
  });
}

export function startSidebar() {
  byId("search").oninput = drawSidebar;
}
