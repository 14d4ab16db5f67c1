// Markdown, straight into elements: a parser of what models write, about a fifth of CommonMark. There is no
// step in which the text is HTML, so nothing in it can run, and a link can only be http or https.

import { copyButton, element, icon, textsOf } from "./dom.js";

// A call of the calculator may stand in the middle of a sentence, or of a list. So each travels through the parser
// as one character, of those that Unicode leaves to private use, and is drawn where that has come to.
const MARKS = /([\uE000-\uF8FF])/g;
const FIRST_MARK = 0xE000;
const DEEPEST = 6;   // what is nested deeper is a paragraph: a thousand ">" must not exhaust the stack

/** The elements that show an answer's parts. */
export function drawParts(parts) {
  const calls = [];   // {code, result}
  let text = "";
  for (const part of parts) {
    if (part.type === "text") {
      text += part.text.replace(MARKS, "\uFFFD");   // the model cannot forge a call
      const call = calls.at(-1);
      if (part.text === call?.result.trim()) call.result = "";   // said behind it, as it is
    } else if (part.type === "python") {
      text += String.fromCharCode(FIRST_MARK + calls.length);
      calls.push({ code: part.text, result: "…" });   // until its output comes
    } else if (calls.length) {
      calls.at(-1).result = part.text;
    }
  }
  const nodes = drawBlocks(text.trim().split("\n"), 0);
  if (calls.length) nodes.flatMap(textsOf).forEach(node => drawCalls(node, calls));
  return nodes;
}

function drawCalls(node, calls) {
  const pieces = node.data.split(MARKS).map(piece => {
    const call = calls[piece.charCodeAt(0) - FIRST_MARK];
    return call ? drawChip(call) : piece;
  });
  node.replaceWith(...pieces);
}

