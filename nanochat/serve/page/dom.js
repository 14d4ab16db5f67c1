// Building elements. Everything on this page is made here, by createElement and by text nodes: no string is
// ever parsed as HTML, so whatever a user or a model writes stays text.

const SVG = "http://www.w3.org/2000/svg";
const HTML = "http://www.w3.org/1999/xhtml";

// Each picture is one line drawn by a pen in a square of 24 by 24: M moves it, L, H, V and a draw.
const ICONS = {
  again: "M19 12a7 7 0 1 1-2-4.9M19 4v4h-4",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  bottom: "M12 5v14M5.5 12.5 12 19l6.5-6.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  done: "M5 12.5l4.5 4.5L19 7",
  down: "M4 14V4h13l3 10h-7v6l-5-6z",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  left: "M14 6l-6 6 6 6",
  menu: "M4 5h16v14H4zM9.5 5v14",
  new: "M12 5v14M5 12h14",
  "open-settings": "M4 8h9M19 8h1M4 16h1M11 16h9M16 5.5v5M8 13.5v5",
  "open-run": "M4 4v16h16M8 6c1 7 4 10 12 10",
  right: "M10 6l6 6-6 6",
  save: "M12 4v11M7 11l5 5 5-5M5 20h14",
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M8 8h8v8H8zM12 8.5v7M10 8v8M14 8v8",
  sure: "M5 19v-5M12 19V5M19 19v-9",
  tool: "M6 3h12v18H6zM9 7h6M9 12h.1M15 12h.1M9 16h.1M15 16h.1",
  up: "M4 10v10h13l3-10h-7V4l-5 6z",
};

export const byId = id => document.getElementById(id);

/**
 * element("button.act", { onclick }, "Words"): a button of class "act" that says "Words". Among the children
 * plain objects are attributes; one that is undefined is left out, a name that begins with "on" is a handler,
 * and `share`, a number from 0 to 1, becomes the CSS variable of the bars and of the tokens' grounds.
 */
export function element(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const space = ["svg", "path", "text"].includes(tag) ? SVG : HTML;
  const node = document.createElementNS(space, tag);
  node.classList.add(...classes);
  for (const child of children) {
    if (child.constructor === Object) setAttributes(node, child);
    else node.append(child);
  }
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node[name] = value;
    else if (name === "share") node.style.setProperty("--share", value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
}

export function icon(name) {
  return element("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, element("path", { d: ICONS[name] }));
}

/** A button that is only a picture; its label is for a pointer that rests on it, and for a screen reader. */
export function iconButton(name, label, onclick) {
  return element("button.act", { onclick, "aria-label": label, title: label }, icon(name));
}

/** A button that copies textOf(), shows for a moment that it has, and says so to a screen reader. */
export function copyButton(label, textOf) {
  const show = (picture, words) => {
    button.replaceChildren(icon(picture));
    byId("status").textContent = words;
  };
  const button = iconButton("copy", label, async () => {
    await copy(textOf());
    show("done", "Copied");
    setTimeout(show, 1400, "copy", "");
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {   // over plain http from another machine a browser has no clipboard: the old way, by a selection
    const area = element("textarea.unseen", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function textsOf(node) {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  return found;
}

/** Make a text area as high as its text; the style sheet says where that ends. */
export function growToFit(area) {
  const borders = area.offsetHeight - area.clientHeight;
  area.style.height = "auto";   // else it would never shrink
  area.style.height = `${area.scrollHeight + borders}px`;
}

/** Let Enter send what is in `area`, and Shift+Enter begin a line. Keys that `takes` wants go there first. */
export function sendOnEnter(area, send, takes = () => false) {
  area.addEventListener("input", () => growToFit(area));
  area.addEventListener("keydown", event => {
    const isTaken = takes(event);
    // Where words are composed from keys, as in Chinese, Enter ends the word: Safari's key code is 229 then.
    const isComposing = event.isComposing || event.keyCode === 229;
    const isSend = event.key === "Enter" && !event.shiftKey && !isComposing;
    if (isTaken || isSend) event.preventDefault();
    if (isSend && !isTaken) send();
  });
}
