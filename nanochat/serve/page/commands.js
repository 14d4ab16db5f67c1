// Commands that begin with a slash, and the menu that completes them.

import { exportMarkdown } from "./chats.js";
import { openChat } from "./conversation.js";
import { byId, element } from "./dom.js";
import { keepSettings } from "./settings.js";
import { setting, state, tell } from "./state.js";
import { newChat } from "./tree.js";

const KEYS = `Enter sends, Shift+Enter starts a line, Esc stops an answer, ↑ edits the last question.
Ctrl+K searches, Ctrl+B shows the chats, Ctrl+Shift+O begins a new one.`;

// By name: what it does with what stands behind it, and in words. `wants` says that something has to.
const COMMANDS = {
  clear: { help: "a new chat; this one stays in the list", act: () => openChat(newChat()) },
  export: { help: "save this chat as Markdown", act: () => exportMarkdown(state.chat) },
  help: { help: "this list, and the keys", act: () => tell(helpText()) },
  system: { help: "what the model is to keep in mind", wants: "TEXT", act: setSystem },
  temperature: number("temperature", "from 0, the likeliest word, to 2, wild"),
  topk: number("top_k", "choose among so many tokens; 0 is all"),
};

const COMMAND = /^\/([a-z_-]+)(?:\s+([^]*))?$/i;   // "/usr/bin is a folder" is none, nor is one with a blank before it

/** Do what `draft` says if it is a command. "done", "wrong", which has been said, or undefined: it is none. */
export function obey(draft) {
  const [, name, value = ""] = draft.match(COMMAND) ?? [];
  if (!name) return undefined;
  const command = COMMANDS[name.toLowerCase().replace(/[_-]/g, "")];
  let problem;
  if (!command) problem = "is not a command; /help lists them. To send it as it is, put a blank before it";
  else if (value && !command.wants) problem = "stands alone, not before other words";
  else problem = command.act(value.trim(), name);
  if (problem) tell(`/${name} ${problem}.`, true);
  return problem ? "wrong" : "done";
}

/** A command that sets a number among the settings, or says what it is. */
function number(field, help) {
  const act = (value, name) => {
    const { min, max } = byId(field);   // the limits of the settings' own field
    const wrong = !(+value >= +min && +value <= +max);   // so that what is no number is out, too
    if (value && wrong) return `wants a number from ${min} to ${max}, not ${value}`;
    if (value) keepSettings({ [field]: byId(field).step === "1" ? Math.round(value) : +value });
    tell(`/${name} is ${setting(field) ?? "not set"}.`);
    return undefined;
  };
  return { help, wants: "NUMBER", act };
}

function setSystem(value) {
  keepSettings({ system: value });
  tell(value ? "The model keeps that in mind, in all chats." : "There is no system prompt now.");
}

function helpText() {
  const lines = Object.entries(COMMANDS).map(([name, { wants = "", help }]) => `/${name} ${wants}: ${help}`);
  return [...lines, KEYS].join("\n").replaceAll(" :", ":");
}

// ---- the menu, above the message box while the name of a command is being written
let chosen = 0;

function found() {
  const begun = byId("draft").value.match(/^\/([a-z]*)$/i)?.[1].toLowerCase();
  return begun === undefined ? [] : Object.keys(COMMANDS).filter(name => name.startsWith(begun));
}

export function drawMenu() {
  const names = found();
  chosen = Math.min(chosen, Math.max(0, names.length - 1));
  const rows = names.map((name, index) => {
    const onmousedown = event => pick(event, name);
    const attributes = { id: `command-${name}`, role: "option", "aria-selected": index === chosen, onmousedown };
    return element("li", attributes, element("b", `/${name}`), ` ${COMMANDS[name].help}`);
  });
  byId("commands").replaceChildren(...rows);
  byId("commands").hidden = !names.length;
  byId("draft").setAttribute("aria-activedescendant", names.length ? `command-${names[chosen]}` : "");
  rows[chosen]?.scrollIntoView({ block: "nearest" });
}

/** Write the name into the box; a command that wants nothing more is done with Enter. */
function complete(name) {
  const { wants } = COMMANDS[name];
  byId("draft").value = wants ? `/${name} ` : `/${name}`;
  byId("draft").dispatchEvent(new Event("input"));
}

function pick(event, name) {
  event.preventDefault();   // else the box would lose the focus
  complete(name);
}

/** A key in the message box. True: it was for the menu. */
export function menuTakes({ key }) {
  const names = found();
  if (!names.length) return false;
  const name = names[chosen];
  if (key === "ArrowDown" || key === "ArrowUp") {
    chosen = (chosen + (key === "ArrowDown" ? 1 : names.length - 1)) % names.length;
    drawMenu();
  } else if (key === "Tab") {
    complete(name);
  } else if (key === "Enter" && byId("draft").value !== `/${name}`) {
    complete(name);
    return !!COMMANDS[name].wants;   // else Enter goes on to do it
  } else {
    return false;
  }
  return true;
}
