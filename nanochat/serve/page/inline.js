// Markdown inside a line: code, emphasis, links, bare addresses, and calls of the calculator.
//
// A call may stand in the middle of a sentence, or of a list. So each travels through the parser as one
// character, of those that Unicode leaves to private use, and becomes a chip where it is found: callOf(character)
// is {code, result}.

import { element, icon } from "./dom.js";

export const MARKS = /[\uE000-\uF8FF]/g;

const INLINE = new RegExp([
  /(?<ticks>`+)(?<code>[^`]|[^`].*?[^`])\k<ticks>(?!`)/,                          // `code`
  /\*\*(?<bold>\S|\S.*?\S)\*\*/,                                                  // **bold**
  /~~(?<struck>\S|\S.*?\S)~~/,                                                    // ~~struck~~
  /\*(?<slanted>\S|[^\s*].*?[^\s*])\*(?!\*)/,                                     // *slanted*
  /\[(?<label>[^\]\n]+)\]\((?<href>https?:\/\/(?:[^\s()]|\([^\s()]*\))+)\)/,      // [label](https://...(a))
  /(?<bare>https?:\/\/(?:[^\s<>()"`*\uE000-\uF8FF]|\([^\s<>()]*\))+)/,            // https://...(a)
  /(?<mark>[\uE000-\uF8FF])/,                                                     // a call
].map(part => part.source).join("|"));

const AFTER_ADDRESS = /[.,;:!?'~]+$/;   // ends the sentence, and no address

/** A line's text as nodes. */
export function drawInline(text, callOf) {
  const nodes = [];
  let found = INLINE.exec(text);
  while (found) {
    const { groups } = found;
    const length = groups.bare?.replace(AFTER_ADDRESS, "").length ?? found[0].length;
    nodes.push(text.slice(0, found.index), drawSpan(groups, callOf));
    text = text.slice(found.index + length);
    found = INLINE.exec(text);
  }
  nodes.push(text);
  return nodes;
}

function drawSpan({ mark, code, href, label, bare, bold, struck, slanted }, callOf) {
  if (mark) return drawCall(callOf(mark));
  if (code) return element("code", withCallsInWords(code.trim(), callOf));
  if (href) return drawLink(href, withCallsInWords(label, callOf));
  if (bare) return drawLink(bare.replace(AFTER_ADDRESS, ""), bare.replace(AFTER_ADDRESS, ""));
  if (bold) return element("strong", ...drawInline(bold, callOf));
  if (struck) return element("s", ...drawInline(struck, callOf));
  return element("em", ...drawInline(slanted, callOf));
}

function drawLink(href, label) {
  return element("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
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
export function withCallsInWords(text, callOf) {
  return text.replace(MARKS, mark => `[${callOf(mark).code} = ${callOf(mark).result}]`);
}
