// Commands that begin with a slash, and the menu that completes them.

import { exportMarkdown } from "./chats.js";
import { openChat } from "./conversation.js";
import { byId, element } from "./dom.js";
import { keepSettings } from "./settings.js";
import { setting, state, tell } from "./state.js";
import { newChat } from "./tree.js";

const KEYS = `Enter sends, Shift+Enter starts a line, Esc stops an answer, ↑ edits the last question.
Ctrl+K searches, Ctrl+B shows the chats, Ctrl+Shift+O begins a new one.`;

// By name: what it does, in words, and either how or which number among the settings it sets.
const COMMANDS = {
  clear: { help: "a new chat; this one stays in the list", act: () => openChat(newChat()) },
  export: { help: "save this chat as Markdown", act: () => exportMarkdown(state.chat) },
  help: { help: "this list, and the keys", act: () => tell(helpText()) },
  temperature: { help: "from 0, the likeliest word, to 2, wild", field: "temperature" },
  topk: { help: "choose among so many tokens; 0 is all", field: "top_k" },
};

const COMMAND = /^\/([a-z]+)(?:\s+([^]*))?$/i;   // "/usr/bin is a folder" is none, nor is one with a blank before it

const box = byId("draft");

/** Do what `draft` says if it is a command. "done", "wrong", which has been said, or undefined: it is none. */
export function obey(draft) {
  const [, name, value] = draft.match(COMMAND) ?? [];
  if (!name) return undefined;
  const command = COMMANDS[name.toLowerCase()];
  let problem;
  if (!command) problem = "is not a command; /help lists them. To send it as it is, put a blank before it";
  else if (command.field) problem = setNumber(name, command.field, value);
  else if (value) problem = "stands alone, not before other words";
  else command.act();
  if (problem) tell(`/${name} ${problem}.`, true);
  return problem ? "wrong" : "done";
}

/** Set a number among the settings, if there is a value, and say what it is. Returns what is wrong with it. */
function setNumber(name, field, value) {
  const { min, max, step } = byId(field);   // the limits of the settings' own field
  const isIn = +value >= +min && +value <= +max;   // so that what is no number is out, too
  if (value && !isIn) return `wants a number from ${min} to ${max}, not ${value}`;
  if (value) keepSettings({ [field]: step === "1" ? Math.round(value) : +value });
  tell(`/${name} is ${setting(field) ?? "not set"}.`);
  return undefined;
}

function helpText() {
  const lines = Object.entries(COMMANDS).map(([name, { field, help }]) => `/${name}${field ? " NUMBER" : ""}: ${help}`);
  return [...lines, KEYS].join("\n");
}

// ---- the menu, above the message box while the name of a command is being written
let chosen = 0;

function found() {
  const begun = box.value.match(/^\/([a-z]*)$/i)?.[1].toLowerCase();
  return begun === undefined ? [] : Object.keys(COMMANDS).filter(name => name.startsWith(begun));
}

export function drawMenu() {
  const names = found();
  chosen = Math.min(chosen, Math.max(0, names.length - 1));
  const rows = names.map((name, index) => {
    const onmousedown = event => {
      event.preventDefault();   // else the box would lose the focus
      complete(name);
    };
    const attributes = { id: `command-${name}`, role: "option", "aria-selected": index === chosen, onmousedown };
    return element("li", attributes, element("b", `/${name}`), ` ${COMMANDS[name].help}`);
  });
  byId("commands").replaceChildren(...rows);
  byId("commands").hidden = !names.length;
  box.setAttribute("aria-activedescendant", names.length ? `command-${names[chosen]}` : "");
  rows[chosen]?.scrollIntoView({ block: "nearest" });
}

/** Write the name into the box; a command that wants nothing more is done with Enter. */
function complete(name) {
  box.value = COMMANDS[name].field ? `/${name} ` : `/${name}`;
  box.dispatchEvent(new Event("input"));
}

/** A key in the message box. True: it was for the menu. */
export function menuTakes({ key }) {
  const names = found();
  if (!names.length) return false;
  const name = names[chosen];
  const step = { ArrowDown: 1, ArrowUp: names.length - 1 }[key];
  if (step) {
    chosen = (chosen + step) % names.length;
    drawMenu();
    return true;
  }
  const isComplete = box.value === `/${name}`;
  if (key !== "Tab" && (key !== "Enter" || isComplete)) return false;
  complete(name);
  return key === "Tab" || !!COMMANDS[name].field;   // else Enter goes on to do it
}
