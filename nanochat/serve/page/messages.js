// One message on the screen: its text, what can be done with it, its editor.

import { answer, rate, submit, write } from "./answers.js";
import { save } from "./chats.js";
import { byId, copyButton, element, growToFit, iconButton, sendOnEnter } from "./dom.js";
import { drawParts } from "./markdown.js";
import { markTokens } from "./probabilities.js";
import { following } from "./scroll.js";
import { redraw, runs, state } from "./state.js";
import { deepest, pathOf, textOf, versionsOf } from "./tree.js";

/** What the message's node depends on: as long as this is the same, so is the node. */
export function messageKey(chat, index) {
  const message = chat.messages[index];
  const running = runs.get(chat.id)?.message === message;
  const editing = state.editing === message;
  const text = running ? "" : textOf(message);   // which another tab may have changed
  const odds = state.settings.odds && !!message.odds;
  const looks = [running, editing, text, odds, message.note, message.rating, state.model?.feedback];
  return JSON.stringify([chat.id, index, index === chat.tip, versionsOf(chat, index), ...looks]);
}

export function drawMessage(chat, index) {
  const message = chat.messages[index];
  const isUser = message.role === "user";
  const turn = element(`article.turn.${message.role}`, { "aria-label": isUser ? "You said" : "nanochat said" });
  if (state.editing === message) {
    turn.append(drawEditor(chat, message));
    return turn;
  }
  const body = element("div.body", { dir: "auto" });
  const below = element("div.below");
  turn.append(body, below);
  const run = runs.get(chat.id);
  const running = run?.message === message;
  if (isUser) body.textContent = message.content;
  else fillBody(body, message, running);
  if (running) drawRunning(turn, body, below, chat, run);
  else below.append(...drawNote(chat, index), drawActions(chat, index));
  return turn;
}

function fillBody(body, message, running) {
  body.replaceChildren(...drawParts(message.content));
  if (state.settings.odds && message.odds) markTokens(body, message.odds);
  body.classList.toggle("thinking", running);
}

/** A word about an answer that ended too early, and a way to go on. */
function drawNote(chat, index) {
  const { note, content } = chat.messages[index];
  if (!note) return [];
  const words = element("p.note", note);
  if (index !== chat.tip || !content.length) return [words];
  return [words, element("button.link", { onclick: () => write(chat, index) }, "Continue")];
}

/** An answer that is being written, with the line below it; from here on the run draws both. */
function drawRunning(turn, body, below, chat, run) {
  const line = element("div.acts", element("span.stats"));
  below.append(line);
  turn.ariaLive = "off";   // a screen reader hears the answer once, when it is whole
  run.show = () => {
    if (chat !== state.chat || runs.get(chat.id) !== run) return;
    following(() => {
      fillBody(body, run.message, true);
      line.firstChild.textContent = speedOf(run.message);
    });
  };
}

function drawActions(chat, index) {
  const message = chat.messages[index];
  const actions = element("div.acts", copyButton("Copy", () => textOf(message)));
  const add = (name, label, onclick) => actions.append(iconButton(name, label, onclick));
  if (message.role === "user") {
    add("edit", "Edit", () => edit(message));
    if (index === chat.tip) add("again", "Ask again", () => answer(chat, index));   // its answer was lost
  } else {
    add("again", "Regenerate", () => answer(chat, message.up));
    actions.append(...drawRatings(chat, index));
  }
  const versions = versionsOf(chat, index);
  const place = versions.indexOf(index);
  const turnTo = version => {
    chat.tip = deepest(chat, version);
    save(chat);
    redraw();
  };
  if (place > 0) add("left", "Version before", () => turnTo(versions[place - 1]));
  if (versions.length > 1) actions.append(`${place + 1} / ${versions.length}`);
  if (place + 1 < versions.length) add("right", "Version after", () => turnTo(versions[place + 1]));
  actions.append(element("span.stats", speedOf(message)));
  return actions;
}

/** Thumbs, where the server keeps them. */
function drawRatings(chat, index) {
  if (!state.model?.feedback) return [];
  const { rating } = chat.messages[index];
  return [["up", "Good answer"], ["down", "Bad answer"]].map(([name, label]) => {
    const button = iconButton(name, label, () => rate(chat, index, name === rating ? undefined : name));
    button.ariaPressed = name === rating;
    return button;
  });
}

function speedOf({ tokens, speed }) {
  if (!tokens) return "";
  return speed ? `${tokens} tokens · ${speed.toFixed()} tokens/s` : `${tokens} tokens`;
}

// ---- the editor, in the place of a question
function edit(message) {
  state.editing = message;
  redraw();
}

export function editLast() {
  const { chat } = state;
  const last = pathOf(chat).findLast(index => chat.messages[index].role === "user");
  if (last !== undefined && !runs.has(chat.id)) edit(chat.messages[last]);
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
  const onkeydown = ({ key }) => {
    if (key === "Escape") cancel();
  };
  const area = element("textarea", { "aria-label": "Edit your message", dir: "auto", rows: 1, onkeydown });
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
