// How sure the model was of each token of an answer, and what else it might have said: the answer stays as it
// is, in Markdown, and each piece of its text becomes a button that tells about its token.

import { byId, element, textsOf } from "./dom.js";

const STEP = { ArrowRight: 1, ArrowLeft: -1 };
const FURTHEST = 400;   // characters of markup, such as an address, that may stand between two that are shown
const UNTOLD = ".chip, .head, .unseen";   // what the page has put there itself

/** Make the text of a message's `body` buttons; `odds` are its tokens, as tree.js describes them. */
export function markTokens(body, odds) {
  const source = odds.map(([token]) => token).join("");
  const owners = odds.flatMap(([token], index) => Array(token.length).fill(index));   // by place in the source
  let at = 0;
  for (const node of textsOf(body)) {
    if (node.parentNode.closest(UNTOLD)) continue;
    const pieces = [];   // {owner, text}
    for (const letter of node.data) {
      const found = placeOf(letter, source, at);
      const owner = owners[found];
      if (found !== undefined) at = found + letter.length;
      if (pieces.length && pieces.at(-1).owner === owner) pieces.at(-1).text += letter;
      else pieces.push({ owner, text: letter });
    }
    if (node.parentNode.closest("a")) continue;   // a link is a link, and holds no buttons
    node.replaceWith(...pieces.map(({ owner, text }) => owner === undefined ? text : drawToken(odds[owner], text)));
  }
  body.querySelector(".token")?.setAttribute("tabindex", "0");   // Tab comes to the first, the arrows to the others
}

/** Where in the source a letter of the page stands: what is passed over was markup. Half a character is "\uFFFD". */
function placeOf(letter, source, at) {
  const found = source.indexOf(letter, at);
  const half = letter > "\x7F" ? source.indexOf("\uFFFD", at) : -1;
  const place = half >= 0 && (found < 0 || half < found) ? half : found;
  return place >= 0 && place - at < FURTHEST ? place : undefined;
}

function drawToken([token, logprob, others], text) {
  const walk = ({ key, target }) => {
    if (key === "Escape") hide();
    if (!STEP[key]) return;
    const all = [...target.closest(".body").querySelectorAll(".token")];
    all[all.indexOf(target) + STEP[key]]?.focus();
  };
  const show = ({ target }) => showOthers(target, token, others);
  const attributes = {
    share: Math.exp(logprob),
    role: "button",
    tabindex: -1,
    "aria-label": token + percent(logprob),
    onfocus: show,
    onmouseover: show,
    onmouseout: hide,
    onblur: hide,
    onkeydown: walk,
  };
  return element("span.token", attributes, text);
}

/** A card at the token. It lies over the page, so that nothing moves. */
function showOthers(target, said, others) {
  const card = byId("odds");
  card.replaceChildren(...others.flatMap(other => drawAlternative(other, said)));
  card.hidden = !others.length;
  const { left, top, bottom } = target.getBoundingClientRect();
  const isRoomBelow = bottom + card.offsetHeight + 16 < innerHeight;
  const y = isRoomBelow ? bottom + 8 : top - card.offsetHeight - 8;
  card.style.left = `${Math.max(8, Math.min(left, innerWidth - card.offsetWidth - 8))}px`;
  card.style.top = `${Math.max(8, y)}px`;
}

function hide() {
  byId("odds").hidden = true;
}

function drawAlternative([token, logprob], said) {
  return [
    element(token === said ? "code.here" : "code", JSON.stringify(token)),   // so that spaces can be seen
    element("i.bar", { share: Math.exp(logprob) }),
    percent(logprob),
  ];
}

function percent(logprob) {
  return ` ${(100 * Math.exp(logprob)).toFixed(1)} %`;
}
