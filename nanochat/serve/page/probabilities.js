// An answer as its tokens: how sure the model was of each, and what else it might have said.

import { element } from "./dom.js";

const NEIGHBOUR = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" };

/** Show tokens, {token, logprob, top_logprobs}, in a message's body; what is there already stays. */
export function fillWithTokens(body, tokens) {
  if (!body.matches(".tokens")) {
    body.className = "body tokens";
    const help = "Point at a token, or walk with the arrow keys.";
    body.replaceChildren(element("div.odds", { role: "status" }, help));
  }
  const panel = body.lastChild;   // it follows the tokens
  const drawn = body.children.length - 1;
  for (const token of tokens.slice(drawn)) panel.before(drawToken(token, panel, body.children.length === 1));
}

function drawToken({ token, logprob, top_logprobs = [] }, panel, isFirst) {
  const show = () => panel.replaceChildren(...top_logprobs.flatMap(other => drawAlternative(other, token)));
  const walk = ({ key, target }) => target[NEIGHBOUR[key]]?.focus();
  const attributes = {
    share: Math.exp(logprob),
    tabindex: isFirst ? 0 : -1,   // Tab comes to the first, the arrow keys to the others
    "aria-label": token + percent(logprob),
    onfocus: show,
    onmouseover: show,
    onkeydown: walk,
  };
  return element("button.token", attributes, token);
}

function drawAlternative({ token, logprob }, said) {
  return [
    element(token === said ? "code.here" : "code", JSON.stringify(token)),   // so that spaces can be seen
    element("i.bar", { share: Math.exp(logprob) }),
    percent(logprob),
  ];
}

function percent(logprob) {
  return ` ${(100 * Math.exp(logprob)).toFixed(1)} %`;
}
