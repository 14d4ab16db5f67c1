// One message on the screen: its text, what can be done with it, its editor.

import { askAgain, submit } from "./answers.js";
import { save } from "./chats.js";
import { byId, copyButton, element, growToFit, iconButton, sendOnEnter } from "./dom.js";
import { drawParts } from "./markdown.js";
import { fillWithTokens } from "./probabilities.js";
import { following } from "./scroll.js";
import { redraw, runs, shownProbabilities, state } from "./state.js";
import { deepest, textOf, versionsOf } from "./tree.js";

/** What the message's node depends on: as long as this is the same, so is the node. */
export function messageKey(chat, index) {
  const message = chat.messages[index];
  const running = runs.get(chat.id)?.message === message;
  const editing = state.editing === message;
  const versions = versionsOf(chat, index);
  return [chat.id, index, versions, running, editing, message.note, !!shownProbabilities(message)].join("/");
}

export function drawMessage(chat, index) {
  const message = chat.messages[index];
  const isUser = message.role === "user";
  const label = isUser ? "You said" : "nanochat said";
  const turn = element(`article.turn.${message.role}`, { "aria-label": label });
  if (state.editing === message) {
    turn.append(drawEditor(chat, message));
    return turn;
  }
  const body = element("div.body");
  turn.append(body);
  const run = runs.get(chat.id);
  const running = run?.message === message;
  if (isUser) body.textContent = message.content;
  else fillBody(body, message, running);
  if (running) {
    turn.append(drawRunning(turn, body, chat, run));
  } else {
    if (message.note) turn.append(element("p.note", message.note));
    turn.append(drawActions(chat, index));
  }
  return turn;
}

function fillBody(body, message, running) {
  const tokens = shownProbabilities(message);
  if (tokens) {
    fillWithTokens(body, tokens);
    return;
  }
  body.replaceChildren(...drawParts(message.content));
  body.classList.toggle("thinking", running);
}

/** The line below an answer that is being written; from here on the run draws both. */
function drawRunning(turn, body, chat, run) {
  const line = element("div.acts");
  turn.ariaLive = "off";   // a screen reader hears the answer once, when it is whole
  run.show = () => {
    if (chat !== state.chat || runs.get(chat.id) !== run) return;
    following(() => {
      fillBody(body, run.message, true);
      line.textContent = speedOf(run.message);
    });
  };
  return line;
}

function drawActions(chat, index) {
  const message = chat.messages[index];
  const actions = element("div.acts", copyButton("Copy", textOf(message)));
  if (message.role === "user") actions.append(iconButton("edit", "Edit", () => edit(message)));
  else actions.append(iconButton("again", "Regenerate", () => askAgain(chat, message.up)));

  const versions = versionsOf(chat, index);
  const place = versions.indexOf(index);
  const turnTo = version => {
    chat.tip = deepest(chat, version);
    save(chat);
    redraw();
  };
  if (place > 0) actions.append(iconButton("left", "Version before", () => turnTo(versions[place - 1])));
  if (versions.length > 1) actions.append(`${place + 1} / ${versions.length}`);
  if (place + 1 < versions.length) {
    actions.append(iconButton("right", "Version after", () => turnTo(versions[place + 1])));
  }
  actions.append(element("span.stats", speedOf(message)));
  return actions;
}

function speedOf({ tokens, seconds }) {
  if (!tokens) return "";
  if (!seconds) return `${tokens} tokens`;
  const speed = (tokens - 1) / seconds;   // the first token's time is the prompt's
  return `${tokens} tokens · ${speed.toFixed()} tokens/s`;
}

// ---- the editor, in the place of a question
function edit(message) {
  state.editing = message;
  redraw();
}

/** What it sends becomes another version of the question: the old one and its answers stay. */
function drawEditor(chat, message) {
  const cancel = () => {
    edit(null);
    byId("draft").focus();
  };
  const send = () => {
    const text = area.value.trim();
    if (!text) return;
    byId("draft").focus();   // the area goes, and the focus must not go with it
    submit(chat, text, message.up);
  };
  const onkeydown = event => {
    if (event.key !== "Escape") return;
    event.stopPropagation();   // it would stop an answer, too
    cancel();
  };
  const area = element("textarea", { "aria-label": "Edit your message", rows: 1, onkeydown });
  area.value = message.content;   // set like this, the caret stands at the end
  sendOnEnter(area, send);
  requestAnimationFrame(() => {   // once it is in the page, and has a size
    growToFit(area);
    area.focus();
  });
  return element("div.edit",
    area,
    element("button.quiet", { onclick: cancel }, "Cancel"),
    element("button.primary", { onclick: send }, "Send"));
}
