// One message on the screen: its text, what can be done with it, its editor.

import { askAgain, goOn, rate, submit } from "./answers.js";
import { save } from "./chats.js";
import { byId, copyButton, element, growToFit, iconButton, sendOnEnter } from "./dom.js";
import { drawParts } from "./markdown.js";
import { markTokens } from "./probabilities.js";
import { following } from "./scroll.js";
import { redraw, runs, state } from "./state.js";
import { deepest, pathOf, textOf, versionsOf } from "./tree.js";

const EARLY = ["Stopped.", "Broken off.", "Cut at the longest answer allowed."];   // notes of answers that lack an end

/** What the message's node depends on: as long as this is the same, so is the node. */
export function messageKey(chat, index) {
  const message = chat.messages[index];
  const running = runs.get(chat.id)?.message === message;
  const editing = state.editing === message;
  const versions = versionsOf(chat, index);
  const length = running ? 0 : textOf(message).length;   // which another tab may have changed
  const isLast = index === chat.tip;
  const looks = [running, editing, length, isLast, message.note, message.rating, state.settings.odds && !!message.odds];
  return [chat.id, index, versions, ...looks, state.model?.feedback].join("/");
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
  const body = element("div.body", { dir: "auto" });
  const below = element("div.below");
  turn.append(body, below);
  const run = runs.get(chat.id);
  const running = run?.message === message;
  if (isUser) body.textContent = message.content;
  else fillBody(body, message, running);
  if (running) {
    drawRunning(turn, body, below, chat, run);
  } else {
    below.append(...drawNote(chat, index));
    below.append(drawActions(chat, index));
  }
  return turn;
}

function fillBody(body, message, running) {
  body.replaceChildren(...drawParts(message.content));
  if (state.settings.odds && message.odds) markTokens(body, message.odds);
  body.classList.toggle("thinking", running);
}

/** A word about how the answer ended, and if that was too early a way to go on. */
function drawNote(chat, index) {
  const { note, content } = chat.messages[index];
  if (!note) return [];
  const canGoOn = EARLY.includes(note) && index === chat.tip && content.length;
  const button = element("button.link", { onclick: () => goOn(chat, index) }, "Continue");
  return [element("p.note", note), ...canGoOn ? [button] : []];
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
  const actions = element("div.acts", copyButton("Copy", textOf(message)));
  if (message.role === "user") actions.append(iconButton("edit", "Edit", () => edit(message)));
  else actions.append(iconButton("again", "Regenerate", () => askAgain(chat, message.up)), ...drawRatings(chat, index));

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

/** Open the editor of the last question. */
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
  const onkeydown = event => {
    if (event.key !== "Escape") return;
    event.stopPropagation();   // it would stop an answer, too
    cancel();
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
