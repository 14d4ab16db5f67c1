// The list of chats: finding, opening, renaming and deleting them. Whether it is shown, drawer.js says.

import { stop } from "./answers.js";
import { exportMarkdown, save } from "./chats.js";
import { openChat } from "./conversation.js";
import { byId, element, iconButton } from "./dom.js";
import { chats, state, tell } from "./state.js";
import { newChat, textOf, titleOf } from "./tree.js";

const list = byId("chats");

export function drawSidebar() {
  if (list.querySelector("input")) return;   // a name is being written there
  const wanted = byId("search").value.trim().toLowerCase();
  const found = [...chats.values()].filter(chat => isFound(chat, wanted));
  found.sort((one, other) => other.changed - one.changed);
  list.replaceChildren(...found.map(drawRow));
  if (!found.length) list.append(element("li", wanted ? "Nothing found." : "Your chats will be kept here."));
}

/** Whether it holds the words; a chat without any message or draft is not listed. */
function isFound(chat, wanted) {
  const texts = [chat.title, chat.draft, ...chat.messages.map(textOf)];
  const text = texts.join("\n").trim().toLowerCase();
  return text && text.includes(wanted);
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

byId("search").oninput = drawSidebar;
