// How much of the model's context the chat fills: a model reads at most so many tokens, question and answer
// together.

import { byId, element } from "./dom.js";
import { state } from "./state.js";
import { pathOf } from "./tree.js";

const NEARLY = 0.9;   // from here on the gauge warns

export function drawGauge() {
  const { chat, model } = state;
  const gauge = byId("gauge");
  const counts = pathOf(chat).map(index => chat.messages[index].used);
  const used = counts.findLast(Boolean);   // the server counts them with every answer
  const room = model?.max_model_len;
  gauge.classList.toggle("nearly", used > NEARLY * room);
  gauge.replaceChildren();
  if (!used || !room) return;
  gauge.append(element("i.bar", { share: Math.min(1, used / room) }), `${used} of ${room} tokens`);
}