function drawChip({ code, result }) {
  return element("span.chip", { title: "The model's calculator" },
    icon("tool"),
    element("span.unseen", "Calculator: "),
    element("code", code),
    ...(result ? ["=", element("b", result)] : []));
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

/** Whether a table begins: a row, and the divider below it, of as many cells. */
function beginsTable(row, divider = "") {
  const isDivided = row.includes("|") && divider.includes("|") && DIVIDER.test(divider);
  return isDivided && cellsOf(row).length === cellsOf(divider).length;
}

/** Take away the first of the lines, as long as test(line, the one below it) holds. */
function takeWhile(lines, test) {
  const end = lines.findIndex((line, index) => !test(line, lines[index + 1]));
  return lines.splice(0, end < 0 ? lines.length : end);
}

/** The elements of these lines, each of which takes its own away. */
function drawBlocks(lines, depth) {
  const nodes = [];
  while (lines.length) {
    if (isBlank(lines[0])) lines.shift();
    else nodes.push(drawBlock(lines, depth));
  }
  return nodes;
}

function drawBlock(lines, depth) {
  const [line, below] = lines;
  if (FENCE.test(line)) return drawCode(lines);
  if (RULE.test(line)) {
    lines.shift();
    return element("hr");
  }
  const heading = line.match(HEADING);
  if (heading) {
    const level = Math.min(4, 1 + heading[1].length);   // h1 is the page's own
    return directed(`h${level}`, ...drawInline(lines.shift().slice(heading[0].length)));
  }
  if (QUOTE.test(line) && depth < DEEPEST) {
    const quoted = takeWhile(lines, next => QUOTE.test(next)).map(next => next.replace(QUOTE, ""));
    return directed("blockquote", ...drawBlocks(quoted, depth + 1));
  }
  if (ITEM.test(line) && depth < DEEPEST) return drawList(lines, depth);
  if (beginsTable(line, below)) return drawTable(lines);
  return drawParagraph(lines);
}

function drawCode(lines) {
  const [, fence, language] = lines.shift().match(FENCE);
  const inside = takeWhile(lines, line => !line.trimStart().startsWith(fence));
  lines.shift();   // the closing fence, which an answer that is being written may not have yet
  const code = element("code", inside.join("\n"));
  const head = element("div.head", element("span", language), copyButton("Copy the code", () => code.textContent));
  // With tabindex a keyboard, too, can scroll code that is wider than the page.
  return element("div.code", head, element("pre", { tabindex: 0 }, code));
}

function drawList(lines, depth) {
  const [, indent, start] = lines[0].match(ITEM);
  const list = element(start ? "ol" : "ul", { start, dir: "auto" });
  while (true) {
    const item = lines[0]?.match(ITEM);
    const belongs = item && item[1].length <= indent.length + 1 && !item[2] === !start;
    if (!belongs) return list;
    list.append(drawItem(lines, item[0].length, indent.length, depth));
  }
}

/** An item is its first line, without the `width` of its bullet, and what is blank or further in below it. */
function drawItem(lines, width, indent, depth) {
  const first = lines.shift().slice(width);
  const task = first.match(TASK);
  const rows = [first.replace(TASK, "")];
  for (const line of takeWhile(lines, line => isBlank(line) || indentOf(line) > indent + 1)) {
    rows.push(line.slice(Math.min(width, indentOf(line))));
  }
  const blocks = drawBlocks(rows, depth + 1);
  const isPlain = blocks[0]?.tagName === "P";   // "- one" is its text, not a paragraph with space around it
  const head = isPlain ? blocks.shift().childNodes : [];
  if (!task) return directed("li", ...head, ...blocks);
  return directed("li.task", task[1] === " " ? "☐ " : "☑ ", ...head, ...blocks);
}

function drawTable(lines) {
  const head = cellsOf(lines.shift());
  const sides = cellsOf(lines.shift()).map(cell => cell.match(/^(:?)-+(:?)$/));
  const drawRow = (kind, cells) => element("tr", ...head.map((_, column) => {
    const [, left, right] = sides[column];
    const node = directed(kind, ...drawInline((cells[column] ?? "").replaceAll("\\|", "|")));
    if (right) node.classList.add(left ? "middle" : "right");
    return node;
  }));
  const rows = takeWhile(lines, line => line.includes("|")).map(line => drawRow("td", cellsOf(line)));
  const table = element("table", element("thead", drawRow("th", head)), element("tbody", ...rows));
  return element("div.table", { tabindex: 0 }, table);
}

function drawParagraph(lines) {
  const isText = (line, below) => !isBlank(line) && !beginsBlock(line) && !beginsTable(line, below);
  const rows = [lines.shift(), ...takeWhile(lines, isText)];
  return directed("p", ...drawInline(rows.join("\n")));   // the style sheet breaks it there
}

// ---- inside a line
const INLINE = new RegExp([
  /(?<ticks>`+)(?<code>[^`]|[^`].*?[^`])\k<ticks>(?!`)/,   // `code`
  /\*\*(?<bold>\S|\S.*?\S)\*\*/,   // **bold**
  /~~(?<struck>\S|\S.*?\S)~~/,   // ~~struck~~
  /\*(?<slanted>\S|[^\s*].*?[^\s*])\*(?!\*)/,   // *slanted*
  /\[(?<label>[^\]\n]+)\]\((?<href>https?:\/\/(?:[^\s()]|\([^\s()]*\))+)\)/,   // [label](https://...(a))
  /(?<bare>https?:\/\/(?:[^\s<>()"`*\uE000-\uF8FF]|\([^\s<>()]*\))+)/,   // https://...(a)
].map(part => part.source).join("|"));

const AFTER_ADDRESS = /[.,;:!?'~]+$/;   // ends the sentence, and no address

function drawInline(text) {
  const nodes = [];
  let found = INLINE.exec(text);
  while (found) {
    const bare = found.groups.bare?.replace(AFTER_ADDRESS, "");
    const length = (bare ?? found[0]).length;
    nodes.push(text.slice(0, found.index), drawSpan({ ...found.groups, bare }));
    text = text.slice(found.index + length);
    found = INLINE.exec(text);
  }
  nodes.push(text);
  return nodes;
}

function drawSpan({ code, href, label, bare, bold, struck, slanted }) {
  if (code) return element("code", code.trim());
  if (href) return drawLink(href, label);
  if (bare) return drawLink(bare, bare);
  if (bold) return element("strong", ...drawInline(bold));
  if (struck) return element("s", ...drawInline(struck));
  return element("em", ...drawInline(slanted));
}

function drawLink(href, label) {
  return element("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}
