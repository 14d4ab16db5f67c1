// Markdown, straight into elements: a parser of what models write, about a fifth of CommonMark. There is no
// step in which the text is HTML, so nothing in it can run, and a link can only be http or https. What stands
// inside a line, inline.js reads.

import { copyButton, element } from "./dom.js";
import { drawInline, MARKS, withCallsInWords } from "./inline.js";

const FIRST_MARK = 0xE000;
const DEEPEST = 6;   // what is nested deeper is a paragraph: a thousand ">" must not exhaust the stack

/** The elements that show an answer's parts. */
export function drawParts(parts) {
  const calls = [];   // {code, result}
  let text = "";
  for (const part of parts) {
    if (part.type === "text") {
      text += part.text.replace(MARKS, "\uFFFD");   // the model cannot forge a call
    } else if (part.type === "python") {
      text += String.fromCharCode(FIRST_MARK + calls.length);
      calls.push({ code: part.text, result: "…" });   // until its output comes
    } else if (calls.length) {
      calls.at(-1).result = part.text;
    }
  }
  const callOf = mark => calls[mark.charCodeAt(0) - FIRST_MARK];
  return drawBlocks(text.trim().split("\n"), callOf, 0);
}

/** An element whose direction, from left or from right, is that of its first letter. */
function directed(kind, ...children) {
  return element(kind, { dir: "auto" }, ...children);
}

// ---- lines that make blocks
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+/;   // its indent, and its number in a list that has them
const FENCE = /^\s*(```+(?!.*`)|~~~+)\s*(\S*)/;   // and the language
const HEADING = /^(#{1,6})\s+/;
const RULE = /^\s*(-{3,}|\*{3,}|_{3,})\s*$/;
const QUOTE = /^>\s?/;
const TASK = /^\[([ xX])\]\s+/;   // of a list of things to do
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;   // below the head of a table

const isBlank = line => !line.trim();
const indentOf = line => line.search(/\S|$/);
const beginsBlock = line => [ITEM, FENCE, HEADING, RULE, QUOTE].some(pattern => pattern.test(line));
const cellsOf = row => row.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map(cell => cell.trim());

/** Reads lines one after the other. */
class Lines {
  constructor(lines) {
    this.lines = lines;
    this.at = 0;
  }

  get next() {   // undefined at the end
    return this.lines[this.at];
  }

  get beginsTable() {   // a row, and the divider below it, of as many cells
    const divider = this.lines[this.at + 1] ?? "";
    const isDivided = this.next.includes("|") && divider.includes("|") && DIVIDER.test(divider);
    return isDivided && cellsOf(this.next).length === cellsOf(divider).length;
  }

  take() {
    this.at += 1;
    return this.lines[this.at - 1];
  }

  takeWhile(test) {
    const from = this.at;
    while (this.at < this.lines.length && test(this.next)) this.at += 1;
    return this.lines.slice(from, this.at);
  }
}

function drawBlocks(rows, callOf, depth) {
  const lines = new Lines(rows);
  const nodes = [];
  while (lines.next !== undefined) {
    if (isBlank(lines.next)) lines.take();
    else nodes.push(drawBlock(lines, callOf, depth));
  }
  return nodes;
}

function drawBlock(lines, callOf, depth) {
  const line = lines.next;
  if (FENCE.test(line)) return drawCode(lines, callOf);
  if (RULE.test(line)) {
    lines.take();
    return element("hr");
  }
  const heading = lines.next.match(HEADING);
  if (heading) {
    const level = Math.min(4, 1 + heading[1].length);   // h1 is the page's own
    return directed(`h${level}`, ...drawInline(lines.take().slice(heading[0].length), callOf));
  }
  if (QUOTE.test(line) && depth < DEEPEST) {
    const quoted = lines.takeWhile(next => QUOTE.test(next)).map(next => next.replace(QUOTE, ""));
    return directed("blockquote", ...drawBlocks(quoted, callOf, depth + 1));
  }
  if (ITEM.test(line) && depth < DEEPEST) return drawList(lines, callOf, depth);
  if (lines.beginsTable) return drawTable(lines, callOf);
  return drawParagraph(lines, callOf);
}

function drawCode(lines, callOf) {
  const [, fence, language] = lines.take().match(FENCE);
  const inside = lines.takeWhile(line => !line.trimStart().startsWith(fence));
  lines.take();   // the closing fence, which an answer that is being written may not have yet
  const code = withCallsInWords(inside.join("\n"), callOf);
  // With tabindex a keyboard, too, can scroll code that is wider than the page.
  const block = element("pre", { tabindex: "0" }, element("code", code));
  return element("div.code", element("div.head", element("span", language), copyButton("Copy the code", code)), block);
}

function drawList(lines, callOf, depth) {
  const [, indent, start] = lines.next.match(ITEM);
  const list = element(start ? "ol" : "ul", { start, dir: "auto" });
  while (true) {
    const item = lines.next?.match(ITEM);
    const belongs = item && item[1].length <= indent.length + 1 && !item[2] === !start;
    if (!belongs) return list;
    list.append(drawItem(lines, item[0].length, indent.length, callOf, depth));
  }
}

/** An item is its first line, without the `width` of its bullet, and what is blank or further in below it. */
function drawItem(lines, width, indent, callOf, depth) {
  const first = lines.take().slice(width);
  const task = first.match(TASK);
  const rows = [first.replace(TASK, "")];
  for (const line of lines.takeWhile(line => isBlank(line) || indentOf(line) > indent + 1)) {
    rows.push(line.slice(Math.min(width, indentOf(line))));
  }
  const blocks = drawBlocks(rows, callOf, depth + 1);
  const isPlain = blocks[0]?.tagName === "P";   // "- one" is its text, not a paragraph with space around it
  const head = isPlain ? blocks.shift().childNodes : [];
  if (!task) return directed("li", ...head, ...blocks);
  return directed("li.task", task[1] === " " ? "☐ " : "☑ ", ...head, ...blocks);
}

function drawTable(lines, callOf) {
  const head = cellsOf(lines.take());
  const sides = cellsOf(lines.take()).map(cell => cell.match(/^(:?)-+(:?)$/));
  const drawRow = (kind, cells) => element("tr", ...head.map((_, column) => {
    const [, left, right] = sides[column];
    const isMiddle = left && right;
    const node = directed(kind, ...drawInline((cells[column] ?? "").replaceAll("\\|", "|"), callOf));
    if (right) node.classList.add(isMiddle ? "middle" : "right");
    return node;
  }));
  const rows = lines.takeWhile(line => line.includes("|")).map(line => drawRow("td", cellsOf(line)));
  const table = element("table", element("thead", drawRow("th", head)), element("tbody", ...rows));
  return element("div.table", { tabindex: "0" }, table);   // so that a keyboard, too, can scroll a wide one
}

function drawParagraph(lines, callOf) {
  const isText = line => !isBlank(line) && !beginsBlock(line) && !lines.beginsTable;
  const rows = [lines.take(), ...lines.takeWhile(isText)];
  const paragraph = directed("p");
  for (const [index, row] of rows.entries()) {
    if (index) paragraph.append(element("br"));
    paragraph.append(...drawInline(row, callOf));
  }
  return paragraph;
}
