// Markdown, straight into elements: a parser of what models write, about a tenth of CommonMark. There is no
// step in which the text is HTML, so nothing in it can run, and a link can only be http or https.
//
// A call of the calculator may stand in the middle of a sentence, or of a list. So each call travels through
// the parser as one character, of those that Unicode leaves to private use, and becomes a chip where it is
// found.

import { copyButton, element, icon } from "./dom.js";

const FIRST_MARK = 0xE000;
const MARKS = /[\uE000-\uF8FF]/g;
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

// ---- inside a line
const INLINE = new RegExp([
  /(?<ticks>`+)(?<code>[^`]|[^`].*?[^`])\k<ticks>(?!`)/,        // `code`
  /\*\*(?<bold>\S|\S.*?\S)\*\*/,                                // **bold**
  /\*(?<slanted>\S|[^\s*].*?[^\s*])\*(?!\*)/,                   // *slanted*
  /\[(?<label>[^\]\n]+)\]\((?<href>https?:\/\/[^\s()]+)\)/,     // [label](https://...)
  /(?<mark>[\uE000-\uF8FF])/,                                   // a call
].map(part => part.source).join("|"));

function drawInline(text, callOf) {
  const nodes = [];
  let found = INLINE.exec(text);
  while (found) {
    nodes.push(text.slice(0, found.index), drawSpan(found.groups, callOf));
    text = text.slice(found.index + found[0].length);
    found = INLINE.exec(text);
  }
  nodes.push(text);
  return nodes;
}

function drawSpan({ mark, code, href, label, bold, slanted }, callOf) {
  if (mark) return drawCall(callOf(mark));
  if (code) return element("code", withCallsInWords(code.trim(), callOf));
  if (href) {
    const attributes = { href, target: "_blank", rel: "noopener noreferrer nofollow" };
    return element("a", attributes, withCallsInWords(label, callOf));
  }
  if (bold) return element("strong", ...drawInline(bold, callOf));
  return element("em", ...drawInline(slanted, callOf));
}

function drawCall({ code, result }) {
  return element("span.chip", { title: "The model's calculator" },
    icon("tool"),
    element("span.unseen", "Calculator: "),
    element("code", code),
    "=",
    element("b", result));
}

/** Where no chip can stand, as in code, a call is [47 * 12 = 564]. */
function withCallsInWords(text, callOf) {
  return text.replace(MARKS, mark => `[${callOf(mark).code} = ${callOf(mark).result}]`);
}

// ---- lines that make blocks
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+/;   // its indent, and its number in a list that has them
const FENCE = /^\s*(```+|~~~+)/;
const HEADING = /^(#{1,6})\s+/;
const RULE = /^\s*(-{3,}|\*{3,}|_{3,})\s*$/;
const QUOTE = /^>\s?/;

const isBlank = line => !line.trim();
const indentOf = line => line.search(/\S|$/);
const beginsBlock = line => [ITEM, FENCE, HEADING, RULE, QUOTE].some(pattern => pattern.test(line));

/** Reads lines one after the other. */
class Lines {
  constructor(lines) {
    this.lines = lines;
    this.at = 0;
  }

  get next() {   // undefined at the end
    return this.lines[this.at];
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
    return element(`h${level}`, ...drawInline(lines.take().slice(heading[0].length), callOf));
  }
  if (QUOTE.test(line) && depth < DEEPEST) {
    const quoted = lines.takeWhile(next => QUOTE.test(next)).map(next => next.replace(QUOTE, ""));
    return element("blockquote", ...drawBlocks(quoted, callOf, depth + 1));
  }
  if (ITEM.test(line) && depth < DEEPEST) return drawList(lines, callOf, depth);
  return drawParagraph(lines, callOf);
}

function drawCode(lines, callOf) {
  const fence = lines.take().match(FENCE)[1];
  const inside = lines.takeWhile(line => !line.trimStart().startsWith(fence));
  lines.take();   // the closing fence, which an answer that is being written may not have yet
  const code = withCallsInWords(inside.join("\n"), callOf);
  // With tabindex a keyboard, too, can scroll code that is wider than the page.
  const block = element("pre", { tabindex: "0" }, element("code", code));
  return element("div.code", block, copyButton("Copy the code", code));
}

function drawList(lines, callOf, depth) {
  const [, indent, start] = lines.next.match(ITEM);
  const list = element(start ? "ol" : "ul", { start });
  while (true) {
    const item = lines.next?.match(ITEM);
    const belongs = item && item[1].length <= indent.length + 1 && !item[2] === !start;
    if (!belongs) return list;
    list.append(drawItem(lines, item[0].length, indent.length, callOf, depth));
  }
}

/** An item is its first line, without the `width` of its bullet, and what is blank or further in below it. */
function drawItem(lines, width, indent, callOf, depth) {
  const rows = [lines.take().slice(width)];
  for (const line of lines.takeWhile(line => isBlank(line) || indentOf(line) > indent + 1)) {
    rows.push(line.slice(Math.min(width, indentOf(line))));
  }
  const blocks = drawBlocks(rows, callOf, depth + 1);
  const isPlain = blocks[0]?.tagName === "P";   // "- one" is its text, not a paragraph with space around it
  const head = isPlain ? blocks.shift().childNodes : [];
  return element("li", ...head, ...blocks);
}

function drawParagraph(lines, callOf) {
  const rows = [lines.take(), ...lines.takeWhile(line => !isBlank(line) && !beginsBlock(line))];
  const paragraph = element("p");
  for (const [index, row] of rows.entries()) {
    if (index) paragraph.append(element("br"));
    paragraph.append(...drawInline(row, callOf));
  }
  return paragraph;
}
